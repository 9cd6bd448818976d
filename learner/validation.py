"""Evaluations through the run's own generators, on a queue outside the training accounts: held out, and for validation.

    due at a step ─▶ checkpoint ─▶ asked under one template ─▶ a line of validation.jsonl ─▶ selected.json
                                                            └▶ evaluated/: the answers, as rows like those of rollouts

The selected checkpoint is the one with the highest sampled accuracy on the validation problems, the earlier one of
two equals. Held-out problems and test suites never enter: they are for saying how good the selected one is. It
stays when older checkpoints are pruned. All of it is on disk, so a resumed run selects what an unbroken one would.
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
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Entry, IndexTakenError, LearnerLedger, Rollout
from chorus.protocol.messages import MessageError, RolloutGroup, Task
from chorus.protocol.metrics.processes import LearnerMetrics
from chorus.protocol.metrics.step import mean
from chorus.protocol.run_folder.files import append_line, keep_lines, read_json, read_lines, write_json
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.rollout_rows import Reading, rows_of
from chorus.protocol.run_folder.rollouts import save_table, table_of
from chorus.protocol.runtime.exits import CannotGoOn

log = logging.getLogger("chorus.learner")
_UNBOUNDED = 2**31
_BLOCK_S = 0.5
Ask = Callable[[int, int], list[Task]]  # first index, least version -> tasks
Progress = Callable[[str], None]


class Evaluations:
    """What a run asks beside its training, and what it has answered so far."""

    def __init__(
        self,
        config: RunConfig,
        run: RunFolder,
        admission: Admission,
        ledger: LearnerLedger,
        metrics: LearnerMetrics,
        reading: Reading | None = None,
    ) -> None:
        self._reading = reading
        self.config = config
        self.run = run
        self.admission = admission
        self.ledger = ledger
        self._metrics = metrics

    def rewind(self, step: int) -> None:
        """Forget the validations of steps that a crash undid."""
        if keep_lines(self.run.validations, lambda record: record["step"] <= step):
            self._select()
        else:
            self.run.selected.unlink(missing_ok=True)

    def restore(self) -> None:
        """The curriculum's stages hear of the validations so far."""
        for past in self.validations():
            self.admission.stages.take_validation(past["step"], past["accuracy"])

    def validations(self) -> list[dict[str, Any]]:
        """So far, in order."""
        return read_lines(self.run.validations)

    def asked(self, name: str) -> bool:
        """Whether the held-out problems are still to be asked, `before` or `after`."""
        return bool(self.config.evaluation.problems) and not self.run.evaluation(name).exists()

    def evaluate(self, step: int, version: int, name: str, progress: Progress) -> dict[str, Any]:
        """On the held-out problems, at the weights after `step`, which are of this version."""
        result = self._ask("evaluation", name, step, version, self.admission.evaluation_tasks, progress).as_dict()
        write_json(self.run.evaluation(name), result)
        return result

    def due(self, step: int) -> bool:
        """Every `evaluation.every` steps, and after the last one."""
        every = self.config.evaluation.every
        return bool(every) and step > 0 and (step % every == 0 or step == self.config.run.steps)

    def known(self, step: int) -> bool:
        return any(r["step"] == step for r in self.validations())

    def validate(self, step: int, version: int, progress: Progress) -> dict[str, Any]:
        """On the validation problems, at the weights after `step`; may select another checkpoint."""
        ask = self.admission.validation_tasks
        result = self._ask("validation", f"step {step}", step, version, ask, progress).as_dict()
        best = self.record(result)
        self.admission.stages.take_validation(step, result["accuracy"])
        log.info("validation at step %d: accuracy %.3f; selected: step %d", step, result["accuracy"], best)
        return result

    def record(self, result: dict[str, Any]) -> int:
        """Write a validation down; returns the step that is selected now."""
        append_line(self.run.validations, {"template": self.config.validation_template, **result})
        return self._select()

    def selected_step(self) -> int | None:
        return read_json(self.run.selected).get("step")

    def summary(self) -> dict[str, Any]:
        """The last validation and that of the selected step; empty where none was made."""
        records, chosen = self.validations(), self.selected_step()
        return {"last": records[-1], "selected": next(r for r in records if r["step"] == chosen)} if records else {}

    def _select(self) -> int:
        best = max(self.validations(), key=lambda r: (r["accuracy"], -r["step"]))
        write_json(self.run.selected, {"step": best["step"], "by": "validation accuracy, sampled", **best})
        return best["step"]

    def _ask(self, wait: str, detail: str, step: int, version: int, ask: Ask, progress: Progress) -> Evaluation:
        with self._metrics.waits.on(wait, "generators", self.config.learner.collect_deadline_s, detail):
            result, groups = evaluate(self.admission, self.ledger, step, version, ask, progress)
        self.keep(f"step-{step:06d}" if wait == "validation" else detail, step, version, groups)
        return result

    def keep(self, name: str, step: int, version: int, groups: Sequence[RolloutGroup]) -> None:
        """The answers, for whoever reads the run. They have no entry of the training's stream."""
        answered = [Rollout(Entry("", group.task.index, b""), group) for group in groups]
        save_table(self.run.evaluated(name), table_of(rows_of(step, answered, self._reading, time.time(), version)))


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


