"""A worker's end of the weight sync as the real receiver has it, without an engine: real groups, real bytes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from chorus.generator.relay import Relay
from chorus.protocol.messages import SyncOffer
from chorus.protocol.weights import (
    broadcast,
    join_group,
    join_store,
    new_buckets,
    open_group,
    pieces,
    plan_buckets,
)


class Intake:
    """`received`: the last transfer that was whole."""

    def __init__(self) -> None:
        self.received: dict[str, torch.Tensor] = {}
        self._group: Any = None
        self._relay: Relay | None = None

    def join(self, offer: SyncOffer) -> None:
        where = offer.store_host, offer.store_port
        self._group = join_group(offer.backend, *where, offer.group, 1, offer.world_size, offer.timeout_s)

    def leave(self) -> None:
        """As a killed worker does."""
        self._group = self._relay = None

    def take(self, offer: SyncOffer) -> Iterator[int]:
        """Yields how many pieces have come, after each one, before it is passed on."""
        relay = self._relay = self._relay_of(offer)
        plan = plan_buckets(offer.tensors, offer.bucket_bytes)
        buckets = new_buckets(plan)
        for number, piece in enumerate(pieces(buckets, offer.piece_bytes), 1):
            broadcast(self._group, piece, offer.timeout_s)
            yield number
            if relay is not None:
                relay.pass_on(piece)
        self.received = {name: tensor for views in plan.views(buckets) for name, tensor in views}

    def _relay_of(self, offer: SyncOffer) -> Relay | None:
        onward = offer.onward
        if onward is None or (self._relay and self._relay.group == onward.group):
            return self._relay if onward else None
        store = join_store(offer.store_host, offer.store_port, offer.timeout_s)
        meet = partial(open_group, "gloo", store, onward.group, 0, onward.world_size, offer.timeout_s)
        return Relay(onward.group, meet, offer.timeout_s)
