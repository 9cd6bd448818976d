"""The learner's end of a link: the group in which an engine meets it, and the weights that go through."""

from __future__ import annotations

import logging
from contextlib import suppress

import redis
import torch

from chorus.learner.weight_sync.fan_out import Link, Way
from chorus.learner.weight_sync.former import Parts
from chorus.protocol.config.run import RunConfig
from chorus.protocol.messages import SyncOffer
from chorus.protocol.metrics.processes import LearnerMetrics
from chorus.protocol.weights import (
    MeetingStore,
    announce_group,
    broadcast,
    close_group,
    host_store,
    join_store,
    open_group,
    pieces,
    retract_group,
)

log = logging.getLogger("chorus.learner")


class Sender:
    """For all links, each call from its link's own thread: of what is here they share nothing that changes."""

    def __init__(
        self,
        config: RunConfig,
        client: redis.Redis,
        run_id: str,
        backend: str,
        device: torch.device,
        metrics: LearnerMetrics,
    ) -> None:
        self._config = config
        self._backend = backend
        self._device = device
        self._metrics = metrics
        self._deadline_s = config.learner.sync_deadline_s
        where = config.learner
        self._store = (
            host_store(where.host, where.store_port, self._deadline_s)
            if backend == "nccl"
            else MeetingStore(client, run_id, where.host, self._deadline_s)
        )
        log.info("weights go to generators over %s", backend)

    def offer(self, link: Link, way: Way, parts: Parts | None) -> SyncOffer:
        """What the replica is told of this way; the group that it names is announced where it is a new one."""
        if link.group_name != way.group:
            self.close(link)
            link.engine, link.source, link.group_name = way.engine, way.source, way.group
            announce_group(self._store, link.group_name)
        snapshot = way.snapshot
        return SyncOffer(
            version=str(snapshot.version),
            group=link.group_name,
            backend=self._backend,  # type: ignore[arg-type]
            store_host=self._config.learner.host,
            store_port=self._store.port,
            world_size=1 + link.member.world_size,
            timeout_s=self._deadline_s,
            bucket_bytes=self._config.learner.bucket_bytes,
            piece_bytes=way.piece_bytes,
            onward=way.onward,
            delta=parts and parts.delta,
            tensors=[slot.tensor for slot in snapshot.plan.slots],
            temperature=self._config.sampling.temperature,
            tolerance=self._config.logprob_tolerance(snapshot.rounding),
            checks=snapshot.checks,
            adapter=snapshot.adapter,
        )

    def send(self, link: Link, way: Way, world_size: int, parts: Parts | None) -> None:
        """The weights, or what differs, once the replica is there. Raises RuntimeError or TimeoutError."""
        if link.group is None:
            link.group = self._meet(link.group_name, world_size)
        whole = pieces(way.snapshot.buckets, way.piece_bytes)
        for piece in (part for part in parts.tensors if part.numel()) if parts else whole:
            staged = piece.to(self._device, non_blocking=True) if self._backend == "nccl" else piece
            broadcast(link.group, staged, self._deadline_s)
            self._metrics.sent_bytes.inc(piece.numel())

    def close(self, link: Link) -> None:
        """Leave its group, which nobody then meets in again."""
        if link.group_name:
            with suppress(redis.RedisError):  # who still comes for it then waits out its deadline
                retract_group(self._store, link.group_name)
        close_group(link.group)
        link.group = None
        link.group_name = ""

    def _meet(self, group_name: str, world_size: int) -> torch.distributed.ProcessGroup:
        store = self._store
        if not isinstance(store, MeetingStore):  # of a TCPStore each group has a connection of its own
            store = join_store(store.host, store.port, self._deadline_s)
        return open_group(self._backend, store, group_name, 0, world_size, self._deadline_s)
