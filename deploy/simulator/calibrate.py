"""A pace from what a run recorded: metrics.jsonl, its stored rollouts, and summary.json (or Redis, while it is on).

The engine is fitted on the groups themselves. A group whose longest completion has L tokens, sampled while n sequences
ran on that generator on average, took about L x (a + b n) seconds: every decode step costs something by itself (a: the
weights are read) and something for each sequence (b). The time of pauses that fell into a group, seen as changes of
version inside it, is taken off first; so is that of a pause which came before the group's first token.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import redis

from chorus.deploy.simulator.pace import EngineSpeed, Pace
from chorus.learner.metrics.summary import good_syncs
from chorus.protocol.config.load import load_config
from chorus.protocol.config.run import RunConfig
from chorus.protocol.messages import RolloutGroup
from chorus.protocol.run_folder.files import read_json
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.rollouts import UNREADABLE, read_step, stored_steps
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.redis import glance

_WARM_UP_STEPS = 2  # the first steps compile, fill caches and queues
_STEPS_READ = 200  # of the rollouts, the last ones


@dataclass(frozen=True)
class Calibration:
    """A pace; the completions' lengths, [groups][samples]; and by topic how it was come by and what it can't know."""

    pace: Pace
    lengths: list[list[int]]
    told: dict[str, str]
    notes: dict[str, str]


@dataclass(frozen=True)
class Fit:
    """Seconds a decode step: base_s + sequence_s x sequences; r2 is the share of the variance it explains."""

    base_s: float
    sequence_s: float
    r2: float
    sequences: float  # mean, where it was fitted
    groups: int


def calibrate(run_dir: Path) -> Calibration:
    """Raises CannotGoOn where the folder holds no run that has trained a step."""
    run = RunFolder(run_dir).existing()
    config = load_config(run.config)
    records, steps = run.records(), _read_rollouts(run)
    if not records or not steps:
        what = "metrics.jsonl" if not records else "rollouts/"
        raise CannotGoOn(f"{run_dir}: its {what} holds no step yet; give a run that has trained a few")
    if len(records) > 2 * _WARM_UP_STEPS:
        records = records[_WARM_UP_STEPS:]
    pause_s, sync_s = _syncs(run, config) or (0.0, 0.0)
    groups = [group for step in steps for group in step]
    overtaken = _overtaken(groups, records, pause_s)
    fit = fit_engine(groups, pause_s * (overtaken + np.array([_version_changes(g) for g in groups])))
    pace = Pace(
        groups=(),
        engine=_speed(fit, config.generator.max_num_seqs),
        learner=tuple((r["seconds"] - r["wait_seconds"]) / max(1, r["trained_tokens"]) for r in records),
        grade_s=statistics.fmean(g.timing.graded - g.timing.generated for g in groups),
        pause_s=pause_s,
        sync_s=sync_s,
        fleet=statistics.median(len({g.generator_id for g in step}) for step in steps),
        accepted=_accepted(records, config),
        fresh=bool(overtaken.any()) or not pause_s,
    )
    told = {"run": f"{run_dir}: {len(records)} steps, {fit.groups} groups, {pace.fleet:g} generators"}
    return Calibration(pace, _lengths(groups), told | _tell(pace, fit), _notes(pace, fit))


def stored_lengths(run_dir: Path) -> list[list[int]]:
    """[groups][samples], tokens. Raises CannotGoOn where the folder holds no rollouts."""
    if groups := [group for step in _read_rollouts(RunFolder(run_dir)) for group in step]:
        return _lengths(groups)
    raise CannotGoOn(f"{run_dir}: there are no rollouts in it; give the folder of a run that has trained a step")


def _lengths(groups: Sequence[RolloutGroup]) -> list[list[int]]:
    return [[max(1, sample.n_tokens) for sample in group.samples] for group in groups]


def fit_engine(groups: Sequence[RolloutGroup], paused_s: np.ndarray | float = 0.0) -> Fit:
    """Least squares, weighted by length, so that the fitted times sum up to the measured ones; no negative cost.

    paused_s: [groups], how long the engine stood still while the group was sampled.
    """
    spans = np.array([(g.timing.started, g.timing.generated) for g in groups])
    longest = np.array([max(1, *(s.n_tokens for s in g.samples)) for g in groups], dtype=float)
    seconds = np.maximum(spans[:, 1] - spans[:, 0] - paused_s, 1e-6)
    sequences = _sequences_beside(groups, spans, longest)
    step_s = seconds / longest
    mean_n, mean_s = np.average(sequences, weights=longest), np.average(step_s, weights=longest)
    spread = np.average((sequences - mean_n) ** 2, weights=longest)
    slope = np.average((sequences - mean_n) * (step_s - mean_s), weights=longest) / spread if spread > 1e-9 else 0.0
    slope = float(np.clip(slope, 0.0, mean_s / mean_n))
    base = max(0.0, round(float(mean_s - slope * mean_n), 12))
    left = np.average((step_s - base - slope * sequences) ** 2, weights=longest)
    variance = np.average((step_s - mean_s) ** 2, weights=longest)
    r2 = float(1.0 - left / variance) if variance > 0 else 1.0
    return Fit(base, slope, r2, float(mean_n), len(groups))


def _sequences_beside(groups: Sequence[RolloutGroup], spans: np.ndarray, longest: np.ndarray) -> np.ndarray:
    """[groups]: sequences that ran on the group's generator while it was sampled, its own included, on average."""
    found = np.zeros(len(groups))
    names = np.array([g.generator_id for g in groups])
    for name in set(names):
        mine = np.flatnonzero(names == name)
        # A sample runs from its group's start until it has its own length, at the group's own speed.
        begins = np.concatenate([np.full(len(groups[k].samples), spans[k, 0]) for k in mine])
        ends = np.concatenate(
            [
                spans[k, 0]
                + (spans[k, 1] - spans[k, 0]) * np.array([s.n_tokens for s in groups[k].samples]) / longest[k]
                for k in mine
            ]
        )
        times = np.concatenate([begins, ends])
        order = np.argsort(times, kind="stable")
        times, change = times[order], np.concatenate([np.ones(len(begins)), -np.ones(len(ends))])[order]
        area = np.concatenate([[0.0], np.cumsum(np.cumsum(change)[:-1] * np.diff(times))])
        first, last = spans[mine, 0], spans[mine, 1]
        lasted = np.maximum(last - first, 1e-9)
        found[mine] = (np.interp(last, times, area) - np.interp(first, times, area)) / lasted
    return found


