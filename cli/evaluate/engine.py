"""The vLLM that `chorus eval` starts for itself, and starts again when it dies."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from chorus.evaluation.records import Spec
from chorus.evaluation.runner import Completion as Answered
from chorus.evaluation.runner import Engine as Asked
from chorus.generator.engine import Completion, Engine, EngineGone
from chorus.generator.vllm_engine import VllmEngine
from chorus.protocol.config.run import Gpu, RunConfig
from chorus.protocol.runtime.exits import CannotGoOn

RESTARTS = 3


def engine_config(
    path: str, spec: Spec, at_once: int, kv_cache_gib: float, gpus: Sequence[Gpu], further: Sequence[str]
) -> RunConfig:
    """What generator/engine.py needs to know of a run, for a run that only answers."""
    generator = {
        "max_num_seqs": at_once,
        "kv_cache_gib": kv_cache_gib,
        "vllm_args": ["--seed", str(spec.seed), *further],
    }
    sections = {
        "model": {"path": path, "dtype": spec.dtype, "context": spec.context},
        "problems": {"train": ["none"], "max_prompt_tokens": 1},
        "sampling": {"max_tokens": min(spec.max_tokens, spec.context - 1)},
        "templates": {"names": [spec.template]},
        "generator": generator,
        "placement": {"learner_gpus": [], "generator_gpus": [list(gpus)]} if gpus else {},
    }
    return RunConfig.model_validate(sections)


class RestartingEngine:
    """Asks again what died with the engine; after RESTARTS new starts it gives up with CannotGoOn."""

    def __init__(self, engine: Engine, log: Path) -> None:
        self.engine = engine
        self._log = log
        self._starting = asyncio.Lock()

    async def generate(
        self, prompt: list[int], n: int, temperature: float, max_tokens: int, deadline_s: float, top_p: float = 1.0
    ) -> list[Completion]:
        while True:
            start = self.engine.starts
            try:
                return await self.engine.generate(prompt, n, temperature, max_tokens, deadline_s, top_p)
            except EngineGone:
                await self._start_after(start)

    async def _start_after(self, start: int) -> None:
        """A new start, unless another question has brought one about already."""
        async with self._starting:
            if self.engine.starts != start:
                return
            if start > RESTARTS:
                raise CannotGoOn(f"vLLM died {start} times (log: {self._log}); mend what it says there")
            await self.engine.start()


class Spread:
    """Several engines of the same weights as one: each question goes to whichever has the fewest."""

    def __init__(self, engines: Sequence[Asked]) -> None:
        self._engines = engines
        self._open = [0] * len(engines)

    async def generate(
        self, prompt: list[int], n: int, temperature: float, max_tokens: int, deadline_s: float, top_p: float = 1.0
    ) -> Sequence[Answered]:
        k = min(range(len(self._engines)), key=self._open.__getitem__)
        self._open[k] += 1
        try:
            return await self._engines[k].generate(prompt, n, temperature, max_tokens, deadline_s, top_p)
        finally:
            self._open[k] -= 1


@asynccontextmanager
async def started_vllm(config: RunConfig, log: Path, cores: Sequence[int]) -> AsyncIterator[RestartingEngine]:
    """A healthy engine until the block ends. `cores` bind its threads where there is no GPU."""
    if not config.placement.generator_gpus:
        # Its process inherits these; unbound, its threads would fight other processes for the cores.
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, cores))
        os.environ |= {"OMP_NUM_THREADS": str(len(cores)), "OMP_WAIT_POLICY": "passive"}
    engine = VllmEngine(config, log, None if config.placement.generator_gpus else set(cores))
    try:
        await engine.start()
        yield RestartingEngine(engine, log)
    finally:
        await engine.stop()
