"""The verifier service: grades a second against plain processes, its latency, and clean grades beside a hostile one.

All sides grade the same items, the labelled set's mathematics, each once and from cold caches: a fresh service and
fresh plain processes a repeat. Plain processes have their items beforehand and start together; the slowest one
counts. The service is asked over HTTP in batches of 8, two requests a worker under way, by a client on the same cores.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from chorus.benchmarks.bench import Bench
from chorus.benchmarks.labelled import Pair, load
from chorus.benchmarks.report import Row, at_least, at_most

GOAL = at_least(0.9)
NEIGHBOURS_GOAL = at_most(2.0)
BATCH = 8
_IN_FLIGHT = 2  # requests a worker
_ITEMS = 360
_NEIGHBOURS = 100
_HOSTILE = (  # computes until it is killed
    r"\boxed{\int_0^1\int_0^1\int_0^1\int_0^1 x^{y^{z}} \sin(x^{y}+z^{w}) dx dy dz dw}"
)


def measure(bench: Bench) -> Iterator[Row]:
    pairs = [pair for pair in load() if pair.kind == "math" and pair.mode == "train"]
    pairs = sorted(pairs, key=lambda pair: pair.completion[::-1])  # topics mixed
    pairs = pairs[:: len(pairs) // (40 if bench.quick else _ITEMS)]
    latencies: list[list[float]] = []
    for workers in (1, 2):
        yield from _throughput(bench, pairs, workers, latencies)
    for name, k in (("p50", 49), ("p99", 98)):
        values = [statistics.quantiles(repeat, n=100)[k] for repeat in latencies]
        yield Row(f"verifier: one grade a request, {name}", "ms", values, note=f"{len(latencies[0])} one by one")
    yield _neighbours(bench)


def _throughput(bench: Bench, pairs: list[Pair], workers: int, latencies: list[list[float]]) -> Iterator[Row]:
    service: list[float] = []
    library: list[float] = []
    grader: list[float] = []
    sides: list[tuple[list[float], Callable[[], float]]] = [
        (service, lambda: _service(pairs, workers, latencies)),
        (library, lambda: _plain(pairs, workers, _by_math_verify)),
        (grader, lambda: _plain(pairs, workers, _by_our_grader)),
    ]
    for repeat in range(bench.repeats):
        for values, rate in sides if repeat % 2 else reversed(sides):
            values.append(rate())
        bench.say(f"verifier, {workers}: {service[-1]:.0f}, {library[-1]:.0f}, {grader[-1]:.0f} grades/s")
    note = f"{len(pairs)} items, batches of {BATCH}"
    many = f"{workers} worker{'s' if workers > 1 else ''}"
    yield Row(f"verifier: service / math-verify in plain processes, {many}", "grades/s", service, library, GOAL, note)
    yield Row(f"verifier: service / its own grader in plain processes, {many}", "grades/s", service, grader, None, note)


# --- through the service ---------------------------------------------------------------------------------------


@contextmanager
def _serving(workers: int, limit_s: float = 5.0) -> Iterator[str]:
    """The URL of a service that is ready, spare included."""
    command = [sys.executable, "-m", "chorus.reward_server.main", "--port", "0", "--workers", str(workers)]
    process = subprocess.Popen(
        [*command, "--timeout", str(limit_s)],
        cwd=Path(__file__).resolve().parents[1],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[1]
        while not _ready(url):
            time.sleep(0.1)
        time.sleep(3)  # the spare still imports
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:  # it says its address before it listens there
        return False


def _service(pairs: list[Pair], workers: int, latencies: list[list[float]]) -> float:
    with _serving(workers) as url:
        rate = asyncio.run(_batches(url, pairs, workers * _IN_FLIGHT))
        if workers == 1:
            latencies.append(_one_by_one(url, pairs))
    return rate


async def _batches(url: str, pairs: list[Pair], in_flight: int) -> float:
    """Grades a second."""
    waiting = [pairs[start : start + BATCH] for start in range(0, len(pairs), BATCH)]

    async def ask(client: httpx.AsyncClient) -> None:
        while waiting:
            items = [_item(pair) for pair in waiting.pop()]
            (await client.post("/v1/grade/batch", json={"items": items})).raise_for_status()

    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        await client.get("/healthz")
        started = time.perf_counter()
        await asyncio.gather(*(ask(client) for _ in range(in_flight)))
        return len(pairs) / (time.perf_counter() - started)


def _one_by_one(url: str, pairs: list[Pair]) -> list[float]:
    """Milliseconds of each grade, asked for alone."""
    taken: list[float] = []
    with httpx.Client(base_url=url, timeout=60) as client:
        client.get("/healthz")
        for pair in pairs:
            started = time.perf_counter()
            client.post("/v1/grade", json=_item(pair)).raise_for_status()
            taken.append((time.perf_counter() - started) * 1000)
    return taken


def _item(pair: Pair) -> dict[str, Any]:
    return {"completion": pair.completion, "gold": list(pair.golds)}


# --- beside a hostile completion -------------------------------------------------------------------------------


def _neighbours(bench: Bench) -> Row:
    """p99 of 100 clean grades sent at once: two workers and a hostile grade, against one worker and none.

    Both sides grade the same 100, others in every repeat: the killed grader's successor has seen none of them, and the
    lone one must not have them in its caches.
    """
    ours: list[float] = []
    peer: list[float] = []
    with _serving(2, limit_s=2.0) as two, _serving(1) as one:
        for repeat in range(-1, 1 if bench.quick else max(5, bench.repeats)):  # the first pair warms up
            beside = asyncio.run(_p99(two, repeat, hostile=True))
            alone = asyncio.run(_p99(one, repeat, hostile=False))
            if repeat >= 0:
                ours.append(beside)
                peer.append(alone)
            time.sleep(3)  # the killed grader's successor imports
    note = f"p99 of {_NEIGHBOURS} at once, 2 workers and a hostile one / 1 worker"
    return Row("verifier: beside a hostile completion / a worker fewer", "ms", ours, peer, NEIGHBOURS_GOAL, note)


async def _p99(url: str, repeat: int, hostile: bool) -> float:
    limits = httpx.Limits(max_connections=_NEIGHBOURS + 1)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:

        async def timed(k: int) -> float:
            started = time.perf_counter()
            constant = k + 1000 * (repeat + 2)
            item = {"completion": rf"so $x^2$ is \boxed{{x^2+{constant}}}", "gold": f"{constant}+x^2"}
            (await client.post("/v1/grade", json=item)).raise_for_status()
            return (time.perf_counter() - started) * 1000

        hostile_item = {"completion": _HOSTILE, "gold": "17"}
        slow = asyncio.ensure_future(client.post("/v1/grade", json=hostile_item)) if hostile else None
        taken = await asyncio.gather(*(timed(k) for k in range(_NEIGHBOURS)))
        if slow is not None:
            assert (await slow).json()["verdict"] == "timeout", "the hostile grade was none"
        return statistics.quantiles(taken, n=100)[98]


# --- plain processes -------------------------------------------------------------------------------------------


def _plain(pairs: list[Pair], processes: int, grade: Callable[[list[Pair]], Callable[[], None]]) -> float:
    """Grades a second of so many processes that call a grader directly."""
    context = multiprocessing.get_context("spawn")
    barrier, took = context.Barrier(processes), context.Queue()
    started = [
        context.Process(target=_timed, args=(grade, pairs[k::processes], barrier, took)) for k in range(processes)
    ]
    for process in started:
        process.start()
    slowest = max(took.get(timeout=300) for _ in started)
    for process in started:
        process.join()
    return len(pairs) / slowest


def _timed(grade: Callable[[list[Pair]], Callable[[], None]], pairs: list[Pair], barrier: Any, took: Any) -> None:
    run = grade(pairs)
    barrier.wait()
    started = time.perf_counter()
    run()
    took.put(time.perf_counter() - started)


def _by_math_verify(pairs: list[Pair]) -> Callable[[], None]:
    logging.disable(logging.CRITICAL)
    from chorus.benchmarks.verifier_quality import boxed

    boxed(Pair("warm up", r"$\boxed{\frac{1}{2}x+1}$", ("x/2+1",), True, ""))
    return lambda: _each(boxed, pairs)


def _by_our_grader(pairs: list[Pair]) -> Callable[[], None]:
    from chorus.benchmarks.verifier_quality import ours
    from chorus.reward_server.graders.registry import warm_up

    warm_up()
    return lambda: _each(ours, pairs)


def _each(accepts: Callable[[Pair], bool], pairs: list[Pair]) -> None:
    for pair in pairs:
        accepts(pair)
