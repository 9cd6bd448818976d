"""What the agent knows of an engine: what it asks of it, and what it gets. Every call has a deadline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from chorus.protocol.messages import SyncOffer
from chorus.protocol.runtime.adapters import Adapter


class EngineError(RuntimeError):
    """The engine refused, failed, or did not answer in time. `reason`: its own words, where it left some."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class EngineGone(EngineError):
    """Nobody listens there any more: the engine has died, and no request is at fault."""


@dataclass(frozen=True)
class Completion:
    """One sampled completion; `logprobs` [tokens] are those the engine sampled with (temperature applied)."""

    token_ids: list[int]
    logprobs: list[float]
    versions: list[tuple[int, int, int]]  # (fence, step, n_tokens)
    finish_reason: str


class Engine(Protocol):
    """What the agent needs of an engine; tests have a scripted one, `VllmEngine` is the real one."""

    starts: int
    world_size: int

    async def start(self) -> None: ...
    async def wait_dead(self) -> None: ...
    async def stop(self) -> None: ...
    async def generate(
        self,
        prompt: list[int],
        n: int,
        temperature: float,
        max_tokens: int,
        deadline_s: float,
        top_p: float = 1.0,
        stop: Sequence[int] = (),
    ) -> list[Completion]: ...
    async def join_group(self, offer: SyncOffer) -> None: ...
    async def receive(self, offer: SyncOffer) -> None: ...
    async def put_in_place(self, offer: SyncOffer, clear_cache: bool, deadline_s: float) -> float: ...
    async def adapter_in_place(self, deadline_s: float) -> list[Adapter]: ...  # what moved, worker by worker
    async def logprob_gaps(self, offer: SyncOffer) -> np.ndarray: ...
