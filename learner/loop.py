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

from learner import checkpoint, curriculum_figures, diversity, figures
from learner.admission import Admission
from learner.alarms import Alarms
from learner.broadcast import Broadcaster
from learner.collect import Collector, staleness
from learner.evaluate import evaluate
from learner.prepare import Prepared, minibatches, prepare
from learner.ranks import Crew
from learner.rollout_store import write_step
from learner.step_figures import StepFigures
from learner.step_record import Surroundings, step_record
from learner.window import Ready
from protocol.config import RunConfig
from protocol.exits import CannotGoOn
from protocol.ledger import LearnerLedger
from protocol.messages import CANARY_POINTS, Version, unpack_ids
from protocol.metrics import LearnerMetrics

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
        self._untold: dict[int, list[str]] = {}  # trained since the last checkpoint
        self._fleet = figures.FleetClock()
        self._recorded_at = 0.0
        self._labels = curriculum_figures.labels(self.admission)
        self._rewind()
        self.admission.draw.restore(run_dir, self.done)
        self.admission.open(run_dir)
        self.alarms = Alarms(config.alarms)
        for record in figures.read_records(run_dir):
            self.alarms.look(record)
            self.admission.stages.take(record)
        self.collector = Collector(config, self.ledger, self.admission, self.metrics)
        self.collector.restore(self.done)
        backend = "nccl" if crew.device.type == "cuda" and not config.shares_a_gpu else "gloo"
        self.broadcaster = Broadcaster(config, client, run_id, backend, crew.device, self.metrics)

    def _rewind(self) -> None:
        """Make ledger and files agree with the checkpoint that this start continues from."""
        if self.crew.manifest is not None:
            self.ledger.durable(self.done, self.crew.manifest.all_entries)
        self.ledger.rewind(self.done)
        figures.rewind_records(self.run_dir, self.done)

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
            while self.done < self.config.run.steps:
                self._step()
            self.broadcaster.wait_synced(1, self.config.learner.sync_deadline_s)
            self._evaluate("after")
            self._summarize()
        finally:
            self.broadcaster.close()

    def _step(self) -> None:
        started = time.monotonic()
        step = self.done + 1
        self._say("training", f"step {step} of {self.config.run.steps}")
        with self.metrics.waits.on("rollouts", "generators", self.config.learner.collect_deadline_s, f"step {step}"):
            groups = self.collector.next_step(self.done, self.config.run.steps - self.done, self.broadcaster.check)
        wait_s = time.monotonic() - started
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
        stop = self.alarms.active and self.config.alarms.on_collapse == "stop"
        if stop or step % self.config.learner.checkpoint_every == 0 or step == self.config.run.steps:
            self._checkpoint()
        if stop:
            raise CannotGoOn(
                f"alarms.on_collapse = stop ended the run after step {step}: {'; '.join(self.alarms.active.values())}. "
                "Its checkpoint is written; to go on anyway: --resume with --set alarms.on_collapse=warn"
            )

    def _record(
        self, step: int, groups: list[Ready], prepared: Prepared, result: StepFigures, started: float, wait_s: float
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
        record |= curriculum_figures.step_figures(groups, self.admission)
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
        figures.append_record(self.run_dir, record)
        self._export(record)
        for r in groups:
            self.metrics.staleness.observe(staleness(r.group, step - 1))

    def _publish(self, prefixes: list[list[int]]) -> None:
        version = Version(fence=self.ledger.fence, step=self.done)
        self.broadcaster.publish(self.crew.snapshot(version, prefixes))

    def _first_prefixes(self) -> list[list[int]]:
        return [self.admission.at(k)[1].ids for k in range(CANARY_POINTS)]

    def _checkpoint(self) -> None:
        folder = self.run_dir / "checkpoints"
        self.crew.save(folder, checkpoint.Manifest(self.done, self.ledger.fence, self._untold))
        self.ledger.durable(self.done, [id for ids in self._untold.values() for id in ids])
        self._untold = {}
        self.ledger.trim()
        checkpoint.prune(folder, self.config.learner.keep_checkpoints)

    def _evaluate(self, name: str) -> None:
        path = self.run_dir / f"evaluation-{name}.json"
        if not self.config.evaluation.problems or path.exists() or (name == "before" and self.done):
            return
        with self.metrics.waits.on("evaluation", "generators", self.config.learner.collect_deadline_s, name):
            result = evaluate(
                self.admission,
                self.evaluation_ledger,
                self.done,
                lambda detail: self._say(f"evaluating {name}", detail),
            )
        figures.write_json(path, result.as_dict())
        log.info("evaluation %s: %s", name, json.dumps(result.as_dict()))

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
        figures.write_json(self.run_dir / "summary.json", summary)
        self._say("done", "")

    def _say(self, phase: str, detail: str) -> None:
        figures.write_json(self.run_dir / "status.json", {"phase": phase, "detail": detail})

    def _export(self, record: dict[str, object]) -> None:
        m = self.metrics
        m.step.set(self.done)
        m.step_s.observe(record["seconds"])  # type: ignore[arg-type]
        m.wait_s.inc(record["wait_seconds"])  # type: ignore[arg-type]
        m.tokens.inc(record["trained_tokens"])  # type: ignore[arg-type]
        for name, value in record.items():
            if isinstance(value, int | float):
                m.figures.labels(name).set(value)


def _prefixes(groups: list[Ready]) -> list[list[int]]:
    """Canary prompts from the step's own rollouts: evenly chosen groups, half of a completion each."""
    chosen = groups[:: max(1, len(groups) // CANARY_POINTS)][:CANARY_POINTS]
    prefixes = []
    for ready in chosen:
        completion = unpack_ids(ready.group.samples[0].token_ids)
        prefixes.append(
            [*unpack_ids(ready.group.task.prompt_ids).tolist(), *completion[: len(completion) // 2].tolist()]
        )
    return prefixes
