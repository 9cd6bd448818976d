"""A weight sync to a live generator against a raw broadcast of the same bytes.

    total      offer ─▶ ...................................................... ─▶ report read by the learner
    pause            sampling stands still: pause ─▶ transfer ─▶ resume
    transfer                                         bytes received, loaded, packed for the kernels

A raw broadcast goes before each sync, while the generator idles. A small model shows the fixed cost of a sync
(the engine's pause and vLLM's reload), a large one what a byte costs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from chorus.benchmarks.bench import Bench
from chorus.benchmarks.fleet import Fleet, open_fleet
from chorus.benchmarks.models import hundred_million, starter
from chorus.benchmarks.raw_broadcast import RawPeer, raw_peer
from chorus.benchmarks.report import Goal, Row, at_most
from chorus.protocol.messages import SyncReport

GOAL = at_most(1.3)
_DEADLINE_S = 120.0
_UNTIL_BUSY_S = 0.5


def measure(bench: Bench) -> Iterator[Row]:
    yield from _compare(bench, "starter", starter(bench), also_busy=True)
    if not bench.quick:
        yield from _compare(bench, "100 M", hundred_million(bench), also_busy=False)


def _compare(bench: Bench, name: str, model: Path, also_busy: bool) -> Iterator[Row]:
    # Eager: a large model is not compiled here, it is only loaded.
    config = bench.config(f"model.path={model}", 'generator.vllm_args=["--enforce-eager"]')
    label = name.replace(" ", "")
    with open_fleet(bench, f"sync-{label}", config) as fleet:
        sizes = [bucket.numel() for bucket in fleet.snapshot().buckets]
        rounds = (bench.repeats + 1) * (1 + also_busy)
        cores = set(fleet.placement.generator_cpus[0])
        with raw_peer(sizes, rounds, cores, bench.folder / f"raw-{label}.log") as peer:
            yield from _rows(name, sum(sizes), _idle(bench, fleet, peer), GOAL)
            if also_busy:
                yield from _rows(f"{name}, sampling", sum(sizes), _busy(bench, fleet, peer), None)


Measured = list[tuple[float, float, SyncReport]]  # raw seconds, total seconds, the generator's report


def _idle(bench: Bench, fleet: Fleet, peer: RawPeer) -> Measured:
    measured: Measured = []
    for _ in range(bench.repeats + 1):
        snapshot = fleet.snapshot()
        raw_s = peer.send(snapshot.buckets)
        measured.append((raw_s, *fleet.sync(snapshot, _DEADLINE_S)))
    return measured[1:]  # the first one meets cold memory and a new process group


def _busy(bench: Bench, fleet: Fleet, peer: RawPeer) -> Measured:
    """The generator has all the run's credits in its hands when the offer comes; no sequence is lost."""
    groups = fleet.config.capacity
    measured: Measured = []
    for _ in range(bench.repeats + 1):
        snapshot = fleet.snapshot()
        raw_s = peer.send(snapshot.buckets)
        fleet.admit(fleet.tasks(groups))
        time.sleep(_UNTIL_BUSY_S)
        measured.append((raw_s, *fleet.sync(snapshot, _DEADLINE_S)))
        fleet.collect(groups)
    return measured[1:]


def _rows(name: str, n_bytes: int, measured: Measured, goal: Goal | None) -> Iterator[Row]:
    raw = [1000 * raw_s for raw_s, _, _ in measured]
    note = f"{n_bytes / 1e6:.1f} MB, float32"
    transfer = [1000 * report.transfer_s for _, _, report in measured]
    yield Row(f"sync: transfer / raw broadcast, {name}", "ms", transfer, raw, goal, note)
    yield Row(f"sync: pause / raw broadcast, {name}", "ms", [1000 * r.pause_s for *_, r in measured], raw)
    yield Row(f"sync: total / raw broadcast, {name}", "ms", [1000 * t for _, t, _ in measured], raw)
