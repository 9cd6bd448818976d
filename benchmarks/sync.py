"""A weight sync to a live generator, against a raw broadcast and a copy of the same bytes.

    total      offer ─▶ ................................................................. ─▶ report read by the learner
    transfer             bytes come beside the sampling, and layers are made ready
    pause                                                                 ─▶ put in place ─▶ sampling stands still

A raw broadcast goes before each sync, while the generator idles, and a copy of the buckets from memory to memory, on
the generator's cores. A small model shows the fixed cost of a sync, a large one what a byte costs. The pause is taken
by the engine's own clock, from the end of the last step under the old weights.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from chorus.benchmarks.bench import Bench
from chorus.benchmarks.fleet import Fleet, open_fleet
from chorus.benchmarks.machine import on_cores
from chorus.benchmarks.models import hundred_million, starter
from chorus.benchmarks.raw_broadcast import RawPeer, raw_peer
from chorus.benchmarks.report import Row, at_most
from chorus.protocol.messages import SyncReport

_DEADLINE_S = 120.0
_UNTIL_BUSY_S = 0.5


@dataclass(frozen=True)
class Measured:
    """Milliseconds of the raw broadcast, the copy and the whole sync, and what the generator says of it."""

    raw: float
    copy: float
    total: float
    report: SyncReport


def measure(bench: Bench) -> Iterator[Row]:
    yield from _small(bench)
    if not bench.quick:
        yield from _large(bench)


def _small(bench: Bench) -> Iterator[Row]:
    idle, busy, size = _syncs(bench, "starter", starter(bench), groups=0)
    yield Row("sync: pause", "ms", [m.report.pause_s * 1000 for m in busy], goal=at_most(10), note=f"{size}, sampling")
    yield Row(f"sync: total / raw, {size}", "ms", [m.total for m in idle], [m.raw for m in idle], note="idle")
    yield Row(f"sync: total / raw, {size}, sampling", "ms", [m.total for m in busy], [m.raw for m in busy])


def _large(bench: Bench) -> Iterator[Row]:
    idle, busy, size = _syncs(bench, "100 M", hundred_million(bench), groups=2)
    pauses = [m.report.pause_s * 1000 for m in busy]
    yield Row("sync: pause / copy", "ms", pauses, [m.copy for m in busy], at_most(1.3), f"{size}, sampling")
    yield Row("sync: total / raw", "ms", [m.total for m in idle], [m.raw for m in idle], at_most(1.3), f"{size}, idle")
    transfer = [m.report.transfer_s * 1000 for m in idle]
    yield Row(f"sync: transfer / raw, {size}", "ms", transfer, [m.raw for m in idle], note="idle")
    yield Row(f"sync: total / raw, {size}, sampling", "ms", [m.total for m in busy], [m.raw for m in busy])


def _syncs(bench: Bench, name: str, model: Path, groups: int) -> tuple[list[Measured], list[Measured], str]:
    """To an engine at rest, and to one that samples `groups` (0: as many as a run holds)."""
    # Eager: a large model is not compiled here, it is only loaded.
    config = bench.config(f"model.path={model}", 'generator.vllm_args=["--enforce-eager"]')
    label = name.replace(" ", "")
    with open_fleet(bench, f"sync-{label}", config) as fleet:
        sizes = [bucket.numel() for bucket in fleet.snapshot().buckets]
        cores = set(fleet.placement.generator_cpus[0])
        with raw_peer(sizes, 2 * (bench.repeats + 1), cores, bench.folder / f"raw-{label}.log") as peer:
            rounds = [[_sync(fleet, peer, cores, n) for _ in range(bench.repeats + 1)] for n in (0, groups or -1)]
    idle, busy = (measured[1:] for measured in rounds)  # the first one meets cold memory and a new process group
    return idle, busy, f"{sum(sizes) / 1e6:.1f} MB"


def _sync(fleet: Fleet, peer: RawPeer, cores: set[int], groups: int) -> Measured:
    """No sequence is lost: all groups that it met are collected."""
    groups = fleet.config.capacity if groups < 0 else groups
    snapshot = fleet.snapshot()
    raw_s = peer.send(snapshot.buckets)
    copy_s = _copy(snapshot.buckets, cores)
    if groups:
        fleet.admit(fleet.tasks(groups))
        time.sleep(_UNTIL_BUSY_S)
    total_s, report = fleet.sync(snapshot, _DEADLINE_S)
    if groups:
        fleet.collect(groups)
    return Measured(raw_s * 1000, copy_s * 1000, total_s * 1000, report)


def _copy(buckets: list[torch.Tensor], cores: set[int]) -> float:
    """Seconds for these bytes from memory to memory that is there already."""
    with on_cores(cores):
        there = [torch.zeros_like(bucket) for bucket in buckets]
        started = time.monotonic()
        for to, bucket in zip(there, buckets, strict=True):
            to.copy_(bucket)
        return time.monotonic() - started
