"""The last weights that came, in host memory: where the next ones come to, and what a delta is added to.

    nothing, or in part ── whole weights ──▶ version V ── what differs from V ──▶ version W
             ▲                                                 │
             └──────────────── any failure ────────────────────┘

Nothing of the model lies here. Who has lost these bytes samples on, and needs whole weights next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from chorus.protocol.messages import Delta
from chorus.protocol.runtime.delta import apply, checksum
from chorus.protocol.weights import BucketPlan, new_buckets, pieces

Receive = Callable[[torch.Tensor], None]


class Held:
    """`version`: whose weights are whole here; empty: nobody's."""

    def __init__(self, pinned: bool = False) -> None:
        self.buckets: list[torch.Tensor] = []
        self.version = ""
        self._plan: BucketPlan | None = None
        self._pinned = pinned

    def room(self, plan: BucketPlan, in_use: bool) -> None:
        """For weights of this plan. `in_use`: somebody still reads the bytes that are here."""
        # Fresh memory costs about as much as the bytes that come into it.
        if plan != self._plan:
            self._plan, self.buckets, self.version = plan, new_buckets(plan, self._pinned), ""
        elif in_use:
            fresh = new_buckets(plan, self._pinned)
            self.buckets = [new.copy_(bucket) for new, bucket in zip(fresh, self.buckets, strict=True)]

    def take(self, version: str, piece_bytes: int, delta: Delta | None, receive: Receive) -> Iterator[torch.Tensor]:
        """Yields every piece as it has come; they are whole after the last one. Raises RuntimeError where what differs
        does not make the learner's weights of these."""
        if delta is not None:
            yield from self._add(version, delta, receive)
        else:
            self.version = ""
            for piece in pieces(self.buckets, piece_bytes):
                receive(piece)
                yield piece
        self.version = version

    def _add(self, version: str, delta: Delta, receive: Receive) -> Iterator[torch.Tensor]:
        parts = [torch.empty(length, dtype=torch.uint8) for length in delta.lengths]
        for part in parts:
            if part.numel():
                receive(part)
                yield part
        if delta.base != self.version:  # told only now, since the learner would wait out its deadline with the bytes
            raise RuntimeError(
                f"weights {version} came as what differs from {delta.base}, and what is here is "
                f"{self.version or 'not whole'}; they have to come whole"
            )
        self.version = ""
        try:
            for bucket, part in zip(self.buckets, parts, strict=True):
                apply(bucket.numpy(), part.numpy(), delta.unit)
        except ValueError as error:
            raise RuntimeError(f"weights {version}: {error}; they have to come whole") from None
        if checksum(bucket.numpy() for bucket in self.buckets) != delta.checksum:
            raise RuntimeError(
                f"weights {version} came as what differs from {delta.base}, and did not become the learner's: the "
                "checksum is another; they have to come whole"
            )
