"""How large a run is as it is planned: parameters, rollouts on Redis, disk; and whether the disk has room for it."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from chorus.deploy.learner_state import reference_bytes, state_of
from chorus.deploy.shapes import model_of
from chorus.protocol.config.run import RunConfig
from chorus.protocol.graders import MAX_ROW_BYTES
from chorus.protocol.runtime.exits import CannotGoOn

log = logging.getLogger("chorus.run")
# A sampled token on Redis: id (int32) and log-probability (float32). Grades and versions are small beside.
BYTES_PER_TOKEN = 8
# A sampled token on the disk, compressed: its text comes to these (docs/rollouts.md).
STORED_BYTES_PER_TOKEN = 10
_LOGS = 64 * 2**20


def redis_bytes(c: RunConfig) -> float:
    """What Redis holds at most. What is trained stays there until a checkpoint holds it."""
    kept = c.capacity + c.learner.checkpoint_every * c.learner.groups_per_step
    count = kept * c.largest_group * c.sampling.max_tokens * BYTES_PER_TOKEN
    count += kept * c.problems.max_prompt_tokens * 4
    if any(grader.columns for grader in c.reward.graders):
        count += (kept + c.capacity) * MAX_ROW_BYTES  # in the group, and in the task until it is committed
    return count


@dataclass(frozen=True)
class Disk:
    """Bytes. `checkpoints` are certain; the others are at most so many, if every completion is as long as it may be."""

    checkpoints: float
    exports: float
    rollouts: float
    redis: float
    whole: int  # checkpoints at a time

    @property
    def certain(self) -> float:
        return self.checkpoints + self.exports

    @property
    def most(self) -> float:
        return self.certain + self.rollouts + self.redis


def planned(config: RunConfig) -> Disk:
    c, model = config, model_of(config.model.path)
    count = model.count if model else 0.0
    # One is written before an older one goes; the selected one is kept, and one from before an alarm may be.
    kept = c.learner.keep_checkpoints + 1 + bool(c.evaluation.every)
    checkpoint = state_of(c, model).checkpoint if model else 0.0
    checkpoint += reference_bytes(c, model) if model and c.reference.resets else 0.0
    written = -(-c.run.steps // c.learner.checkpoint_every)
    tokens = c.run.steps * c.learner.groups_per_step * c.largest_group * c.sampling.max_tokens
    # An append-only file is rewritten when it has doubled.
    width = 4 if c.model.dtype == "float32" else 2
    exports = max(0, written - kept) * count * width if c.learner.keep_exports == "all" else 0.0
    return Disk(
        checkpoint * min(kept, written),
        exports,
        tokens * STORED_BYTES_PER_TOKEN,
        0.0 if c.redis.url else 3 * redis_bytes(c) + _LOGS,
        min(kept, written),
    )


def check_disk(config: RunConfig) -> None:
    """Raises CannotGoOn where not even the checkpoints fit."""
    needs, folder = planned(config), Path(config.run.dir).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needs.certain + _LOGS > free:
        every = ', or learner.keep_exports = "newest"' if needs.exports else ""
        raise CannotGoOn(
            f"run.dir {config.run.dir}: {_gib(free)} are free, and the checkpoints of this run take "
            f"{_gib(needs.certain)} at a time; make room, give another run.dir, or lower learner.keep_checkpoints"
            f"{every}"
        )
    if needs.most > free:
        log.warning(
            "run.dir %s: %s are free, and this run takes up to %s (checkpoints %s, rollouts %s, Redis' file %s); make "
            "room",
            *(config.run.dir, *map(_gib, (free, needs.most, needs.certain, needs.rollouts, needs.redis))),
        )


def _gib(count: float) -> str:
    return f"{count / 2**30:,.1f} GiB"


def size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"
