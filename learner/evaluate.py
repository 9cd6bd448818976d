"""Evaluation through the run's own generators, on a lane outside the training books: held out, or for validation."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass

from learner.admission import Admission
from learner.collect import read_group
from protocol.exits import CannotGoOn
from protocol.ledger import IndexTakenError, LearnerLedger
from protocol.messages import MessageError, RolloutGroup, Task

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
