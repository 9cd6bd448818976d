"""Evaluations through the run's own generators, on a queue outside the training accounts: held out, and for validation.

    due at a step ─▶ checkpoint ─▶ asked under one template ─▶ a line of validation.jsonl ─▶ selected.json
                                       │                     └▶ evaluated/: the answers, as rows like those of rollouts
                                       └▶ in turns with training, or beside it ─▶ decides, `decides_after` steps later

The selected checkpoint is the one with the highest sampled accuracy on the validation problems, the earlier one of
two equals. Held-out problems and test suites never enter: they are for saying how good the selected one is. It
stays when older checkpoints are pruned. All of it is on disk, so a resumed run selects what an unbroken one would.

A validation decides (stages, resets of the reference) from the end of the step that its line names, whenever its
answers came: so a resumed run decides what an unbroken one would. A checkpoint names the one that was under way.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from chorus.learner.rollouts.admission import Admission
from chorus.learner.rollouts.questions import Progress, Questions
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Entry, LearnerLedger, Rollout
from chorus.protocol.messages import RolloutGroup
from chorus.protocol.metrics.processes import LearnerMetrics
from chorus.protocol.run_folder.files import append_line, keep_lines, read_json, read_lines, write_json
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.rollout_rows import Reading, rows_of
from chorus.protocol.run_folder.rollouts import save_table, table_of

log = logging.getLogger("chorus.learner")


class Evaluations:
    """What a run asks beside its training, and what it has answered so far.

    under_way: a validation that is asked and not answered. missed: (step, version) of one that an earlier learner had
    under way, and whose weights nobody has any more.
    """

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
        self.under_way: Questions | None = None
        self.missed: tuple[int, int] | None = None

    def rewind(self, step: int) -> None:
        """Forget the validations of steps that a crash undid."""
        if keep_lines(self.run.validations, lambda record: record["step"] <= step):
            self._select()
        else:
            self.run.selected.unlink(missing_ok=True)

    def restore(self, step: int, kept: Mapping[str, int]) -> None:
        """The curriculum's stages hear of the validations that had decided before `step`; `kept` as the checkpoint of
        this step has it."""
        for past in self.decided(step):
            self._decide(past)
        if kept and not self.known(kept["step"]):
            self.missed = kept["step"], kept["version"]

    def kept(self) -> dict[str, int]:
        """What `restore` takes of the one that is under way."""
        asked = self.under_way
        return {"step": asked.step, "version": asked.version} if asked else {}

    def open_step(self) -> int | None:
        """The step whose weights may be needed once more: their checkpoint stays."""
        return self.under_way.step if self.under_way else self.missed[0] if self.missed else None

    @property
    def _deadline_s(self) -> float:
        return self.config.learner.collect_deadline_s

    def validations(self) -> list[dict[str, Any]]:
        """So far, in order."""
        return read_lines(self.run.validations)

    def decided(self, step: int) -> list[dict[str, Any]]:
        """Those that decide before `step`."""
        return [validation for validation in self.validations() if decides_at(validation) < step]

    def asked(self, name: str) -> bool:
        """Whether the held-out problems are still to be asked, `before` or `after`."""
        return bool(self.config.evaluation.problems) and not self.run.evaluation(name).exists()

    def evaluate(self, step: int, version: int, name: str, progress: Progress) -> dict[str, Any]:
        """On the held-out problems, at the weights after `step`, which are of this version."""
        asked = Questions(self.admission, self.ledger, step, version, self.admission.evaluation_tasks)
        with self._metrics.waits.on("evaluation", "generators", self._deadline_s, name):
            asked.wait(progress)
        result = asked.result().as_dict()
        self.keep(name, step, version, asked.groups)
        write_json(self.run.evaluation(name), result)
        return result

    def due(self, step: int) -> bool:
        """Every `evaluation.every` steps, and after the last one."""
        every = self.config.evaluation.every
        return bool(every) and step > 0 and (step % every == 0 or step == self.config.run.steps)

    def known(self, step: int) -> bool:
        return any(r["step"] == step for r in self.validations())

    def ask(self, step: int, version: int, exact: bool) -> None:
        """The validation problems, at the weights after `step`. exact: while training goes on."""
        admission = self.admission
        self.under_way = Questions(admission, self.ledger, step, version, admission.validation_tasks, exact)

    def over(self, step: int) -> bool:
        """Whether what is under way has to be heard before the step after `step`."""
        asked = self.under_way
        return asked is not None and (step == self.config.run.steps or self._decides_at(asked.step) <= step)

    def hear(self, progress: Progress | None) -> dict[str, Any] | None:
        """What was asked, once it is answered; may select another checkpoint. progress: called while it is waited for;
        None: what is not here yet is not waited for, and None returned."""
        asked = self.under_way
        assert asked
        if progress is None:
            if not asked.look():
                return None
        else:
            with self._metrics.waits.on("validation", "generators", self._deadline_s, f"step {asked.step}"):
                asked.wait(progress)
        result = asked.result().as_dict() | {"decides_at": self._decides_at(asked.step)}
        self.under_way = self.missed = None
        self.keep(f"step-{asked.step:06d}", asked.step, asked.version, asked.groups)
        best = self.record(result)
        log.info("validation at step %d: accuracy %.3f; selected: step %d", asked.step, result["accuracy"], best)
        return result

    def decide(self, step: int) -> None:
        """At the end of `step`: the curriculum's stages hear of the validation that decides from now on."""
        for known in self.validations():
            if decides_at(known) == step:
                self._decide(known)

    def _decides_at(self, step: int) -> int:
        return step + self.config.evaluation.decides_after

    def _decide(self, validation: Mapping[str, Any]) -> None:
        self.admission.stages.take_validation(validation["step"], validation["accuracy"])

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

    def keep(self, name: str, step: int, version: int, groups: Sequence[RolloutGroup]) -> None:
        """The answers, for whoever reads the run. They have no entry of the training's stream."""
        answered = [Rollout(Entry("", group.task.index, b""), group) for group in groups]
        save_table(self.run.evaluated(name), table_of(rows_of(step, answered, self._reading, time.time(), version)))


def decides_at(validation: Mapping[str, Any]) -> int:
    """The step from whose end on it decides: as its line says, or at once, as all did before lines said so."""
    return validation.get("decides_at", validation["step"])
