"""A worker's end of the weight sync as the real receiver has it, without an engine: real groups, real bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from chorus.generator.relay import Relay, relay_to
from chorus.protocol.messages import SyncOffer
from chorus.protocol.weights import broadcast, join_group, new_buckets, pieces, plan_buckets


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
        where = offer.backend, offer.store_host, offer.store_port
        relay = self._relay = relay_to(offer.onward, self._relay, *where, offer.timeout_s)
        plan = plan_buckets(offer.tensors, offer.bucket_bytes)
        buckets = new_buckets(plan)
        for number, piece in enumerate(pieces(buckets, offer.piece_bytes), 1):
            broadcast(self._group, piece, offer.timeout_s)
            yield number
            if relay is not None:
                relay.pass_on(piece)
        self.received = {name: tensor for views in plan.views(buckets) for name, tensor in views}
