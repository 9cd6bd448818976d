"""The version before the newest, kept for links whose generators have it: they are sent what differs.

It is computed once for all of them, by the first link's thread; the others wait for it. The learner holds one former
version, until every replica that is there has the newest.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import torch

from chorus.learner.training.distributed import Snapshot
from chorus.learner.weight_sync.fan_out import Link, Way
from chorus.protocol.messages import Delta, Version
from chorus.protocol.runtime.delta import checksum, difference

_WORTH = 0.9  # of the whole, at most


@dataclass(frozen=True)
class Parts:
    """What travels in the buckets' place, and what the receiver is told of it."""

    delta: Delta
    tensors: list[torch.Tensor]


class Former:
    """One snapshot, and what makes the next one of it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._lock = threading.Lock()
        self._next: Version | None = None
        self._parts: Parts | None = None

    def parts_to(self, new: Snapshot) -> Parts | None:
        """None: whole weights are hardly more. Takes a while the first time."""
        with self._lock:
            if self._next != new.version:
                self._next, self._parts = new.version, _parts(self.snapshot, new)
            return self._parts


def parts_for(former: Former | None, link: Link, way: Way) -> Parts | None:
    """What differs from the version that the replica took last over this group; None: it gets whole weights. So do
    chains, whose links may be at different versions."""
    if former is None or link.synced != former.snapshot.version or link.group_name != way.group:
        return None
    return None if way.before or way.onward else former.parts_to(way.snapshot)


def _parts(base: Snapshot, new: Snapshot) -> Parts | None:
    unit: Any = min(slot.value_bytes for slot in new.plan.slots)
    tensors: list[torch.Tensor] = []
    room = _WORTH * new.plan.total_bytes
    for old, now in zip(base.buckets, new.buckets, strict=True):
        tensors.append(torch.from_numpy(difference(old.numpy(), now.numpy(), unit)))
        room -= tensors[-1].numel()
        if room < 0:
            return None
    lengths = [part.numel() for part in tensors]
    crc = checksum(bucket.numpy() for bucket in new.buckets)
    return Parts(Delta(base=str(base.version), unit=unit, lengths=lengths, checksum=crc), tensors)
