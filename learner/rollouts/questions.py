"""What a run asks beside its training, from the questions to what their answers come to.

    ask ─▶ a queue outside the training accounts ─▶ look, time and again ─▶ result

A generator answers with the weights that it has: at least those that are asked for, and exactly those where the
questions are `exact`, which somebody must then be held on (weight_sync/broadcaster.py).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from chorus.learner.rollouts.admission import Admission
from chorus.learner.rollouts.collector import read_group
from chorus.protocol.ledger import Entry, IndexTakenError, LearnerLedger
from chorus.protocol.messages import MessageError, RolloutGroup, Task
from chorus.protocol.metrics.step import mean
from chorus.protocol.runtime.exits import CannotGoOn

log = logging.getLogger("chorus.learner")
_UNBOUNDED = 2**31
_BLOCK_S = 0.5
Ask = Callable[[int, int], list[Task]]  # first index, least version -> tasks
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Evaluation:
    """`accuracy`: mean over the samples at the training temperature, and `by_kind` of each kind of problem where there
    are several; `greedy`: at temperature 0."""

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
    by_kind: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Questions:
    """Asked at the weights after `step`, of `version`, when they are made; `groups` are the answers so far.

    `ask` is one of the admission's: `evaluation_tasks` (held out) or `validation_tasks`. exact: at these weights alone;
    otherwise they must not change until all is answered.
    """

    def __init__(
        self, admission: Admission, ledger: LearnerLedger, step: int, version: int, ask: Ask, exact: bool = False
    ) -> None:
        self.step = step
        self.version = version
        self.exact = exact
        self._samples = admission.config.evaluation.samples
        self._deadline_s = admission.config.learner.collect_deadline_s
        self._admission = admission
        self._ledger = ledger
        self._started = time.monotonic()
        self._first, self._wanted = self._admit(ask)
        self._groups: dict[int, RolloutGroup] = {}
        self._take(ledger.reread())  # leftovers of an evaluation that a crash cut short

    @property
    def groups(self) -> list[RolloutGroup]:
        """In the order of the questions."""
        return [self._groups[index] for index in sorted(self._groups)]

    def look(self, block_s: float = 0.0) -> bool:
        """Take what has been answered, waiting so long for the first. Returns whether there is nothing left to come."""
        entries = self._ledger.read(1000, block_s)
        self._take(entries)
        if len(self._groups) < self._wanted and (not (entries or block_s) or self._ledger.accounts().outstanding):
            return False
        self._ledger.trim()
        return True

    def wait(self, progress: Progress) -> None:
        """Until all is answered. Raises CannotGoOn when nothing arrives for learner.collect_deadline_s."""
        last_news, known = time.monotonic(), len(self._groups)
        progress(f"{known} of {self._wanted} groups")
        while not self.look(_BLOCK_S):
            progress(f"{len(self._groups)} of {self._wanted} groups")
            now = time.monotonic()
            if len(self._groups) > known:
                last_news, known = now, len(self._groups)
            if now - last_news > self._deadline_s:
                raise CannotGoOn(
                    f"evaluation: no group for learner.collect_deadline_s = {self._deadline_s:g} s; are generators "
                    "alive?"
                )

    def result(self) -> Evaluation:
        """Raises CannotGoOn where nothing came back graded."""
        groups = self.groups
        samples = [s for g in groups if g.task.sampling.temperature > 0 for s in g.samples]
        sampled = [s.grade for s in samples]
        greedy = [s.grade for g in groups if g.task.sampling.temperature == 0 for s in g.samples]
        graded = [g for g in sampled if g.accuracy is not None]
        if not graded:
            dropped = self._ledger.accounts().dropped
            raise CannotGoOn(
                f"evaluation: of {self._wanted} groups none came back graded (dropped: {dropped or 'none'}); "
                "is the reward server alive? see the generators' logs"
            )
        return Evaluation(
            step=self.step,
            problems=len(greedy),
            samples=self._samples,
            accuracy=mean(g.accuracy for g in graded) or 0.0,
            greedy=mean(g.accuracy for g in greedy) or 0.0,
            format=mean(g.format for g in graded) or 0.0,
            response_tokens_mean=mean(s.n_tokens for s in samples) or 0.0,
            truncated=mean(s.finish_reason == "length" for s in samples) or 0.0,
            ungraded=len(sampled) - len(graded),
            seconds=time.monotonic() - self._started,
            by_kind=_by_kind(groups),
        )

    def _admit(self, ask: Ask) -> tuple[int, int]:
        """`chorus eval --running` may ask on the same queue between our look at its count and our questions."""
        while True:
            first = self._ledger.admitted()
            tasks = [task.model_copy(update={"exact": self.exact}) for task in ask(first, self.version)]
            with suppress(IndexTakenError):
                self._ledger.admit(first, [t.encode() for t in tasks], _UNBOUNDED)
                return first, len(tasks)

    def _take(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.index is not None and not self._first <= entry.index < self._first + self._wanted:
                self._ledger.drop("abandoned", [entry.id])
                continue
            if entry.index in self._groups:
                log.warning("evaluation rollout %s is refused: index %d was answered before", entry.id, entry.index)
                self._ledger.refuse([entry.id])
                continue
            try:
                group = read_group(entry, self._admission)
            except MessageError as error:
                log.warning("evaluation rollout %s is dropped as corrupt: %s", entry.id, error)
                self._ledger.drop("corrupt", [entry.id])
                continue
            self._groups[group.task.index] = group
            self._ledger.durable(0, [entry.id])


def _by_kind(groups: Sequence[RolloutGroup]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for group in groups:
        if group.task.sampling.temperature > 0:
            known = [s.grade.accuracy for s in group.samples if s.grade.accuracy is not None]
            found.setdefault(group.task.kind, []).extend(known)
    return {kind: fmean(known) for kind, known in sorted(found.items()) if known} if len(found) > 1 else {}
