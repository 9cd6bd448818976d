"""All that a learner works with, and how it takes over a run.

join ledger (new fence) ─▶ rewind to the checkpoint ─▶ restore what earlier learners left
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import redis

from chorus.learner.metrics.recorder import Recorder
from chorus.learner.metrics.rollout_writer import RolloutWriter, reading_of
from chorus.learner.metrics.trackers import Trackers
from chorus.learner.rollouts.admission import Admission
from chorus.learner.rollouts.collector import Collector
from chorus.learner.rollouts.lessons import Lessons
from chorus.learner.rollouts.relift import Relift
from chorus.learner.training.batch import TrainingSequence
from chorus.learner.training.control import Control
from chorus.learner.training.distributed import Snapshot
from chorus.learner.training.supervised import SupervisedStats
from chorus.learner.training.token_stats import StepStats
from chorus.learner.validation import Evaluations
from chorus.protocol.config.run import RunConfig
from chorus.protocol.config.settings import StepSettings
from chorus.protocol.ledger import Accounts, LearnerLedger, Rollout
from chorus.protocol.messages import Member, Version
from chorus.protocol.metrics.ledger import LedgerCollector
from chorus.protocol.metrics.processes import LearnerMetrics
from chorus.protocol.run_folder import checkpoints
from chorus.protocol.run_folder.checkpoints import Manifest
from chorus.protocol.run_folder.demonstrations import Demonstration
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.identity import read_identity
from chorus.protocol.run_folder.problem_set import note_problems
from chorus.protocol.run_folder.rollouts import tidy
from chorus.protocol.runtime.redis import glance
from chorus.protocol.runtime.stopping import Stop

log = logging.getLogger("chorus.learner")


class Saving(Protocol):
    """A checkpoint on its way to the disk (training/checkpoint.py)."""

    @property
    def done(self) -> bool: ...
    def wait(self) -> Path: ...


class Ranks(Protocol):
    """The model and its optimizer, on however many ranks (training/distributed.py).

    manifest: of the checkpoint that they started from; None: from the model's own weights.
    """

    manifest: Manifest | None

    def reference(self, sequences: list[TrainingSequence]) -> list[np.ndarray]: ...
    def reset_reference(self, reset_optimizer: bool) -> None: ...
    def step(self, minibatches: list[list[TrainingSequence]], settings: StepSettings | None = None) -> StepStats: ...
    def supervise(self, batch: Sequence[Demonstration]) -> SupervisedStats: ...
    def snapshot(self, version: Version, prefixes: list[list[int]]) -> Snapshot: ...
    def save(self, folder: Path, manifest: Manifest) -> Saving: ...
    def load(self, path: Path) -> None: ...


class Ledger(Protocol):
    """The learner's side of the ledger (protocol/ledger/learner.py), as far as a step and a checkpoint change it."""

    fence: int

    def record(self, step: int, ids: Sequence[str]) -> None: ...
    def trained(self, step: int, ids: Sequence[str]) -> int: ...
    def durable(self, step: int, ids: Sequence[str]) -> int: ...
    def trim(self) -> None: ...
    def advance(self) -> int: ...
    def accounts(self) -> Accounts: ...


class Groups(Protocol):
    """Where a step's groups come from, and where the freed credits go (rollouts/collector.py)."""

    @property
    def next_index(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    def undo(self, fence: int) -> None: ...
    def next_step(
        self, step: int, steps_left: int, check: Callable[[], None], version: int | None = None
    ) -> list[Rollout]: ...
    def reading(self) -> AbstractContextManager[None]: ...
    def trained(self, groups: list[Rollout]) -> None: ...
    def admit(self, step: int, steps_left: int, version: int | None = None) -> None: ...
    def take_filtered(self) -> Counter[str]: ...


class WeightSync(Protocol):
    """How generators get new weights (weight_sync.py)."""

    def publish(self, snapshot: Snapshot) -> None: ...
    def wait_synced(self, at_least: int, deadline_s: float, check: Callable[[], None]) -> int: ...
    def check(self) -> None: ...
    def hold(self, most: int) -> int: ...
    def hold_is_lost(self) -> bool: ...
    def hold_again(self, fence: int) -> None: ...
    def release(self) -> None: ...
    def members(self) -> list[Member]: ...
    def close(self) -> None: ...


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
    run.note_config(done, config.model_dump(mode="json", exclude={"redis"}))  # its URL may hold a password
    tidy(run, done)
    evaluations.rewind(done)

    admission.draw.restore(run, done)
    admission.open(run)
    recorder.restore(since=max(checkpoints.rollbacks(run.checkpoints), default=0))
    evaluations.restore(done, manifest.methods.get("validation", {}) if manifest else {})
    groups = Collector(config, ledger, admission, metrics)
    groups.undo(checkpoints.undone_before(run.checkpoints, lineage))
    taught = manifest.methods.get("relift", {}) if manifest else {}
    groups.restore(done, done + taught.get("updates", 0))
    relift.restore(taught, done, groups.coming_again(done))
    weights = weight_sync(metrics)
    durable = checkpoints.trained_in(run.checkpoints, lineage)
    control = Control(config, evaluations.decided)
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
