"""Generators that compute nothing: real agents, real weights over real process groups, completions as they are given.

    python -m chorus.benchmarks.scripted '{"config": FILE, "run": ID, "names": [...], "answers": FILE, "delay_s": 1.0}'

All of `names` live in one process, an agent and a connection to Redis each; each group takes `delay_s`. ANSWERS holds
token ids [answers, tokens], int32, of which each sample gets one. Every second sample of a group is right.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import redis
import torch

from chorus.benchmarks.bench import Bench
from chorus.deploy.placement import place, visible_cores
from chorus.deploy.services import Chosen, valkey_service
from chorus.generator.agent import Agent
from chorus.generator.engine import Completion, EngineError
from chorus.protocol.config.load import load_config
from chorus.protocol.config.run import RunConfig
from chorus.protocol.messages import Grade, SyncOffer, Task, Version
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.adapters import Adapter
from chorus.protocol.runtime.processes import Guarded, free_port, spawn_guarded
from chorus.protocol.runtime.redis import RENDEZVOUS, await_redis, connect, connect_async
from chorus.protocol.weights import broadcast, join_group, new_buckets, pieces, plan_buckets


@dataclass
class ScriptedRun:
    """A run's folder, its Valkey, and generators that wait for its learner's first weights.

    valkey: its process id. generators: the processes, in which `names` live.
    """

    config: RunConfig
    run: RunFolder
    client: redis.Redis
    valkey: int
    names: list[str]
    generators: list[Guarded]

    @property
    def id(self) -> str:
        return self.run.path.name

    def check(self) -> None:
        """Raises RuntimeError where a generator has ended."""
        for process in self.generators:
            if process.poll() is not None:
                raise RuntimeError(f"{process.name} has ended; see its log in {self.run.path / 'logs'}")


@contextmanager
def scripted_run(
    bench: Bench, name: str, config: RunConfig, generators: int, answers: np.ndarray, delay_s: float
) -> Iterator[ScriptedRun]:
    """Valkey as `chorus run` starts it, and `generators` in as many processes as there are cores, at most."""
    folder = bench.folder / name
    (folder / "logs").mkdir(parents=True)
    url = f"redis://127.0.0.1:{free_port()}/0"
    config = config.model_copy(update={"redis": config.redis.model_copy(update={"url": url})})
    (folder / "config.json").write_text(config.model_dump_json(indent=2), encoding="utf-8")
    np.save(folder / "answers.npy", answers)
    placement = place(config, visible_cores(), gpus=[])
    chosen = Chosen(config, RunFolder(folder), placement, own_redis=True, own_reward_server=False, resumed=False)
    service, processes = valkey_service(chosen), []
    names = [f"gen-{k}" for k in range(generators)]
    valkey = spawn_guarded(service.argv, name="valkey", env=service.env, log=folder / "logs" / "valkey.log")
    try:
        await_redis(url)
        for k in range(min(generators, len(visible_cores()))):
            processes.append(_spawn(folder, k, names[k :: len(visible_cores())], delay_s))
        yield ScriptedRun(config, RunFolder(folder), connect(url), valkey.pid, names, processes)
    finally:
        for process in processes:
            process.stop(1.0)
        valkey.stop(service.grace_s)


def _spawn(folder: Path, number: int, names: list[str], delay_s: float) -> Guarded:
    where = {"config": str(folder / "config.json"), "run": folder.name, "answers": str(folder / "answers.npy")}
    asked = json.dumps(where | {"names": names, "delay_s": delay_s})
    argv = [sys.executable, "-m", "chorus.benchmarks.scripted", asked]
    name = f"generators-{number}"
    return spawn_guarded(argv, name=name, log=folder / "logs" / f"{name}.log", grace_s=1.0)


class ScriptedEngine:
    """The engine's place. Bytes of weights come for real, and nothing is done with them."""

    world_size = 1

    def __init__(self, answers: np.ndarray, delay_s: float, seed: int) -> None:
        self.starts = 0
        self._answers = answers
        self._logprobs = np.full(answers.shape[1], -0.5, np.float32)
        self._delay_s = delay_s
        self._random = random.Random(seed)
        self._version = Version(fence=0, step=0)
        self._group: Any = None
        self._ended = asyncio.Event()

    async def start(self) -> None:
        self.starts += 1

    async def wait_dead(self) -> None:
        await self._ended.wait()

    async def stop(self) -> None:
        self._ended.set()

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
        await asyncio.sleep(self._delay_s)
        return [self._completion(max_tokens) for _ in range(n)]

    def _completion(self, longest: int) -> Completion:
        ids: Any = self._answers[self._random.randrange(len(self._answers))][:longest]
        logprobs: Any = self._logprobs[: len(ids)]
        return Completion(ids, logprobs, [(self._version.fence, self._version.step, len(ids))], "stop")

    async def join_group(self, offer: SyncOffer) -> None:
        where = offer.store_host, offer.store_port
        self._group = await asyncio.to_thread(
            _reported, join_group, offer.backend, *where, offer.group, 1, offer.world_size, offer.timeout_s
        )

    async def receive(self, offer: SyncOffer) -> None:
        await asyncio.to_thread(_reported, self._take, offer)

    def _take(self, offer: SyncOffer) -> None:
        buckets = new_buckets(plan_buckets(offer.tensors, offer.bucket_bytes))
        for piece in pieces(buckets, offer.piece_bytes):
            broadcast(self._group, piece, offer.timeout_s)

    async def put_in_place(self, offer: SyncOffer, clear_cache: bool, deadline_s: float) -> float:
        self._version = Version.parse(offer.version)
        return 0.0

    async def adapter_in_place(self, deadline_s: float) -> list[Adapter]:
        return []

    async def logprob_gaps(self, offer: SyncOffer) -> np.ndarray:
        return np.zeros(1)


def _reported(call: Any, *arguments: Any) -> Any:
    """torch's errors as the engine's."""
    try:
        return call(*arguments)
    except RuntimeError as error:
        raise EngineError(str(error).splitlines()[0]) from None


class _Grader:
    async def grade(self, task: Task, texts: list[str]) -> list[Grade]:
        return [
            Grade(verdict="wrong" if k % 2 else "correct", accuracy=float(k % 2 == 0), format=1.0)
            for k in range(len(texts))
        ]


class _Decoder:
    """Nobody reads the texts."""

    def decode_batch(self, sequences: list[list[int]]) -> list[str]:
        return [""] * len(sequences)


async def _main(asked: dict[str, Any]) -> None:
    config = load_config(Path(asked["config"]))
    os.environ[RENDEZVOUS] = f"{asked['run']} {config.redis.url}"
    answers = np.load(asked["answers"])
    agents = []
    for k, name in enumerate(asked["names"]):
        engine, client = ScriptedEngine(answers, asked["delay_s"], k), connect_async(config.redis.url)
        agents.append(Agent(config, asked["run"], name, engine, _Grader(), _Decoder(), client))
    await asyncio.gather(*(agent.run() for agent in agents))


if __name__ == "__main__":
    torch.set_num_threads(1)
    asyncio.run(_main(json.loads(sys.argv[1])))
