"""Validation while a run trains, and which checkpoint it selects.

    due at a step ─▶ checkpoint ─▶ asked under one template ─▶ a line of validation.jsonl ─▶ selected.json

The selected checkpoint is the one with the highest sampled accuracy on the validation problems, the earlier one of
two equals. Held-out problems and test suites never enter: they are for saying how good the selected one is. It
stays when older checkpoints are pruned. All of it is on disk, so a resumed run selects what an unbroken one would.

Evaluation through the run's own generators, on a lane outside the training books: held out, or for validation.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from chorus.learner.rollouts.admission import Admission
from chorus.learner.rollouts.collector import read_group
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import IndexTakenError, LearnerLedger
from chorus.protocol.messages import MessageError, RolloutGroup, Task
from chorus.protocol.run_folder.folder import read_records, write_json
from chorus.protocol.runtime.exits import CannotGoOn

_RECORDS = "validation.jsonl"
_SELECTED = "selected.json"


def due(config: RunConfig, step: int) -> bool:
    """Every `evaluation.every` steps, and after the last one."""
    every = config.evaluation.every
    return bool(every) and step > 0 and (step % every == 0 or step == config.run.steps)


def read(run_dir: Path) -> list[dict[str, Any]]:
    """The validations so far, in order."""
    return read_records(run_dir, _RECORDS)


def known(run_dir: Path, step: int) -> bool:
    return any(r["step"] == step for r in read(run_dir))


def record(run_dir: Path, config: RunConfig, result: Evaluation) -> int:
    """Write a validation down; returns the step that is selected now."""
    with (run_dir / _RECORDS).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"template": config.validation_template, **result.as_dict()}) + "\n")
    return _select(run_dir)


def rewind(run_dir: Path, step: int) -> None:
    """Forget the validations of steps that a crash undid; a line that it cut short goes, too."""
    path = run_dir / _RECORDS
    if not path.is_file():
        return
    kept = [r for r in read_records(run_dir, _RECORDS) if r["step"] <= step]
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(json.dumps(r) + "\n" for r in kept), encoding="utf-8")
    partial.replace(path)
    if kept:
        _select(run_dir)
    else:
        (run_dir / _SELECTED).unlink(missing_ok=True)


def selected_step(run_dir: Path) -> int | None:
    path = run_dir / _SELECTED
    return json.loads(path.read_text(encoding="utf-8"))["step"] if path.is_file() else None


def summary(run_dir: Path) -> dict[str, Any]:
    """The last validation and that of the selected step; empty where none was made."""
    records = read_records(run_dir, _RECORDS)
    chosen = selected_step(run_dir)
    return {"last": records[-1], "selected": next(r for r in records if r["step"] == chosen)} if records else {}


def _select(run_dir: Path) -> int:
    records = read_records(run_dir, _RECORDS)
    best = max(records, key=lambda r: (r["accuracy"], -r["step"]))
    write_json(run_dir / _SELECTED, {"step": best["step"], "by": "validation accuracy, sampled", **best})
    return best["step"]


log = logging.getLogger("chorus.learner")
_UNBOUNDED = 2**31
Ask = Callable[[int, int], list[Task]]  # first index, least version -> tasks
_BLOCK_S = 0.5


@dataclass(frozen=True)
class Evaluation:
    """`accuracy`: mean over the samples at the training temperature; `greedy`: at temperature 0."""

    step: int
    problems: int
    samples: int
    accuracy: float
    greedy: float
    format: float
    response_tokens_mean: float
    truncated: float
    ungraded: int
    seconds: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def evaluate(
    admission: Admission, ledger: LearnerLedger, step: int, ask: Ask, progress: Callable[[str], None]
) -> Evaluation:
    """Sample and grade what `ask` asks at the weights of `step`, which must not change meanwhile.

    `ask` is one of the admission's: `evaluation_tasks` (held out) or `validation_tasks`. Raises CannotGoOn when
    nothing arrives for learner.collect_deadline_s.
    """
    started = time.monotonic()
    first, tasks = _admit(ledger, ask, step)
    groups = _collect(admission, ledger, first, len(tasks), progress)
    samples = [s for g in groups if g.task.sampling.temperature > 0 for s in g.samples]
    sampled = [s.grade for s in samples]
    greedy = [s.grade for g in groups if g.task.sampling.temperature == 0 for s in g.samples]
    graded = [g for g in sampled if g.accuracy is not None]
    if not graded:
        raise CannotGoOn(
            f"evaluation: of {len(tasks)} groups none came back graded (dropped: {ledger.books().dropped or 'none'}); "
            "is the reward server alive? see the generators' logs"
        )
    return Evaluation(
        step=step,
        problems=len(greedy),
        samples=admission.config.evaluation.samples,
        accuracy=_mean(g.accuracy for g in graded),
        greedy=_mean(g.accuracy for g in greedy),
        format=_mean(g.format for g in graded),
        response_tokens_mean=_mean(float(s.n_tokens) for s in samples),
        truncated=_mean(float(s.finish_reason == "length") for s in samples),
        ungraded=len(sampled) - len(graded),
        seconds=time.monotonic() - started,
    )


def _admit(ledger: LearnerLedger, ask: Ask, step: int) -> tuple[int, list[Task]]:
    """`chorus eval --running` may ask on the same lane between our look at its count and our questions."""
    while True:
        first = ledger.admitted()
        tasks = ask(first, step)
        with suppress(IndexTakenError):
            ledger.admit(first, [t.encode() for t in tasks], _UNBOUNDED)
            return first, tasks


def _collect(
    admission: Admission, ledger: LearnerLedger, first: int, wanted: int, progress: Callable[[str], None]
) -> list[RolloutGroup]:
    groups: dict[int, RolloutGroup] = {}
    deadline_s = admission.config.learner.collect_deadline_s
    last_news = time.monotonic()
    pending = ledger.reread()  # leftovers of an evaluation that a crash cut short
    while True:
        for entry in pending:
            if entry.index is not None and not first <= entry.index < first + wanted:
                ledger.drop("abandoned", [entry.id])
                continue
            if entry.index in groups:
                log.warning("evaluation rollout %s is refused: index %d was answered before", entry.id, entry.index)
                ledger.refuse([entry.id])
                continue
            try:
                group = read_group(entry, admission)
            except MessageError as error:
                log.warning("evaluation rollout %s is dropped as corrupt: %s", entry.id, error)
                ledger.drop("corrupt", [entry.id])
                continue
            groups[group.task.index] = group
            ledger.durable(0, [entry.id])
        progress(f"{len(groups)} of {wanted} groups")
        if len(groups) == wanted or ledger.books().outstanding == 0:
            ledger.trim()
            return [groups[index] for index in sorted(groups)]
        pending = ledger.read(1000, _BLOCK_S)
        now = time.monotonic()
        last_news = now if pending else last_news
        if now - last_news > deadline_s:
            raise CannotGoOn(
                f"evaluation: no group for learner.collect_deadline_s = {deadline_s:g} s; are generators alive?"
            )


def _mean(values: Iterable[float | None]) -> float:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else 0.0
