"""How large a run is as it is planned: parameters, rollouts on Redis, disk; and whether the disk has room for it."""

from __future__ import annotations

import logging
import math
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from chorus.protocol.config.run import RunConfig
from chorus.protocol.graders import MAX_ROW_BYTES
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.model_folder import tensors_of

log = logging.getLogger("chorus.run")
# A sampled token on Redis: id (int32) and log-probability (float32). Grades and versions are small beside.
BYTES_PER_TOKEN = 8
# A sampled token on the disk, compressed: its text comes to these (docs/rollouts.md).
STORED_BYTES_PER_TOKEN = 10
# The policy and AdamW's two moments in float32, and the export, in float32, too.
CHECKPOINT_BYTES_PER_PARAMETER = 16
_LOGS = 64 * 2**20
_SIZE_IN_NAME = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)([BbMm])(?![\w.])")


@dataclass(frozen=True)
class Model:
    """`count` of parameters, and how it is known."""

    count: float
    known: str


def model_of(path: str) -> Model | None:
    """Counted in a folder's safetensors; of a hub name, what the name says; None where nothing does."""
    if count := sum(math.prod(shape) for _, shape in tensors_of(Path(path))):
        return Model(count, "")
    if not Path(path).exists() and (said := _SIZE_IN_NAME.search(path.replace("-", " ").replace("/", " "))):
        return Model(float(said[1]) * (1e9 if said[2] in "Bb" else 1e6), " by its name")
    return None


def redis_bytes(c: RunConfig) -> float:
    """What Redis holds at most. What is trained stays there until a checkpoint holds it."""
    kept = c.capacity + c.learner.checkpoint_every * c.learner.groups_per_step
    count = kept * c.sampling.group_size * c.sampling.max_tokens * BYTES_PER_TOKEN
    count += kept * c.problems.max_prompt_tokens * 4
    if any(grader.columns for grader in c.reward.graders):
        count += (kept + c.capacity) * MAX_ROW_BYTES  # in the group, and in the task until it is committed
    return count


@dataclass(frozen=True)
class Disk:
    """Bytes. `checkpoints` are certain; the others are at most so many, if every completion is as long as it may be."""

    checkpoints: float
    rollouts: float
    redis: float

    @property
    def most(self) -> float:
        return self.checkpoints + self.rollouts + self.redis


def planned(config: RunConfig) -> Disk:
    c, model = config, model_of(config.model.path)
    count = model.count if model else 0.0
    # One is written before an older one goes; the selected one is kept, and one from before an alarm may be.
    kept = c.learner.keep_checkpoints + 1 + bool(c.evaluation.every)
    written = -(-c.run.steps // c.learner.checkpoint_every)
    tokens = c.run.steps * c.learner.groups_per_step * c.sampling.group_size * c.sampling.max_tokens
    # An append-only file is rewritten when it has doubled.
    return Disk(
        count * CHECKPOINT_BYTES_PER_PARAMETER * min(kept, written),
        tokens * STORED_BYTES_PER_TOKEN,
        0.0 if c.redis.url else 3 * redis_bytes(c) + _LOGS,
    )


def check_disk(config: RunConfig) -> None:
    """Raises CannotGoOn where not even the checkpoints fit."""
    needs, folder = planned(config), Path(config.run.dir).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needs.checkpoints + _LOGS > free:
        raise CannotGoOn(
            f"run.dir {config.run.dir}: {_gib(free)} are free, and the checkpoints of this run take "
            f"{_gib(needs.checkpoints)} at a time; make room, give another run.dir, or lower learner.keep_checkpoints"
        )
    if needs.most > free:
        log.warning(
            "run.dir %s: %s are free, and this run takes up to %s (checkpoints %s, rollouts %s, Redis' file %s); make "
            "room",
            *(config.run.dir, *map(_gib, (free, needs.most, needs.checkpoints, needs.rollouts, needs.redis))),
        )


def _gib(count: float) -> str:
    return f"{count / 2**30:,.1f} GiB"
