"""What a step's answers tell by themselves: diversity, sub-answers, repetition. Measured beside the step's training.

    begin(groups) ─▶ a thread of its own measures, while the ranks train
    take(groups)  ─▶ what it found; waits for the rest of it, and measures now what was not begun

It is a function of the groups alone: when it is measured changes nothing in the step's record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooSlow
from dataclasses import dataclass
from typing import Any

from chorus.learner.metrics import diversity, interleaved
from chorus.learner.metrics.step_record import repetition
from chorus.protocol.ledger import Rollout
from chorus.protocol.messages import unpack_ids
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.templates.template import Template

DEADLINE_S = 600.0  # a step of 512 groups takes seconds


@dataclass(frozen=True)
class Answers:
    """`values`: keys of the step's record. `repetitions`: of each sample in order."""

    values: dict[str, Any]
    repetitions: list[float]


class AnswerMetrics:
    """`begin` returns at once. Of one step at a time."""

    def __init__(self, templates: Mapping[str, Template], decode: Callable[..., list[str]]) -> None:
        self._templates = templates
        self._decode = decode
        self._thread = ThreadPoolExecutor(1, "answers")
        self._begun: tuple[list[Rollout], Future[Answers]] | None = None

    def begin(self, groups: list[Rollout]) -> None:
        self._begun = groups, self._thread.submit(self._measure, groups)

    def take(self, groups: list[Rollout]) -> Answers:
        """Raises what the measuring raised, and CannotGoOn where it takes too long."""
        begun, self._begun = self._begun, None
        if begun is None or begun[0] is not groups:
            return self._measure(groups)
        try:
            return begun[1].result(DEADLINE_S)
        except TooSlow:
            raise CannotGoOn(
                f"the step's answers were not measured within {DEADLINE_S:g} s: is this machine short of cores? "
                "Resume with fewer processes beside the learner"
            ) from None

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _measure(self, groups: list[Rollout]) -> Answers:
        values = interleaved.step_metrics(groups, self._templates, self._decode)
        values |= diversity.step_metrics(groups, self._templates, self._decode)
        return Answers(values, [repetition(unpack_ids(s.token_ids)) for r in groups for s in r.group.samples])
