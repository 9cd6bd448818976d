"""A worker's end of the weight sync as the real receiver has it, without an engine: real groups, real bytes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from chorus.generator.held import Held
from chorus.generator.relay import Relay, relay_to
from chorus.protocol.messages import SyncOffer
from chorus.protocol.weights import broadcast, join_group, plan_buckets


class Intake:
    """`received`: the last transfer that was whole."""

    def __init__(self) -> None:
        self.received: dict[str, torch.Tensor] = {}
        self._group: Any = None
        self._relay: Relay | None = None
        self.held = Held()

    def join(self, offer: SyncOffer) -> None:
        where = offer.store_host, offer.store_port
        self._group = join_group(offer.backend, *where, offer.group, 1, offer.world_size, offer.timeout_s)

    def leave(self) -> None:
        """As a killed worker does."""
        self._group = self._relay = None
        self.held = Held()

    def take(self, offer: SyncOffer) -> Iterator[int]:
        """Yields how many pieces have come, after each one, before it is passed on."""
        plan = plan_buckets(offer.tensors, offer.bucket_bytes)
        self.held.room(plan, in_use=self._relay is not None and self._relay.busy)
        where = offer.backend, offer.store_host, offer.store_port
        relay = self._relay = relay_to(offer.onward, self._relay, *where, offer.timeout_s)
        receive = partial(broadcast, self._group, deadline_s=offer.timeout_s)
        for number, piece in enumerate(self.held.take(offer.version, offer.piece_bytes, offer.delta, receive), 1):
            yield number
            if relay is not None:
                relay.pass_on(piece)
        self.received = {name: tensor.clone() for views in plan.views(self.held.buckets) for name, tensor in views}
