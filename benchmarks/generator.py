"""Generating through the whole path against vLLM alone, on the same server process.

    path   admit ─▶ Valkey ─▶ agent ─▶ vLLM ─▶ agent ─▶ reward server ─▶ commit ─▶ read by the learner
    raw                 client ─▶ vLLM ─▶ client (answers are parsed after the clock has stopped)

Both see the same prompts as token ids, the same sampling parameters and the same number of requests at once;
the raw client sits where the agent sits, on vLLM's cores. Path and raw take turns in going first.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import aiohttp

from chorus.benchmarks.bench import Bench
from chorus.benchmarks.fleet import Fleet, completion_tokens, open_fleet
from chorus.benchmarks.machine import on_cores
from chorus.benchmarks.models import starter, three_million
from chorus.benchmarks.report import Row, at_least
from chorus.protocol.messages import Task, unpack_ids

GOAL = at_least(0.95)
_GROUPS = 256  # a measurement: eight of the demo's steps, so that its ends weigh little
_WARM_UP_GROUPS = 32
_RAW_DEADLINE_S = 600.0


def measure(bench: Bench) -> Iterator[Row]:
    yield _compare(bench, "starter", starter(bench))
    if not bench.quick:
        yield _compare(bench, "3 M", three_million(bench))


def _compare(bench: Bench, name: str, model: Path) -> Row:
    groups = 32 if bench.quick else _GROUPS
    path: list[float] = []
    raw: list[float] = []
    config = bench.config(f"model.path={model}", f"staleness.target={bench.staleness}")
    with open_fleet(bench, f"generator-{name.replace(' ', '')}", config) as fleet:
        # vLLM meets its first shapes, both clients their first connections.
        through_the_path(fleet, _WARM_UP_GROUPS)
        _through_http(fleet, fleet.tasks(_WARM_UP_GROUPS))
        work: Counter[str] = Counter()
        for repeat in range(bench.repeats):
            tasks = fleet.tasks(groups)
            if repeat % 2:
                raw.append(_through_http(fleet, tasks))
            before = fleet.cpu_ms()
            path.append(through_the_path(fleet, groups)[0])
            work.update(fleet.cpu_ms() - before)
            if not repeat % 2:
                raw.append(_through_http(fleet, tasks))
            bench.say(f"path {path[-1]:,.0f}, raw {raw[-1]:,.0f} tokens/s")
    shares = ", ".join(f"{who} {ms / work.total():.0%}" for who, ms in work.most_common())
    note = (
        f"{groups} groups of {config.sampling.group_size}, {config.groups_in_flight} at once; CPU of the path: {shares}"
    )
    return Row(f"generator: path / raw vLLM, {name}", "tokens/s", path, raw, GOAL, note)


def through_the_path(fleet: Fleet, groups: int) -> tuple[float, float]:
    """(completion tokens a second, seconds) from admitting `groups` to reading the last committed one."""
    tasks = fleet.tasks(groups)
    started = time.monotonic()
    fleet.admit(tasks)
    finished = fleet.collect(groups)
    seconds = time.monotonic() - started
    return completion_tokens(finished) / seconds, seconds


def _through_http(fleet: Fleet, tasks: list[Task]) -> float:
    """Completion tokens a second, from the first request to the last answer."""
    url = fleet.vllm_url()
    with on_cores(fleet.placement.generator_cpus[0]):
        started = time.monotonic()
        answers = asyncio.run(_post_all(url, tasks, fleet.config.groups_in_flight))
        seconds = time.monotonic() - started
    return sum(len(c["token_ids"]) for answer in answers for c in json.loads(answer)["choices"]) / seconds


async def _post_all(url: str, tasks: list[Task], at_once: int) -> list[bytes]:
    room = asyncio.Semaphore(at_once)

    async def post(http: aiohttp.ClientSession, task: Task) -> bytes:
        # The very body that generator/engine.py sends.
        sampling = {
            "n": task.group_size,
            "max_tokens": task.sampling.max_tokens,
            "temperature": task.sampling.temperature,
            "top_p": task.sampling.top_p,
            "logprobs": 0,
            "detokenize": False,
        }
        body = {
            "model": "policy",
            "token_ids": unpack_ids(task.prompt_ids).tolist(),
            "sampling_params": sampling,
        }
        async with room, http.post("/inference/v1/generate", json=body) as answer:
            answer.raise_for_status()
            return await answer.read()

    limit = aiohttp.ClientTimeout(_RAW_DEADLINE_S)
    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0), timeout=limit) as http:
        return await asyncio.gather(*(post(http, task) for task in tasks))
