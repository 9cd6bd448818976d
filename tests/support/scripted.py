"""A scripted engine: what vLLM would do, in microseconds, with faults on cue. Its sibling is the real one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from chorus.generator.engine import Completion, EngineError, EngineGone
from chorus.protocol.messages import Grade, SyncOffer, Task, Version


class ScriptedEngine:
    """Samples `tokens`; `gap` is what its weight check shows; `die()` ends it as kill -9 would."""

    def __init__(self, tokens: list[int] | None = None, delay_s: float = 0.0, gap: float = 0.0) -> None:
        self.starts = 0
        self.world_size = 1
        self.tokens = [5, 6, 7] if tokens is None else tokens
        self.delay_s = delay_s
        self.gap = gap
        self.fail_receive = False
        self.fail_put = False
        self.version: Version | None = None
        self.calls: list[str] = []
        self.asked: list[tuple[int, float, int, float]] = []  # n, temperature, tokens at most, top-p
        self._dead = asyncio.Event()

    async def start(self) -> None:
        self.starts += 1
        self._dead.clear()
        self.version = None

    def die(self) -> None:
        self._dead.set()

    async def wait_dead(self) -> None:
        await self._dead.wait()

    async def stop(self) -> None:
        self._dead.set()

    async def generate(
        self,
        prompt: list[int],
        n: int,
        temperature: float,
        max_tokens: int,
        deadline_s: float,
        top_p: float = 1.0,
        stop: Sequence[int] = (),
    ) -> list[Completion]:
        self.asked.append((n, temperature, max_tokens, top_p))
        dead = asyncio.create_task(self._dead.wait())
        sleep = asyncio.create_task(asyncio.sleep(self.delay_s))
        await asyncio.wait({dead, sleep}, return_when=asyncio.FIRST_COMPLETED)
        if self._dead.is_set():
            raise EngineGone("scripted engine is dead")
        dead.cancel()
        assert self.version is not None, "sampled before the first sync"
        run = (self.version.fence, self.version.step, len(self.tokens))
        return [Completion(self.tokens, [-0.5] * len(self.tokens), [run], "stop") for _ in range(n)]

    async def join_group(self, offer: SyncOffer) -> None:
        self.calls.append("join")

    async def receive(self, offer: SyncOffer) -> None:
        self.calls.append("receive")
        if self.fail_receive:
            raise EngineError("scripted transfer failure")

    async def put_in_place(self, offer: SyncOffer, clear_cache: bool, deadline_s: float) -> float:
        self.calls.append("put")
        if self.fail_put:
            raise EngineError("scripted failure half way")
        self.version = Version.parse(offer.version)
        return 0.001

    async def logprob_gaps(self, offer: SyncOffer) -> np.ndarray:
        return np.array([self.gap])


class ScriptedGrader:
    """Everything is right."""

    async def grade(self, task: Task, texts: list[str]) -> list[Grade]:
        return [Grade(verdict="correct", accuracy=1.0, format=1.0) for _ in texts]


class ScriptedTokenizer:
    def decode_batch(self, sequences: list[list[int]], skip_special_tokens: bool = True) -> list[str]:
        return ["text"] * len(sequences)
