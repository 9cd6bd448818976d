"""One line of metrics.jsonl: what a step says of itself, over all, by template and by staleness.

Keys, units and meanings stand in protocol/metrics/step.py. None: there was nothing to measure.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chorus.learner.training.experience import Experience
from chorus.learner.training.token_stats import StepStats, TokenSums
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Rollout
from chorus.protocol.messages import Grade, RolloutGroup, Sample, Task, staleness, unpack_ids
from chorus.protocol.metrics.step import AGES, fill, mean

_REPEATED_GRAM = 8  # tokens; a completion that repeats itself repeats these
_HISTOGRAM_BINS = 5
Rows = Sequence[int] | slice
Labels = Mapping[str, Callable[[Task], str | None]]  # name of a breakdown: which part of it a group belongs to


@dataclass(frozen=True)
class Surroundings:
    """What the learner knows of a step beside its tokens.

    wait_s of `seconds` passed without a full step's groups. waiting: finished groups that the next step can take.
    filtered: groups that dynamic sampling replaced, all wrong and all right and outside the bounds. memory: the
    learner's peak, and what there is, in bytes.
    """

    wait_s: float
    seconds: float
    generator_wait_ratio: float | None = None
    generator_tokens: int = 0
    waiting: int = 0
    filtered: Counter[str] | None = None
    memory: tuple[int, int | None] | None = None


def step_record(
    step: int,
    config: RunConfig,
    groups: list[Rollout],
    experience: Experience,
    stats: StepStats,
    around: Surroundings,
    labels: Labels | None = None,
    repetitions: Sequence[float] | None = None,
) -> dict[str, Any]:
    """The whole line; `labels`: by what else than the template its samples are told apart; `repetitions`: of each
    sample, where they are known already."""
    if repetitions is None:
        repetitions = [repetition(unpack_ids(s.token_ids)) for _, s in experience.samples]
    breakdowns: Labels = {"by_template": lambda task: task.template, **(labels or {})}
    values = {
        "step": step,
        "steps": config.run.steps,
        "time": time.time(),
        **_sample_stats(range(len(experience.samples)), experience, stats, repetitions),
        **_policy_stats(config, stats),
        **_weight_stats(stats.by_sequence),
        "w_p99": stats.w_quantile(0.99),
        **_group_stats(experience, around.filtered or Counter()),
        **_staleness_stats(groups, experience),
        **_flow_stats(groups, experience, stats, around),
        **_right_lengths(groups),
        **{name: _parts(label, experience, stats, config, repetitions) for name, label in breakdowns.items()},
        "by_staleness": {name: _by_age(stats, age) for age, name in enumerate(AGES) if stats.by_age.tokens([age])},
    }
    return fill("step", values)


def _sample_stats(
    rows: Sequence[int], experience: Experience, stats: StepStats, repetitions: Sequence[float]
) -> dict[str, Any]:
    """Rewards, lengths and entropy of some of the step's samples."""
    samples = [experience.samples[k][1] for k in rows]
    graded = [s for s in samples if s.grade.accuracy is not None]
    formats = [s.grade.format for s in samples if s.grade.format is not None]
    lengths = [s.n_tokens for s in samples]
    return {
        "reward": mean(float(experience.rewards[k]) for k in rows if math.isfinite(experience.rewards[k])),
        "accuracy": mean(s.grade.accuracy for s in graded),
        "format": mean(formats),
        "scores": _scores([s.grade for s in samples]),
        "overlong_penalty": mean(float(experience.penalties[k]) for k in rows)
        if experience.penalties is not None
        else None,
        **{f"{name}_reward": mean(float(values[k]) for k in rows) for name, values in experience.paid.items()},
        "sub_answers_found": mean(float(place > 0) for s in samples for place in s.grade.sub_answers or ()),
        "format_full": mean(float(f == 1.0) for f in formats),
        "no_answer": mean(float(s.grade.verdict == "no_answer") for s in samples),
        "entropy": stats.by_sequence.mean("entropy", rows),
        "response_tokens_mean": mean(lengths),
        "response_tokens_p95": float(np.quantile(lengths, 0.95)) if lengths else None,
        "response_tokens_max": max(lengths, default=0),
        "response_tokens_right": mean(s.n_tokens for s in graded if s.grade.accuracy == 1.0),
        "response_tokens_wrong": mean(s.n_tokens for s in graded if s.grade.accuracy != 1.0),
        "truncated": mean(float(s.finish_reason == "length") for s in samples),
        "no_end": mean(float(_has_no_end(*experience.samples[k])) for k in rows),
        "repetition": mean(repetitions[k] for k in rows),
    }


