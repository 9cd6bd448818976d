"""A learner's start, its checkpoints, its way back and its end.

    assemble: join ledger (new fence) ─▶ rewind to the checkpoint ─▶ restore what earlier learners left
    begin:    first weights to everybody ─▶ evaluate
    ...       steps (loop.py) with checkpoints, validations, and the way back where a policy collapsed
    end:      last weights taken ─▶ evaluate ─▶ summary

After a crash the same walk begins at the newest checkpoint: what it holds is acknowledged, what came after it is undone
and trained again from the recorded entries, in the recorded order.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial

import redis

from chorus.learner.interfaces import Groups, Ledger, Ranks, Saving, WeightSync
from chorus.learner.metrics.alarms import FLAT
from chorus.learner.metrics.recorder import Recorder
from chorus.learner.metrics.rollout_writer import RolloutWriter, reading_of
from chorus.learner.metrics.summary import good_syncs, summarize
from chorus.learner.metrics.trackers import Trackers
from chorus.learner.rollouts.admission import Admission
from chorus.learner.rollouts.collector import Collector
from chorus.learner.rollouts.lessons import Lessons
from chorus.learner.rollouts.relift import Relift
from chorus.learner.training.checkpoint import WRITE_DEADLINE_S
from chorus.learner.training.control import Control
from chorus.learner.training.export import to_dtype
from chorus.learner.validation import Evaluations
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import LearnerLedger
from chorus.protocol.messages import WEIGHT_CHECKS, Version
from chorus.protocol.metrics.ledger import LedgerCollector
from chorus.protocol.metrics.processes import LearnerMetrics
from chorus.protocol.run_folder import checkpoints
from chorus.protocol.run_folder.checkpoints import Manifest
from chorus.protocol.run_folder.files import write_json
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.identity import read_identity
from chorus.protocol.run_folder.problem_set import fingerprint, note_problems
from chorus.protocol.run_folder.rollouts import tidy
from chorus.protocol.runtime import logs
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.redis import glance
from chorus.protocol.runtime.stopping import Stop

log = logging.getLogger("chorus.learner")


@dataclass
class Parts:
    """All that a learner works with, and where it stands.

    lineage: of the ledger (protocol/run_folder/identity.py). done: steps trained. durable: groups that the lineage's
    checkpoints hold. untold: entries trained since the last checkpoint, by step. stop: asked for by a signal.
    """

    config: RunConfig
    run: RunFolder
    run_id: str
    client: redis.Redis
    metrics: LearnerMetrics
    admission: Admission
    groups: Groups
    ranks: Ranks
    ledger: Ledger
    weights: WeightSync
    recorder: Recorder
    evaluations: Evaluations
    control: Control
    relift: Relift
    store: RolloutWriter
    lessons: Lessons | None = None
    lineage: int = 1
    done: int = 0
    durable: int = 0
    untold: dict[int, list[str]] = field(default_factory=dict)
    stop: Stop = field(default_factory=Stop)

    @property
    def version(self) -> int:
        """Of the weights as they are: how often they were trained."""
        return self.done + self.relift.updates


def assemble(
    config: RunConfig,
    run: RunFolder,
    run_id: str,
    client: redis.Redis,
    ranks: Ranks,
    weight_sync: Callable[[LearnerMetrics], WeightSync],
) -> Parts:
    """Take over the run: from now on this learner alone may change its ledger. Ledger and files agree with the
    checkpoint that `ranks` started from, and what earlier learners left is taken up.

    Raises CannotGoOn for what this configuration can't go on with; nothing is dropped or trained by then, and the one
    that the run had goes on.
    """
    metrics = LearnerMetrics(config.learner.metrics_port)
    admission = Admission(config, run_id)
    relift = Relift(config, admission, run)
    lessons = Lessons(config, admission, run) if config.finetune.data else None
    ledger = LearnerLedger(client, run_id)
    manifest = ranks.manifest
    done = manifest.step if manifest else 0
    identity = read_identity(run.path)
    lineage = identity.lineage if identity else 1
    trackers = Trackers(config, run, run_id, done + 1)
    asked, reading = LearnerLedger(client, run_id, "eval", ledger.fence), reading_of(config, admission)
    evaluations = Evaluations(config, run, admission, asked, metrics, reading)
    recorder = Recorder(config, run, admission, metrics, trackers)
    _introduce(metrics, config, run_id, ledger.fence, done)

    if changed := note_problems(run, admission.digests, done, manifest.problems if manifest else ""):
        log.warning("%s", changed)
    if manifest is not None and manifest.lineage == lineage:
        ledger.durable(done, manifest.all_entries)
    ledger.rewind(done)
    run.rewind_records(done)
    tidy(run, done)
    evaluations.rewind(done)

    admission.draw.restore(run, done)
    admission.open(run)
    recorder.restore(since=max(checkpoints.rollbacks(run.checkpoints), default=0))
    evaluations.restore()
    groups = Collector(config, ledger, admission, metrics)
    groups.restore(done)
    relift.restore(manifest.methods.get("relift", {}) if manifest else {}, done, groups.coming_again(done))
    weights = weight_sync(metrics)
    durable = checkpoints.trained_in(run.checkpoints, lineage)
    control = Control(config, evaluations.validations)
    control.restore(manifest.methods.get("control", {}) if manifest else {})
    parts = (config, run, run_id, client, metrics, admission, groups, ranks, ledger, weights, recorder, evaluations)
    store = RolloutWriter(run, reading, config.reward_spec)
    return Parts(*parts, control, relift, store, lessons, lineage, done, durable)


def _introduce(metrics: LearnerMetrics, config: RunConfig, run_id: str, fence: int, done: int) -> None:
    """What holds for the whole of this start."""
    metrics.run.labels(run_id, config.run.name).set(1)
    metrics.fence.set(fence)
    metrics.step.set(done)
    metrics.durable_step.set(done)
    metrics.steps_planned.set(config.run.steps)
    if config.learner.metrics_port:
        metrics.registry.register(LedgerCollector(glance(config.redis.url), run_id))


@dataclass(frozen=True)
class _Begun:
    """A checkpoint that is being written since `at`."""

    saving: Saving
    manifest: Manifest
    at: float


class Lifecycle:
    """Everything a learner does beside its steps."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._saving: _Begun | None = None

    def begin(self) -> None:
        """Give everybody the weights, and evaluate. Raises CannotGoOn where no generator takes them in time."""
        p = self.parts
        self.publish(self._first_prefixes())
        self.say("waiting", "for a generator with fresh weights")
        deadline_s = p.config.generator.start_deadline_s + p.config.learner.sync_deadline_s
        if p.weights.wait_synced(1, deadline_s, p.stop.check) == 0:
            raise CannotGoOn(
                f"no generator had passed the weight check after {deadline_s:g} s; see the generators' logs"
            )
        if not p.done:
            self._evaluate("before")
        self.validate()  # a crash may have come between the checkpoint and its validation

    def end(self) -> None:
        """Evaluate the last weights and sum the run up."""
        p = self.parts
        self.settle()
        p.weights.wait_synced(1, p.config.learner.sync_deadline_s, p.stop.check)
        self._evaluate("after")
        tokens = p.recorder.generated_tokens(p.weights.members())
        told = summarize(p.run, p.config, good_syncs(p.client, p.run_id), p.ledger.accounts(), tokens)
        identity = read_identity(p.run.path)
        lineages = [asdict(begun) for begun in identity.begun] if identity else []
        write_json(p.run.summary, told | {"validation": p.evaluations.summary(), "lineages": lineages})
        self.say("done", "")

    def leave(self) -> None:
        """What a learner leaves that is asked to stop: a checkpoint, where steps were trained since the newest one."""
        p = self.parts
        if p.untold:
            self.checkpoint()
        self.settle()
        self.say("stopped", f"after step {p.done}")

    def close(self) -> None:
        self.parts.weights.close()
        self.parts.recorder.close()
        self.parts.store.close()

    def publish(self, prefixes: list[list[int]]) -> None:
        """Offer the weights as they are. `prefixes`: what the weight check asks about."""
        version = Version(fence=self.parts.ledger.fence, step=self.parts.version)
        logs.tell(version=str(version))
        self.parts.weights.publish(self.parts.ranks.snapshot(version, prefixes))

    def checkpoint(self, rolled_back_to: int | None = None) -> None:
        """Begin one, which is written while training goes on; `settle` acknowledges what it holds."""
        p = self.parts
        self.settle()
        p.durable += sum(map(len, p.untold.values()))
        manifest = Manifest(
            *(p.done, p.ledger.fence, p.untold, rolled_back_to),
            lineage=p.lineage,
            trained=p.durable,
            admitted=p.groups.next_index,
            problems=fingerprint(p.admission.digests),
            at=time.time(),
            methods={"relift": p.relift.kept(), "control": p.control.kept()},
        )
        p.untold = {}
        p.store.flush()  # what is acknowledged is gone from Redis
        self._saving = _Begun(p.ranks.save(p.run.checkpoints, manifest), manifest, time.monotonic())

    def settle(self, wait: bool = True) -> None:
        """Acknowledge what the checkpoint on its way holds, once it is on the disk: in this order, so that a crash
        between the two loses nothing. Raises what writing it has raised."""
        p, begun = self.parts, self._saving
        if begun is None or not (wait or begun.saving.done):
            return
        self._saving = None
        with p.metrics.waits.on("checkpoint", "the disk", WRITE_DEADLINE_S, f"step {begun.manifest.step}"):
            begun.saving.wait()
        p.metrics.checkpoint_s.observe(time.monotonic() - begun.at)
        step = begun.manifest.step
        p.metrics.durable_step.set(step)
        p.ledger.durable(step, begun.manifest.all_entries)
        p.ledger.trim()
        p.store.durable(step)
        self._prune()

    def collapsed(self, alarms: Mapping[str, str]) -> None:
        """Back to the oldest checkpoint kept and on from there with the problems that come next, or the end; of a run
        that was flat from its beginning, the end.

        What was trained stays trained in the accounts: the way back undoes weights, and no group comes again.
        """
        p = self.parts
        answer, asked, why = p.config.alarms.on_collapse, p.config.alarms.max_rollbacks, "; ".join(alarms.values())
        self.settle()
        better = answer == "rollback" and not set(FLAT) >= alarms.keys()
        back = checkpoints.oldest(p.run.checkpoints) if better else None
        gone_back = len(checkpoints.rollbacks(p.run.checkpoints))
        if back is None or gone_back >= asked:
            self.checkpoint()
            self.settle()
            none = "there is no checkpoint to go back to" if better else "no earlier step was any better"
            missing = f"it went back {gone_back} times before" if back else none
            raise CannotGoOn(
                f"alarms.on_collapse = {answer} ended the run after step {p.done}"
                f"{f' ({missing})' if answer == 'rollback' else ''}: {why}. "
                "Its checkpoint is written; to go on anyway: --resume with --set alarms.on_collapse=warn"
            )
        target = checkpoints.read_manifest(back).step
        log.warning("step %d: back to the weights and the optimizer of step %d: %s", p.done, target, why)
        p.ranks.load(back)
        p.control.restore(checkpoints.read_manifest(back).methods.get("control", {}), gone_back_at=p.done)
        p.evaluations.ledger.fence = p.ledger.advance()
        p.metrics.fence.set(p.ledger.fence)
        self.checkpoint(rolled_back_to=target)
        self.settle()
        p.recorder.forget_alarms()
        self.publish(self._first_prefixes())

    def validate(self) -> None:
        """Where it is due and not done yet. Nothing is published meanwhile: all answers are of this step's weights."""
        p = self.parts
        if not p.evaluations.due(p.done) or p.evaluations.known(p.done):
            return
        started = time.monotonic()
        result = p.evaluations.validate(p.done, p.version, self._progress(f"validating step {p.done}"))
        self._prune()  # of the one that was selected until now
        p.recorder.evaluated(p.done, "validation", result)
        p.recorder.leave_out(time.monotonic() - started)

    def say(self, phase: str, detail: str) -> None:
        """What a person who watches sees."""
        write_json(self.parts.run.status, {"phase": phase, "detail": detail})

    def _progress(self, phase: str) -> Callable[[str], None]:
        """Called several times a second while answers are waited for."""

        def progress(detail: str) -> None:
            self.parts.stop.check()
            self.say(phase, detail)

        return progress

    def _evaluate(self, name: str) -> None:
        p = self.parts
        if p.evaluations.asked(name):
            result = p.evaluations.evaluate(p.done, p.version, name, self._progress(f"evaluating {name}"))
            p.recorder.evaluated(p.done, name, result)

    def _first_prefixes(self) -> list[list[int]]:
        return [self.parts.admission.at(k)[1].ids for k in range(WEIGHT_CHECKS)]

    def _prune(self) -> None:
        p = self.parts
        steps = {p.evaluations.selected_step(), *checkpoints.before(p.run.checkpoints, p.recorder.alarms.began)}
        learner, dtype = p.config.learner, p.config.model.dtype
        thin = partial(to_dtype, dtype=dtype) if learner.keep_exports == "all" else None
        checkpoints.prune(p.run.checkpoints, learner.keep_checkpoints, steps, thin)
