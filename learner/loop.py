"""The learner's life, from start to summary. Rank 0 only; the other ranks follow its calls.

    join ledger (new fence) ─▶ sync everybody ─▶ evaluate ─▶ { collect ─▶ record ─▶ train ─▶ free credits,
    admit ─▶ publish weights ─▶ (checkpoint ─▶ acknowledge) } x steps ─▶ evaluate ─▶ summary

After a crash the same walk begins at the newest checkpoint: what it holds is acknowledged, what came after
it is undone and trained again from the recorded entries, in the recorded order.
"""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import redis

from chorus.learner import validation
from chorus.learner.metrics import alarms, curriculum, diversity
from chorus.learner.metrics import summary as figures
from chorus.learner.metrics.step_record import Surroundings, step_record
from chorus.learner.metrics.trackers import Trackers
from chorus.learner.rollouts.admission import Admission
from chorus.learner.rollouts.collector import Collector
from chorus.learner.training import checkpoint
from chorus.learner.training.distributed import Crew
from chorus.learner.training.experience import Prepared, minibatches, prepare
from chorus.learner.training.token_stats import StepFigures
from chorus.learner.validation import evaluate
from chorus.learner.weight_sync import Broadcaster
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import LearnerLedger, Rollout
from chorus.protocol.messages import CANARY_POINTS, Version, staleness, unpack_ids
from chorus.protocol.metrics.ledger import LedgerCollector
from chorus.protocol.metrics.processes import LearnerMetrics
from chorus.protocol.run_folder import folder
from chorus.protocol.run_folder.rollouts import write_step
from chorus.protocol.runtime import logs
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.redis import glance

log = logging.getLogger("chorus.learner")