def _parts(
    label: Callable[[Task], str | None],
    experience: Experience,
    stats: StepStats,
    config: RunConfig,
    repetitions: Sequence[float],
) -> dict[str, Any]:
    rows: dict[str, list[int]] = {}
    for k, (group, _) in enumerate(experience.samples):
        if (name := label(group.task)) is not None:
            rows.setdefault(name, []).append(k)
    return {name: _part(rows[name], experience, stats, config, repetitions) for name in sorted(rows)}


def _part(
    rows: list[int], experience: Experience, stats: StepStats, config: RunConfig, repetitions: Sequence[float]
) -> dict[str, Any]:
    sums = stats.by_sequence
    values = {
        "samples": len(rows),
        **_sample_stats(rows, experience, stats, repetitions),
        "advantage_abs": mean(abs(float(experience.advantages[k])) for k in rows),
        **_clipping(sums, rows),
        "mismatch_k1": sums.mean("mismatch_k1", rows),
        **_divergences(config, sums, rows),
        **_weight_stats(sums, rows),
    }
    return fill("part", values)


def _policy_stats(config: RunConfig, stats: StepStats) -> dict[str, Any]:
    sums = stats.by_sequence
    return {
        "loss": stats.loss,
        "lr": stats.lr,
        "grad_norm": max(stats.grad_norms, default=0.0),
        "updates": len(stats.grad_norms),
        "updates_skipped": stats.skipped_updates,
        "logprob": stats.mean("logprob"),
        "ratio_mean": stats.mean("ratio"),
        "ratio_off_max": stats.ratio_off_max,
        "mismatch_k1": stats.mean("mismatch_k1"),
        "mismatch_abs": stats.mean("mismatch_abs"),
        **_clipping(sums),
        **_divergences(config, sums),
        "nonfinite_fraction": stats.mean("nonfinite"),
    }


def _clipping(sums: TokenSums, rows: Rows = slice(None)) -> dict[str, Any]:
    return {f"{side}_fraction": sums.mean(side, rows) for side in ("clip_high", "clip_low", "dual_clip")}


def _divergences(config: RunConfig, sums: TokenSums, rows: Rows = slice(None)) -> dict[str, Any]:
    """Of the current policy from the proximal one, and from the reference where the loss has a KL to it."""
    has_reference = config.objective.needs_reference and config.objective.kl_in == "loss"
    return {
        f"{other}_{k}": sums.mean(f"{other}_{k}", rows) if other == "proximal" or has_reference else None
        for other in ("proximal", "reference")
        for k in ("k1", "k2", "k3")
    }


def _weight_stats(sums: TokenSums, rows: Rows = slice(None)) -> dict[str, Any]:
    """Of w = proximal / behaviour, before caps."""
    low, high = sums.w_range(rows)
    return {
        "w_mean": sums.mean("w", rows),
        "w_min": low,
        "w_max": high,
        "w_effective": sums.effective(rows),
        **{f"w_{k}": sums.mean(f"w_{k}", rows) for k in ("k1", "k2", "k3")},
        "w_truncated_fraction": sums.mean("w_truncated", rows),
        "w_dropped_fraction": sums.mean("w_dropped", rows),
        "rejected_fraction": sums.mean("rejected", rows),
    }


def _by_age(stats: StepStats, age: int) -> dict[str, Any]:
    sums = stats.by_age
    values = {
        "tokens": sums.tokens([age]),
        **_weight_stats(sums, [age]),
        "w_p99": stats.w_quantile(0.99, [age]),
        "mismatch_k1": sums.mean("mismatch_k1", [age]),
        **_clipping(sums, [age]),
    }
    return fill("age", values)


def _group_stats(experience: Experience, filtered: Counter[str]) -> dict[str, Any]:
    """Of the groups that were trained; those that dynamic sampling replaced count in zero_spread alone."""
    accuracy = np.array([np.nan if s.grade.accuracy is None else s.grade.accuracy for _, s in experience.samples])
    ends = np.cumsum(experience.sizes)[:-1]
    means = [float(np.nanmean(g)) for g in np.split(accuracy, ends) if np.isfinite(g).any()]
    rewards = np.split(experience.rewards, ends)
    equal = sum(bool(np.isfinite(g).any() and np.nanmax(g) == np.nanmin(g)) for g in rewards)
    seed = experience.disagreement
    counts, _ = np.histogram(means, bins=_HISTOGRAM_BINS, range=(0, 1))
    return {
        "groups_all_right": mean(float(m == 1.0) for m in means),
        "groups_all_wrong": mean(float(m == 0.0) for m in means),
        "accuracy_histogram": counts.tolist(),
        "zero_advantage_groups": equal,
        "zero_spread": (equal + filtered["all_right"] + filtered["all_wrong"]) / (len(rewards) + filtered.total()),
        "advantage_mean": float(experience.advantages.mean()),
        "advantage_std": float(experience.advantages.std()),
        "advantage_max": float(np.abs(experience.advantages).max()),
        "kl_reward": experience.kl_reward,
        "seed_factor_mean": float(seed.factors.mean()) if seed else None,
        "seed_factor_min": float(seed.factors.min()) if seed else None,
        "seed_clusters_mean": float(seed.clusters.mean()) if seed else None,
    }