def _overtaken(groups: Sequence[RolloutGroup], records: Sequence[dict[str, Any]], pause_s: float) -> np.ndarray:
    """[groups] bool: started as soon as a step's end admitted it, and yet sampled under that step's weights.

    The learner admits before it publishes; where the first token takes longer than that, the new weights are first.
    """
    times = np.array([r["time"] for r in records])
    found = np.zeros(len(groups), dtype=bool)
    for k, group in enumerate(groups):
        following = int(np.searchsorted(times, group.task.admitted_at))
        if following == len(records):
            continue
        record = records[following]
        at_its_end = times[following] - group.task.admitted_at < 0.5 * record["seconds"]
        at_once = group.timing.started - group.task.admitted_at < max(pause_s, 0.05)
        oldest = min((s.oldest_step(record["step"]) for s in group.samples), default=0)
        found[k] = at_its_end and at_once and oldest >= record["step"]
    return found


def _version_changes(group: RolloutGroup) -> int:
    return len({run[:2] for sample in group.samples for run in sample.versions}) - 1


def _speed(fit: Fit, most: int) -> EngineSpeed:
    return EngineSpeed(tuple((n, fit.base_s + fit.sequence_s * n) for n in sorted({1, most})))


def _accepted(records: Sequence[dict[str, Any]], config: RunConfig) -> float:
    """Of all finished groups, those that dynamic sampling kept; objective.max_refills bounds how few."""
    if not config.objective.dynamic_sampling:
        return 1.0
    kept = sum(r["groups"] for r in records)
    seen = kept + sum(sum(r["groups_filtered"].values()) for r in records)
    return max(kept / seen, 1.0 / (1 + config.objective.max_refills))


def _tell(pace: Pace, fit: Fit) -> dict[str, str]:
    n = max(1.0, fit.sequences)
    return {
        "engine": f"{1e3 * fit.base_s:.3g} ms a decode step + {1e6 * fit.sequence_s:.3g} us for each sequence, which "
        f"explains {fit.r2:.0%}; {pace.engine.rate(n):,.0f} tokens/s at {n:.0f} sequences",
        "learner": f"{1.0 / statistics.fmean(pace.learner):,.0f} tokens/s while it does not wait",
        "grading": f"{1e3 * pace.grade_s:.0f} ms a group",
        "weights": f"an engine pauses {1e3 * pace.pause_s:.0f} ms a sync, {1e3 * pace.sync_s:.0f} ms with the check",
    }


def _notes(pace: Pace, fit: Fit) -> dict[str, str]:
    notes = {}
    if not pace.sync_s:
        notes["weights"] = (
            "the run has neither a summary.json nor a Redis that answers: syncs are taken to cost nothing"
        )
    if fit.sequence_s == 0.0:
        notes["engine"] = (
            "in this run more sequences did not make decode steps slower, so that an engine is taken to give as many "
            "more tokens a second as it has more sequences; a measured curve (--rates) would say where that ends"
        )
    if pace.accepted < 1.0:
        notes["sampling"] = (
            f"dynamic sampling kept {pace.accepted:.0%} of the groups; the others are generated and not trained"
        )
    return notes


def _read_rollouts(run: RunFolder) -> list[list[RolloutGroup]]:
    """[steps][groups]; a file that is being written is left out."""
    found = []
    for _, path in list(stored_steps(run))[-_STEPS_READ:]:
        try:
            found.append([ready.group for ready in read_step(path)])
        except UNREADABLE:
            continue
    return [step for step in found if step]


def _syncs(run: RunFolder, config: RunConfig) -> tuple[float, float] | None:
    """(an engine's pause, the whole sync), medians in seconds: from the summary, or from Redis while the run is on."""
    try:
        weights = read_json(run.summary)["weights"]
        return float(weights["pause_seconds_p50"]), float(weights["seconds_p50"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:
        reports = good_syncs(glance(config.redis.url), run.run_id) if config.redis.url else []
    except redis.RedisError:
        return None
    if not reports:
        return None
    return statistics.median(r.pause_s for r in reports), statistics.median(r.total_s for r in reports)


def read_lengths(path: Path) -> list[int]:
    """Completion lengths in tokens, one a line. Raises CannotGoOn, with the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CannotGoOn(f"--lengths {path}: can't be read ({error}); give a file with one length a line") from None
    lengths = []
    for number, line in enumerate(lines, 1):
        if text := line.strip():
            if not text.isascii() or not text.isdigit() or int(text) < 1:
                raise CannotGoOn(
                    f"--lengths {path}, line {number}: {text[:40]!r} is no number of tokens; write 1 or more"
                )
            lengths.append(int(text))
    if not lengths:
        raise CannotGoOn(f"--lengths {path}: there is no length in it; give one a line")
    return lengths