class Learner:
    """One learner start. `run` returns when all steps are trained and the summary is written."""

    def __init__(self, config: RunConfig, run_dir: Path, run_id: str, client: redis.Redis, crew: Crew) -> None:
        self.config = config
        self.run_dir = run_dir
        self.run_id = run_id
        self.client = client
        self.crew = crew
        self.metrics = LearnerMetrics(config.learner.metrics_port)
        self.admission = Admission(config, run_id)
        self.ledger = LearnerLedger(client, run_id)
        self.evaluation_ledger = LearnerLedger(client, run_id, "eval", self.ledger.fence)
        self.done = crew.manifest.step if crew.manifest else 0
        self.trackers = Trackers(config, run_dir, run_id, self.done + 1)
        self._introduce()
        self._untold: dict[int, list[str]] = {}  # trained since the last checkpoint
        self._fleet = figures.FleetClock()
        self._recorded_at = 0.0
        self._labels = curriculum.labels(self.admission)
        self._rewind()
        self.admission.draw.restore(run_dir, self.done)
        self.admission.open(run_dir)
        self.alarms = alarms.Alarms(config.alarms, config.objective.loss)
        since = max(checkpoint.rollbacks(self._checkpoints), default=0)
        for record in figures.read_records(run_dir):
            self.admission.stages.take(record)
            if record["step"] > since:
                self.alarms.look(record)
        for past in validation.read(run_dir):
            self.admission.stages.take_validation(past["step"], past["accuracy"])
        self.collector = Collector(config, self.ledger, self.admission, self.metrics)
        self.collector.restore(self.done)
        backend = "nccl" if crew.device.type == "cuda" and not config.shares_a_gpu else "gloo"
        self.broadcaster = Broadcaster(config, client, run_id, backend, crew.device, self.metrics)

    def _introduce(self) -> None:
        """What holds for the whole of this start."""
        m = self.metrics
        m.run.labels(self.run_id, self.config.run.name).set(1)
        m.fence.set(self.ledger.fence)
        m.step.set(self.done)
        m.durable_step.set(self.done)
        m.steps_planned.set(self.config.run.steps)
        if self.config.learner.metrics_port:
            m.registry.register(LedgerCollector(glance(self.config.redis.url), self.run_id))

    def _rewind(self) -> None:
        """Make ledger and files agree with the checkpoint that this start continues from."""
        if self.crew.manifest is not None:
            self.ledger.durable(self.done, self.crew.manifest.all_entries)
        self.ledger.rewind(self.done)
        folder.rewind_records(self.run_dir, self.done)
        validation.rewind(self.run_dir, self.done)

    def run(self) -> None:
        try:
            self._publish(self._first_prefixes())
            self._say("waiting", "for a generator with fresh weights")
            deadline_s = self.config.generator.start_deadline_s + self.config.learner.sync_deadline_s
            if self.broadcaster.wait_synced(1, deadline_s) == 0:
                raise CannotGoOn(
                    f"no generator had passed the weight check after {deadline_s:g} s; see the generators' logs"
                )
            self._evaluate("before")
            self._validate()  # a crash may have come between the checkpoint and its validation
            while self.done < self.config.run.steps:
                self._step()
            self.broadcaster.wait_synced(1, self.config.learner.sync_deadline_s)
            self._evaluate("after")
            self._summarize()
        finally:
            self.broadcaster.close()
            self.trackers.close()

    def _step(self) -> None:
        started = time.monotonic()
        step = self.done + 1
        self._say("training", f"step {step} of {self.config.run.steps}")
        self.metrics.wait_share.begin()
        with self.metrics.waits.on("rollouts", "generators", self.config.learner.collect_deadline_s, f"step {step}"):
            groups = self.collector.next_step(self.done, self.config.run.steps - self.done, self.broadcaster.check)
        wait_s = time.monotonic() - started
        self.metrics.wait_share.worked()
        ids = [r.entry.id for r in groups]
        write_step(self.run_dir, step, groups)
        self.ledger.record(step, ids)

        prepared = prepare(groups, self.config, step - 1, self.crew.reference)
        parts = minibatches(prepared, self.config.sampling.group_size, self.config.learner.updates_per_step)
        result = self.crew.step(parts)

        self.ledger.trained(step, ids)
        self.done = step
        self._untold[step] = ids
        for r in groups:
            self.collector.window.forget(r.group.task.index)
        self.admission.draw.observe(groups)
        self.collector.admit(step, self.config.run.steps - step)
        self._publish(_prefixes(groups))
        self._record(step, groups, prepared, result, started, wait_s)
        if begun := self.admission.stages.advance(step, self.collector.next_index):
            log.info("stage %s begins after step %d: %s", begun.name, step, begun.why)
        last = step == self.config.run.steps
        if self.alarms.active and self.config.alarms.on_collapse != "warn":
            self._collapsed("; ".join(self.alarms.active.values()))
            return
        if last or step % self.config.learner.checkpoint_every == 0 or validation.due(self.config, step):
            self._checkpoint()
        self._validate()

    def _collapsed(self, why: str) -> None:
        """Back to the oldest checkpoint kept and on from there with the problems that come next, or the end.

        What was trained stays trained in the books: the way back undoes weights, and no group comes again.
        """
        answer, asked = self.config.alarms.on_collapse, self.config.alarms.max_rollbacks
        back = checkpoint.oldest(self._checkpoints) if answer == "rollback" else None
        gone_back = len(checkpoint.rollbacks(self._checkpoints))
        if back is None or gone_back >= asked:
            self._checkpoint()
            missing = f"it went back {gone_back} times before" if back else "there is no checkpoint to go back to"
            raise CannotGoOn(
                f"alarms.on_collapse = {answer} ended the run after step {self.done}"
                f"{f' ({missing})' if answer == 'rollback' else ''}: {why}. "
                "Its checkpoint is written; to go on anyway: --resume with --set alarms.on_collapse=warn"
            )
        target = checkpoint.read_manifest(back).step
        log.warning("step %d: back to the weights and the optimizer of step %d: %s", self.done, target, why)
        self.crew.load(back)
        self.evaluation_ledger.fence = self.ledger.advance()
        self.metrics.fence.set(self.ledger.fence)
        self._checkpoint(rolled_back_to=target)
        self.alarms = alarms.Alarms(self.config.alarms, self.config.objective.loss)
        self._publish(self._first_prefixes())

    def _record(
        self, step: int, groups: list[Rollout], prepared: Prepared, result: StepFigures, started: float, wait_s: float
    ) -> None:
        """Before the checkpoint, so that a step which a checkpoint holds has its line."""
        now = time.monotonic()
        seconds = now - (self._recorded_at or started)  # a checkpoint counts with the step after it
        self._recorded_at = now
        members = [link.member for link in list(self.broadcaster.links.values())]
        generated = self._fleet.tokens.total()
        waiting = self._fleet.wait_ratio(members)
        around = Surroundings(
            wait_s=wait_s,
            seconds=seconds,
            generator_wait_ratio=waiting,
            generator_tokens=max(0, self._fleet.tokens.total() - generated),
            waiting=len(self.collector.window.ready),
            filtered=self.collector.take_filtered(),
        )
        record = step_record(step, self.config, groups, prepared, result, around, self._labels)
        record |= curriculum.step_figures(groups, self.admission)
        decode = self.admission.tokenizer.batch_decode
        record |= diversity.step_figures(
            groups, self.admission.templates, lambda ids: decode(ids, skip_special_tokens=True)
        )
        if self.config.templates.adaptive:
            record["template_weights"] = self.admission.draw.weights(step + 1)
        record["alarms"] = self.alarms.look(record)
        for text in record["alarms"]:
            log.warning("%s", text)
        self.admission.stages.take(record)
        folder.append_record(self.run_dir, record)
        log.info("step %d of %d: %s", step, self.config.run.steps, _in_words(record))
        self.metrics.step_done(record, [(r.group, staleness(r.group, step - 1)) for r in groups])
        self.metrics.alarms(alarms.NAMES, self.alarms.active)
        self.trackers.write(record)

    def _publish(self, prefixes: list[list[int]]) -> None:
        version = Version(fence=self.ledger.fence, step=self.done)
        logs.tell(version=str(version))
        self.broadcaster.publish(self.crew.snapshot(version, prefixes))

    def _first_prefixes(self) -> list[list[int]]:
        return [self.admission.at(k)[1].ids for k in range(CANARY_POINTS)]

    @property
    def _checkpoints(self) -> Path:
        return self.run_dir / "checkpoints"

    def _checkpoint(self, rolled_back_to: int | None = None) -> None:
        manifest = checkpoint.Manifest(self.done, self.ledger.fence, self._untold, rolled_back_to)
        with self.metrics.checkpoint_s.time():
            self.crew.save(self._checkpoints, manifest)
        self.metrics.durable_step.set(self.done)
        self.ledger.durable(self.done, [id for ids in self._untold.values() for id in ids])
        self._untold = {}
        self.ledger.trim()
        self._prune()

    def _prune(self) -> None:
        selected = validation.selected_step(self.run_dir)
        checkpoint.prune(self._checkpoints, self.config.learner.keep_checkpoints, selected)

    def _evaluate(self, name: str) -> None:
        path = self.run_dir / f"evaluation-{name}.json"
        if not self.config.evaluation.problems or path.exists() or (name == "before" and self.done):
            return
        with self.metrics.waits.on("evaluation", "generators", self.config.learner.collect_deadline_s, name):
            result = evaluate(
                self.admission,
                self.evaluation_ledger,
                self.done,
                self.admission.evaluation_tasks,
                lambda detail: self._say(f"evaluating {name}", detail),
            )
        folder.write_json(path, result.as_dict())
        self.metrics.evaluated(name, result.as_dict())
        self.trackers.write({"step": self.done, "evaluation": {name: result.as_dict()}})
        log.info("evaluation %s: %s", name, json.dumps(result.as_dict()))

    def _validate(self) -> None:
        """Where it is due and not done yet. Nothing is published meanwhile: all answers are of this step's weights."""
        if not validation.due(self.config, self.done) or validation.known(self.run_dir, self.done):
            return
        started = time.monotonic()
        deadline_s = self.config.learner.collect_deadline_s
        with self.metrics.waits.on("validation", "generators", deadline_s, f"step {self.done}"):
            result = evaluate(
                self.admission,
                self.evaluation_ledger,
                self.done,
                self.admission.validation_tasks,
                lambda detail: self._say(f"validating step {self.done}", detail),
            )
        best = validation.record(self.run_dir, self.config, result)
        self._prune()  # of the one that was selected until now
        self.admission.stages.take_validation(self.done, result.accuracy)
        log.info("validation at step %d: accuracy %.3f; selected: step %d", self.done, result.accuracy, best)
        self.metrics.evaluated("validation", result.as_dict())
        self.trackers.write({"step": self.done, "evaluation": {"validation": result.as_dict()}})
        self._recorded_at += time.monotonic() - started  # it belongs to no step

    def _summarize(self) -> None:
        members = [link.member for link in self.broadcaster.links.values()]
        self._fleet.wait_ratio(members)
        summary = figures.summarize(
            self.run_dir,
            self.config,
            self.client,
            self.run_id,
            self.ledger.books(),
            self._fleet.tokens.total(),
        )
        summary["diversity"] = diversity.summary_figures(figures.read_records(self.run_dir))
        summary["validation"] = validation.summary(self.run_dir)
        folder.write_json(self.run_dir / "summary.json", summary)
        self._say("done", "")

    def _say(self, phase: str, detail: str) -> None:
        folder.write_json(self.run_dir / "status.json", {"phase": phase, "detail": detail})


def _in_words(record: dict[str, object]) -> str:
    """For those who see nothing but this process's log."""
    shown = ("reward", "accuracy", "format", "entropy", "staleness_mean", "seconds", "learner_wait_ratio")
    return ", ".join(f"{name} {record[name]:.3g}" for name in shown if isinstance(record.get(name), int | float))


def _prefixes(groups: list[Rollout]) -> list[list[int]]:
    """Canary prompts from the step's own rollouts: evenly chosen groups, half of a completion each."""
    chosen = groups[:: max(1, len(groups) // CANARY_POINTS)][:CANARY_POINTS]
    prefixes = []
    for ready in chosen:
        completion = unpack_ids(ready.group.samples[0].token_ids)
        prefixes.append(
            [*unpack_ids(ready.group.task.prompt_ids).tolist(), *completion[: len(completion) // 2].tolist()]
        )
    return prefixes
