"""Broadcasters by themselves: the least config, and waits for what their threads do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from replica import Replica

from chorus.learner.weight_sync.broadcaster import Broadcaster
from chorus.protocol.config.run import RunConfig

if TYPE_CHECKING:
    from chorus.learner.training.distributed import Snapshot

CONFIG = RunConfig.model_validate(
    {
        "model": {"path": "any"},
        "problems": {"train": ["any"]},
        "templates": {"names": ["any"]},
        "learner": {"sync_deadline_s": 3.0, "bucket_bytes": 4096},
    }
)


def waiting(broadcaster: Broadcaster, count: int) -> None:
    """Until so many links have nothing to do."""
    until(lambda: sum(link.waits for link in broadcaster.links.values()) >= count, 20.0)


def until(holds: Callable[[], bool], deadline_s: float) -> None:
    end = time.monotonic() + deadline_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def all_have(replicas: list[Replica], sent: Snapshot) -> bool:
    wanted = {name: tensor for views in sent.plan.views(sent.buckets) for name, tensor in views}
    return all(torch.equal(r.received.get(name, torch.empty(0)), wanted[name]) for r in replicas for name in wanted)