def evaluate(
    admission: Admission, ledger: LearnerLedger, step: int, version: int, ask: Ask, progress: Callable[[str], None]
) -> tuple[Evaluation, list[RolloutGroup]]:
    """Sample and grade what `ask` asks at the weights after `step`, of this version, which must not change meanwhile.

    `ask` is one of the admission's: `evaluation_tasks` (held out) or `validation_tasks`. Raises CannotGoOn when
    nothing arrives for learner.collect_deadline_s.
    """
    started = time.monotonic()
    first, tasks = _admit(ledger, ask, version)
    groups = _collect(admission, ledger, first, len(tasks), progress)
    samples = [s for g in groups if g.task.sampling.temperature > 0 for s in g.samples]
    sampled = [s.grade for s in samples]
    greedy = [s.grade for g in groups if g.task.sampling.temperature == 0 for s in g.samples]
    graded = [g for g in sampled if g.accuracy is not None]
    if not graded:
        dropped = ledger.accounts().dropped
        raise CannotGoOn(
            f"evaluation: of {len(tasks)} groups none came back graded (dropped: {dropped or 'none'}); "
            "is the reward server alive? see the generators' logs"
        )
    evaluation = Evaluation(
        step=step,
        problems=len(greedy),
        samples=admission.config.evaluation.samples,
        accuracy=mean(g.accuracy for g in graded) or 0.0,
        greedy=mean(g.accuracy for g in greedy) or 0.0,
        format=mean(g.format for g in graded) or 0.0,
        response_tokens_mean=mean(s.n_tokens for s in samples) or 0.0,
        truncated=mean(s.finish_reason == "length" for s in samples) or 0.0,
        ungraded=len(sampled) - len(graded),
        seconds=time.monotonic() - started,
        by_kind=_by_kind(groups),
    )
    return evaluation, groups


def _by_kind(groups: Sequence[RolloutGroup]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for group in groups:
        if group.task.sampling.temperature > 0:
            known = [s.grade.accuracy for s in group.samples if s.grade.accuracy is not None]
            found.setdefault(group.task.kind, []).extend(known)
    return {kind: fmean(known) for kind, known in sorted(found.items()) if known} if len(found) > 1 else {}


def _admit(ledger: LearnerLedger, ask: Ask, version: int) -> tuple[int, list[Task]]:
    """`chorus eval --running` may ask on the same queue between our look at its count and our questions."""
    while True:
        first = ledger.admitted()
        tasks = ask(first, version)
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
        if len(groups) == wanted or ledger.accounts().outstanding == 0:
            ledger.trim()
            return [groups[index] for index in sorted(groups)]
        pending = ledger.read(1000, _BLOCK_S)
        now = time.monotonic()
        last_news = now if pending else last_news
        if now - last_news > deadline_s:
            raise CannotGoOn(
                f"evaluation: no group for learner.collect_deadline_s = {deadline_s:g} s; are generators alive?"
            )
