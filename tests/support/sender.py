"""A learner's end of one process group to one real engine."""

from __future__ import annotations

import asyncio
from typing import Any

import torch

from chorus.generator.weight_sync import WeightSync
from chorus.learner.training.distributed import Snapshot
from chorus.learner.weight_sync.former import Former
from chorus.protocol.config.run import RunConfig
from chorus.protocol.messages import SyncOffer, SyncReport
from chorus.protocol.weights import announce_group, broadcast, host_store, join_store, open_group

DEADLINE_S = 60.0


class Sender:
    """The learner's end of one group."""

    def __init__(self, config: RunConfig, sync: WeightSync) -> None:
        self._config = config
        self._sync = sync
        self._store = host_store("127.0.0.1", 0, DEADLINE_S)
        announce_group(self._store, "group")
        self._group: Any = None
        self._last: Snapshot | None = None

    async def sync(self, snapshot: Snapshot, delta: bool = False) -> SyncReport:
        """`delta`: what differs from the last one."""
        parts = Former(self._last).parts_to(snapshot) if delta and self._last else None
        assert delta == (parts is not None), "hardly less than whole weights"
        self._last = snapshot
        offer = SyncOffer(
            version=str(snapshot.version), group="group", backend="gloo", store_host="127.0.0.1",
            store_port=self._store.port, world_size=2, timeout_s=DEADLINE_S,
            bucket_bytes=self._config.learner.bucket_bytes, tensors=[slot.tensor for slot in snapshot.plan.slots],
            temperature=1.0, tolerance=1e-3, checks=snapshot.checks, adapter=snapshot.adapter,
            delta=parts and parts.delta,
        )  # fmt: skip
        taken = asyncio.create_task(self._sync.take(offer))
        await asyncio.to_thread(self._send, parts.tensors if parts else snapshot.buckets)
        return await taken

    def _send(self, pieces: list[torch.Tensor]) -> None:
        if self._group is None:
            store = join_store("127.0.0.1", self._store.port, DEADLINE_S)
            self._group = open_group("gloo", store, "group", 0, 2, DEADLINE_S)
        for piece in pieces:
            broadcast(self._group, piece, DEADLINE_S)
