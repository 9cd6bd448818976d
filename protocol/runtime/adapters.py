"""What shows that an adapter arrived: which weights moved, by how much, and the checksum of what moved them.

The weight check can't show it: an adapter begins as nothing, and at a small learning rate its effect stays below the
rounding of log-probabilities. So the learner says what must move, a receiver measures on the weights that it hands to
its engine what did, and both are compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

DOWN, UP = ".lora_A", ".lora_B"  # after a weight's layer, on the wire
_MOVED = 0.02  # of the distance: sums in another order, and half of an adapter is far beyond it
_ROUNDED = 2.0**-23  # of the weights' norm: what float32 may round by where they move


class Moved(BaseModel):
    """One weight: the norm of what an adapter adds to it, and its own without."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    by: float = Field(ge=0)
    of: float = Field(ge=0)


class Adapter(BaseModel):
    """What moves whole weights, by name: as the learner expects it, or as a receiver has seen it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scaling: float
    checksum: str
    moved: dict[str, Moved]


def checksum(scaling: float, tensors: Iterable[tuple[str, np.ndarray]]) -> str:
    """Of an adapter's tensors in their order, by name, shape and bytes."""
    digest = hashlib.blake2b(repr(scaling).encode(), digest_size=16)
    for name, values in tensors:
        digest.update(f"\0{name}\0{values.dtype}\0{values.shape}\0".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def fault(wanted: Adapter, seen: Sequence[Adapter]) -> str:
    """Why these receivers, the workers of one engine, do not hold what was wanted; empty: they do."""
    if not seen:
        return "the engine has not said which weights the adapter moved"
    for k, adapter in enumerate(seen):
        of = f" of worker {k}" if len(seen) > 1 else ""
        if adapter.checksum != wanted.checksum:
            return f"the adapter{of} is another than the one sent: checksum {adapter.checksum}, not {wanted.checksum}"
        missing, more = (
            sorted(a.keys() - b.keys()) for a, b in ((wanted.moved, adapter.moved), (adapter.moved, wanted.moved))
        )
        if missing or more:
            names = ", ".join((missing or more)[:3])
            return f"the adapter{of} moved {'not' if missing else 'also'} {names} ({len(missing or more)} in all)"
        for name, expected in wanted.moved.items():
            by = adapter.moved[name].by
            if not abs(by - expected.by) <= _MOVED * expected.by + _ROUNDED * expected.of:
                return f"the adapter{of} moved {name} by {by:.3g}, where the learner's moves it by {expected.by:.3g}"
    return ""