def _right_lengths(groups: list[Rollout]) -> dict[str, Any]:
    """The shortest and the longest right answer of a group, means over the groups that have one."""
    lengths = [[s.n_tokens for s in r.group.samples if (s.grade.accuracy or 0.0) >= 1.0] for r in groups]
    return {
        "right_tokens_min": mean(min(group) for group in lengths if group),
        "right_tokens_max": mean(max(group) for group in lengths if group),
    }


def _staleness_stats(groups: list[Rollout], experience: Experience) -> dict[str, Any]:
    ages = [staleness(r.group, experience.version) for r in groups]
    tokens = [np.broadcast_to(s.age, len(s.completion)) for s in experience.sequences]
    lag = np.concatenate(tokens) if tokens else np.empty(0)
    mixed = [float(len({run[:2] for run in s.versions}) > 1) for _, s in experience.samples]
    return {
        "staleness_mean": mean(ages),
        "staleness_max": max(ages),
        "token_lag_mean": float(lag.mean()) if lag.size else None,
        "token_lag_max": int(lag.max()) if lag.size else None,
        "mixed_version_samples": mean(mixed),
        "version": experience.version,
    }


def _flow_stats(
    groups: list[Rollout], experience: Experience, stats: StepStats, around: Surroundings
) -> dict[str, Any]:
    grades = [s.grade for _, s in experience.samples]
    filtered = around.filtered or Counter()
    seen = len(groups) + filtered.total()
    return {
        "groups": len(groups),
        "groups_waiting": around.waiting,
        "groups_filtered": dict(filtered),
        "filter_accepted": len(groups) / seen if seen else None,
        "samples_masked": experience.masked,
        "samples_overlong": experience.overlong,
        "verifier_failures": int(np.isnan(experience.rewards).sum()),  # a failed term leaves no reward either
        "scores_failed": dict(Counter(name for g in grades for name, s in (g.scores or {}).items() if s is None)),
        "shadow": shadow_stats(experience.samples),
        "shadow_disagreement": disagreement(grades),
        "verifier_ms_mean": mean(g.ms for g in grades),
        "trained_tokens": stats.tokens,
        "tokens_per_second": stats.tokens / around.seconds,
        "generated_tokens_per_second": around.generator_tokens / around.seconds,
        "seconds": around.seconds,
        "mfu": stats.mfu,
        "wait_seconds": around.wait_s,
        "learner_wait_ratio": around.wait_s / around.seconds,
        "generator_wait_ratio": around.generator_wait_ratio,
        "memory_peak": around.memory and around.memory[0],
        "memory_limit": around.memory and around.memory[1],
    }


def _scores(grades: Sequence[Grade]) -> dict[str, float]:
    """Users' own graders and their parts, each as its mean over the samples that have it."""
    found: dict[str, list[float]] = {}
    for grade in grades:
        for name, score in (grade.scores or {}).items():
            if score is not None:
                found.setdefault(name, []).append(score)
    return {name: statistics.fmean(values) for name, values in sorted(found.items())}


def shadow_stats(samples: Sequence[tuple[RolloutGroup, Sample]]) -> dict[str, dict[str, dict[str, Any]]]:
    """By kind and template: how many samples have a second opinion, and the share of those that disagree."""
    grades: dict[tuple[str, str], list[Grade]] = {}
    for group, sample in samples:
        if sample.grade.shadow is not None:
            grades.setdefault((group.task.kind, group.task.template), []).append(sample.grade)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for (kind, template), some in sorted(grades.items()):
        found.setdefault(kind, {})[template] = {"samples": len(some), "disagreement": disagreement(some)}
    return found


def disagreement(grades: Sequence[Grade]) -> float | None:
    """The share in which grader and second opinion differ on right or wrong, of those where both have a verdict."""
    return mean(float(g.disputed) for g in grades if g.disputed is not None)


def _has_no_end(group: RolloutGroup, sample: Sample) -> bool:
    return sample.finish_reason != "stop" and sample.n_tokens < group.task.sampling.max_tokens


def repetition(ids: np.ndarray) -> float:
    """The share of a completion's runs of 8 tokens that it has had before; 0 where there is no such run."""
    if len(ids) <= _REPEATED_GRAM:
        return 0.0
    runs = np.lib.stride_tricks.sliding_window_view(ids.astype(np.uint64) + 1, _REPEATED_GRAM)
    powers = np.uint64(0x9E3779B97F4A7C15) ** np.arange(_REPEATED_GRAM, dtype=np.uint64)
    hashes = (runs * powers).sum(1)  # wraps around, as it should
    return 1.0 - len(np.unique(hashes)) / len(hashes)
