"""A scripted engine of a fixed speed, and `chorus generator` with it: all running sequences advance together.

A decode step takes CHORUS_TEST_STEP_MS plus CHORUS_TEST_SEQUENCE_MS for each running sequence; a completion's length is
drawn evenly from CHORUS_TEST_LENGTHS = "6..16". Nothing is computed, so that the speed is not the machine's. The engine
is healthy once the file CHORUS_TEST_STARTS_WITH is there, if it is named. Otherwise as tests/support/receiving.py:

    python tests/support/rated.py generator --config ... --run-id ... --name gen-0
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from receiving import ReceivingEngine

from chorus.generator.engine import Completion, EngineGone
from chorus.protocol.messages import SyncOffer

_TICK_S = 0.02


@dataclass
class _Sequence:
    """`done` of `length` tokens; `runs`: tokens by version, as (fence, step, n)."""

    length: int
    done: float = 0.0
    runs: list[tuple[int, int, int]] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, fence: int, step: int) -> None:
        """Tokens that are new since the last call were sampled under this version."""
        new = min(self.length, int(self.done)) - sum(n for _, _, n in self.runs)
        if new > 0:
            self.runs.append((fence, step, new))


class RatedEngine(ReceivingEngine):
    def __init__(self, answers: list[list[int]], step_s: float, sequence_s: float, lengths: range) -> None:
        super().__init__(answers)
        self.step_s = step_s
        self.sequence_s = sequence_s
        self.lengths = lengths
        self._running: list[_Sequence] = []
        self._at = 0.0
        self._clock: asyncio.Task[None] | None = None

    async def start(self) -> None:
        while (file := os.environ.get("CHORUS_TEST_STARTS_WITH")) and not Path(file).exists():
            await asyncio.sleep(0.05)
        await super().start()
        self._running.clear()
        self._at = time.monotonic()
        self._clock = self._clock or asyncio.create_task(self._tick())

    async def stop(self) -> None:
        await super().stop()
        if self._clock:
            self._clock.cancel()
            self._clock = None

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self._advance()

    def _advance(self) -> None:
        """By the clock, sequence by sequence: whichever ends first makes the others faster from there on."""
        left, self._at = time.monotonic() - self._at, time.monotonic()
        while self._running and left > 0:
            step_s = self.step_s + self.sequence_s * len(self._running)
            tokens = min(left / step_s, min(s.length - s.done for s in self._running))
            left -= max(tokens * step_s, 1e-9)
            for sequence in self._running:
                sequence.done += tokens
                if sequence.done >= sequence.length - 1e-6:
                    sequence.done = sequence.length
                    self._note([sequence])
                    sequence.ended.set()
            self._running = [s for s in self._running if not s.ended.is_set()]

    def _note(self, sequences: list[_Sequence]) -> None:
        assert self.version is not None, "sampled before the first sync"
        for sequence in sequences:
            sequence.note(self.version.fence, self.version.step)

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
        self._advance()
        mine = [_Sequence(min(max_tokens, random.choice(self.lengths))) for _ in range(n)]
        self._running += mine
        dead = asyncio.ensure_future(self._dead.wait())
        ended = asyncio.gather(*(s.ended.wait() for s in mine))
        await asyncio.wait({dead, ended}, return_when=asyncio.FIRST_COMPLETED)
        dead.cancel()
        if self._dead.is_set():
            ended.cancel()
            raise EngineGone("scripted engine is dead")
        return [self._completion(s) for s in mine]

    def _completion(self, sequence: _Sequence) -> Completion:
        answer = random.choice(self.answers)
        tokens = (answer + answer[-1:] * sequence.length)[: sequence.length]
        return Completion(tokens, [-1.0] * len(tokens), sequence.runs, "stop")

    async def put_in_place(self, offer: SyncOffer, clear_cache: bool, deadline_s: float) -> float:
        self._advance()
        if self.version is not None:
            self._note(self._running)
        return await super().put_in_place(offer, clear_cache, deadline_s)


def _main() -> int:
    import chorus.generator.main as command
    from chorus.cli.main import main

    first, last = map(int, os.environ["CHORUS_TEST_LENGTHS"].split(".."))
    step_s, sequence_s = (float(os.environ[f"CHORUS_TEST_{name}_MS"]) / 1000 for name in ("STEP", "SEQUENCE"))

    def engine(config: Any, *_: Any) -> RatedEngine:
        tokenizer = command.load_tokenizer(config.model.path)
        answers = [tokenizer.encode(f"\\boxed{{{n}}}").ids for n in range(10)]
        return RatedEngine(answers, step_s, sequence_s, range(first, last + 1))

    command.VllmEngine = engine  # type: ignore[assignment,misc]
    torch.set_num_threads(1)
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.exit(_main())
