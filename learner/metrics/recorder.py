"""What becomes of a step's metrics: one record, seen by the alarms, kept in metrics.jsonl, shown everywhere else."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chorus.learner.metrics import curriculum, samples
from chorus.learner.metrics.alarms import NAMES, Alarms
from chorus.learner.metrics.answers import DEADLINE_S, AnswerMetrics
from chorus.learner.metrics.doctor.visit import Doctor
from chorus.learner.metrics.step_record import Surroundings, step_record
from chorus.learner.metrics.summary import FleetClock
from chorus.learner.metrics.trackers import Trackers
from chorus.learner.rollouts.admission import Admission
from chorus.learner.training.experience import Experience
from chorus.learner.training.memory import peak_memory
from chorus.learner.training.supervised import SupervisedStats
from chorus.learner.training.token_stats import StepStats
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Rollout
from chorus.protocol.messages import Member, RolloutGroup, staleness
from chorus.protocol.metrics.processes import LearnerMetrics
from chorus.protocol.metrics.step import fill
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.templates.decoding import CompletionDecoder

log = logging.getLogger("chorus.learner")
_SHOWN = ("loss", "reward", "accuracy", "format", "entropy", "staleness_mean", "seconds", "learner_wait_ratio")


@dataclass(frozen=True)
class Around:
    """What the loop knows of a step beside its tokens.

    started: monotonic seconds. waited_s: of the step, for its groups. waiting: finished groups that the next step can
    take. filtered: groups that dynamic sampling replaced, by why. members: the generators' newest heartbeats. methods:
    what methods beside the objective have done, as the record says it.
    """

    started: float
    waited_s: float
    waiting: int
    filtered: Counter[str]
    members: list[Member]
    methods: Mapping[str, Any] = field(default_factory=dict)


class Recorder:
    """Feed it every step in order. `alarms.active` are those that hold after the newest one."""

    def __init__(
        self, config: RunConfig, run: RunFolder, admission: Admission, metrics: LearnerMetrics, trackers: Trackers
    ) -> None:
        self.config = config
        self.run = run
        self.forget_alarms()
        self._doctor = Doctor(config, admission.tokenizer, admission.templates)
        self._admission = admission
        self._metrics = metrics
        self._trackers = trackers
        self._fleet = FleetClock()
        self._labels = curriculum.labels(admission)
        self._recorded_at = 0.0
        self._decoder = CompletionDecoder(admission.tokenizer.backend_tokenizer, admission.templates.values())
        self._answers = AnswerMetrics(admission.templates, self._decoder.decode_batch)

    def restore(self, since: int) -> None:
        """Take up the records of earlier learners; alarms look at those after step `since`, the last way back."""
        for record in self.run.records():
            self._admission.stages.take(record)
            if record["step"] > since:
                self.alarms.look(record)

    def forget_alarms(self) -> None:
        """The policy is another one from here on."""
        self.alarms = Alarms(self.config.alarms, self.config.objective.loss, self.config.pays_format)

    def begin(self, groups: list[Rollout]) -> None:
        """A step is about to train on these: what they tell by themselves is measured meanwhile."""
        self._answers.begin(groups)

    def record(
        self, step: int, groups: list[Rollout], experience: Experience, stats: StepStats, around: Around
    ) -> dict[str, Any]:
        """Before the checkpoint, so that a step which a checkpoint holds has its line. Returns the record."""
        with self._metrics.waits.on("answers", "this process", DEADLINE_S, f"step {step}"):
            answers = self._answers.take(groups)
        seen = (experience, stats, self._surroundings(around), self._labels, answers.repetitions)
        values = step_record(step, self.config, groups, *seen)
        values |= curriculum.step_metrics(groups, self._admission)
        values |= answers.values
        values |= around.methods
        if self.config.templates.adaptive:
            values["template_weights"] = self._admission.draw.weights(step + 1)
        record = fill("step", values)
        record["alarms"] = self.alarms.look(record)
        record["findings"] = self._doctor.look(step, [r.group for r in groups], around.filtered, record)
        for text in (*record["alarms"], *record["findings"]):
            log.warning("%s", text)
        self._admission.stages.take(record)
        self._keep(record, [(r.group, staleness(r.group, experience.version)) for r in groups])
        every = self.config.trackers.samples_every
        if every and (step == 1 or step % every == 0):
            self._trackers.write({"step": step, "shown": samples.shown(experience, self._decoder.decode_batch)})
        return record

    def record_lesson(self, step: int, stats: SupervisedStats, started: float, passes: float) -> None:
        """A step of fine-tuning: an update without rollouts, so nothing that is measured on those is known of it."""
        now = time.monotonic()
        seconds = now - (self._recorded_at or started)
        self._recorded_at = now
        values = {
            "step": step,
            "steps": self.config.run.steps,
            "time": time.time(),
            "version": step,
            "loss": stats.loss,
            "lr": stats.lr,
            "grad_norm": stats.grad_norm,
            "updates": 1,
            "updates_skipped": int(stats.skipped),
            "passes": passes,
            "seconds": seconds,
            "wait_seconds": 0.0,
            "learner_wait_ratio": 0.0,
            "tokens_per_second": stats.tokens / seconds,
            "memory_peak": (memory := peak_memory())[0],
            "memory_limit": memory[1],
            **stats.figures(),
        }
        record = fill("step", values)
        record["alarms"] = self.alarms.look(record)
        for text in record["alarms"]:
            log.warning("%s", text)
        self._keep(record, [])

    def _keep(self, record: dict[str, Any], groups: list[tuple[RolloutGroup, int]]) -> None:
        """Write a step's record down and show it everywhere; groups: with their staleness."""
        self.run.append_record(record)
        log.info("step %d of %d: %s", record["step"], self.config.run.steps, _in_words(record))
        self._metrics.step_done(record, groups)
        self._metrics.alarms(NAMES, self.alarms.active)
        self._trackers.write(record)

    def _surroundings(self, around: Around) -> Surroundings:
        now = time.monotonic()
        seconds = now - (self._recorded_at or around.started)  # a checkpoint counts with the step after it
        self._recorded_at = now
        generated = self._fleet.tokens.total()
        waiting = self._fleet.wait_ratio(around.members)
        return Surroundings(
            wait_s=around.waited_s,
            seconds=seconds,
            generator_wait_ratio=waiting,
            generator_tokens=max(0, self._fleet.tokens.total() - generated),
            waiting=around.waiting,
            filtered=around.filtered,
            memory=peak_memory(),
        )

    def leave_out(self, seconds: float) -> None:
        """Time that belongs to no step."""
        self._recorded_at += seconds

    def evaluated(self, step: int, name: str, result: dict[str, Any]) -> None:
        log.info("evaluation %s: %s", name, json.dumps(result))
        self._metrics.evaluated(name, result)
        self._trackers.write({"step": step, "evaluation": {name: result}})

    def generated_tokens(self, members: list[Member]) -> int:
        """By all generators that this start has seen."""
        self._fleet.wait_ratio(members)
        return self._fleet.tokens.total()

    def close(self) -> None:
        self._answers.close()
        self._trackers.close()


def _in_words(record: dict[str, Any]) -> str:
    """For those who see nothing but this process's log."""
    return ", ".join(f"{name} {record[name]:.3g}" for name in _SHOWN if isinstance(record.get(name), int | float))
