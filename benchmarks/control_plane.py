"""What carries the groups: ledger, heartbeats and weight sync for fleets of 8 to 64 generators that compute nothing.

    scripted     64 real agents in two processes (scripted.py): every generator works on two groups, a second each
    learner      this process: admission, ledger, collector, broadcaster as in a run; a step is trained by doing nothing
    Valkey       as `chorus run` starts it

The load grows with the fleet, so what it costs a group has to stay as it is: where it grows, something costs the square
of the fleet. At last, one group of 16 x 32k tokens goes the same way.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median

import numpy as np
import psutil
import torch

from chorus.benchmarks.bench import Bench
from chorus.benchmarks.models import without_weights
from chorus.benchmarks.report import Row, at_least, at_most
from chorus.benchmarks.scripted import ScriptedRun, scripted_run
from chorus.learner.rollouts.admission import Admission
from chorus.learner.rollouts.collector import Collector
from chorus.learner.training.distributed import Snapshot
from chorus.learner.training.experience import make_experience
from chorus.learner.weight_sync.broadcaster import Broadcaster
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import LearnerLedger
from chorus.protocol.messages import Version
from chorus.protocol.metrics.processes import LearnerMetrics
from chorus.protocol.weights import describe, new_buckets, plan_buckets

FLEETS = (8, 16, 32, 64)
RATE = at_least(0.9)  # of what the generators would do if nothing held them up
GROWTH = at_most(1.25)  # of what a group costs, with eight times the generators
FLAT = at_most(1.1)
_TOKENS = 25  # of an answer
_DELAY_S = 1.0  # of a group; a generator works on two at once
_SYNCS = 3
_DEADLINE_S = 300.0  # generators that start on a busy machine import for a while


def measure(bench: Bench) -> Iterator[Row]:
    fleets = (2, 4) if bench.quick else FLEETS
    seen = {}
    for generators in fleets:
        seen[generators] = _fleet(bench, generators)
        bench.say(f"{generators} generators: {seen[generators]}")
    first, last = seen[fleets[0]], seen[fleets[-1]]
    most, least = fleets[-1], fleets[0]
    offered = [2 * most / _DELAY_S] * len(last.rates)
    yield Row(f"control plane: groups, {most} generators", "groups/s", last.rates, offered, RATE)
    for who in ("learner's side", "Valkey", "generators"):
        each = ", ".join(f"{n}: {median(load.cpu_ms[who]):.2f}" for n, load in seen.items())
        name = f"control plane: {who} a group, {most} / {least} generators"
        yield Row(name, "ms", last.cpu_ms[who], first.cpu_ms[who], GROWTH, f"medians by fleet: {each}")
    each = ", ".join(f"{n}: {median(load.synced_s):.2f} ({load.first_sync_s:.2f})" for n, load in seen.items())
    note = f"medians by fleet, and the first one, for which groups of processes are made: {each}"
    yield Row(f"control plane: publish to the {most}th verified", "s", last.synced_s, note=note)
    began, ended = last.mib[0], last.mib[-1]
    note = f"learner's side and Valkey, the last of {len(last.mib)} looks against the first"
    yield Row("control plane: memory, end / begin", "MiB", [ended], [began], FLAT, note)
    yield from _long_group(bench)


@dataclass
class _Load:
    """One fleet. By window: rates in groups/s, cpu_ms of a group by who. synced_s: from publishing to the last."""

    rates: list[float] = field(default_factory=list)
    cpu_ms: dict[str, list[float]] = field(default_factory=dict)
    synced_s: list[float] = field(default_factory=list)
    first_sync_s: float = 0.0
    mib: list[float] = field(default_factory=list)


def _fleet(bench: Bench, generators: int) -> _Load:
    config = bench.config(
        f"model.path={without_weights(bench)}",
        f"learner.groups_per_step={generators}",
        "generator.groups_in_flight=2",
        "staleness.target=1",
        "staleness.max=8",
        "run.steps=1000000",
    )
    load, windows, steps = _Load(), bench.repeats, 3 if bench.quick else 8
    answers = np.full((1, _TOKENS), 5, np.int32)
    with (
        scripted_run(bench, f"control-{generators}", config, generators, answers, _DELAY_S) as scripted,
        _learner(scripted) as learner,
    ):
        load.first_sync_s = learner.publish(generators)
        for _ in range(2):
            learner.step()
        for _ in range(windows):
            before, started, groups = learner.cpu_ms(), time.monotonic(), 0
            for _ in range(steps):
                groups += learner.step()
            load.rates.append(groups / (time.monotonic() - started))
            spent = learner.cpu_ms()
            for who in spent:
                load.cpu_ms.setdefault(who, []).append((spent[who] - before[who]) / groups)
            load.mib.append(learner.mib())
        for _ in range(_SYNCS):
            learner.step()
            load.synced_s.append(learner.publish(generators))
    return load


@dataclass
class _Learner:
    """The learner's part in it, in one thread; the broadcaster has its own."""

    scripted: ScriptedRun
    ledger: LearnerLedger
    groups: Collector
    weights: Broadcaster
    done: int = 0
    offered: int = 0

    def publish(self, generators: int) -> float:
        """Seconds until all generators have verified a new version. Raises TimeoutError."""
        started = time.monotonic()
        self._offer()
        if self.weights.wait_synced(generators, _DEADLINE_S, self.scripted.check) < generators:
            raise TimeoutError(f"not all of {generators} generators had their weights after {_DEADLINE_S:g} s")
        return time.monotonic() - started

    def _offer(self) -> None:
        plan = plan_buckets(describe([("w", torch.zeros(1024))], "float32"), 4096)
        version = Version(fence=self.ledger.fence, step=self.offered)
        self.weights.publish(Snapshot(version, plan, new_buckets(plan), []))
        self.offered += 1

    def step(self) -> int:
        """Collect, record, train by doing nothing, admit, publish, and all that a checkpoint does to the ledger."""
        rollouts = self.groups.next_step(self.done, 1_000_000, self.scripted.check)
        ids = [rollout.entry.id for rollout in rollouts]
        self.ledger.record(self.done + 1, ids)
        self.ledger.trained(self.done + 1, ids)
        self.done += 1
        self.groups.trained(rollouts)
        self.groups.admit(self.done, 1_000_000)
        self._offer()
        self.ledger.durable(self.done, ids)
        self.ledger.trim()
        return len(ids)

    def cpu_ms(self) -> Counter[str]:
        """Milliseconds of processor time so far."""
        kinds = {"learner's side": [psutil.Process().pid], "Valkey": [self.scripted.valkey]}
        kinds["generators"] = [process.pid for process in self.scripted.generators]
        spent: Counter[str] = Counter()
        for who, pids in kinds.items():
            times = [psutil.Process(pid).cpu_times() for pid in pids]
            spent[who] = round(1000 * sum(t.user + t.system for t in times))
        return spent

    def mib(self) -> float:
        """What this process and Valkey hold."""
        return (
            sum(psutil.Process(pid).memory_info().rss for pid in (psutil.Process().pid, self.scripted.valkey)) / 2**20
        )


@contextmanager
def _learner(scripted: ScriptedRun) -> Iterator[_Learner]:
    config, client = scripted.config, scripted.client
    ledger = LearnerLedger(client, scripted.id)
    LearnerLedger(client, scripted.id, "eval", ledger.fence)  # generators lease from both queues
    metrics = LearnerMetrics()
    weights = Broadcaster(config, client, scripted.id, "gloo", torch.device("cpu"), metrics)
    try:
        yield _Learner(scripted, ledger, Collector(config, ledger, Admission(config, scripted.id), metrics), weights)
    finally:
        weights.close()


def _long_group(bench: Bench) -> Iterator[Row]:
    """Groups as long as a reasoning model's, from the admission to the tokens that are trained."""
    size, tokens = (2, 1024) if bench.quick else (16, 32768)
    config = bench.config(
        f"model.path={without_weights(bench)}",
        f"model.context={tokens + 64}",
        f"sampling.group_size={size}",
        f"sampling.max_tokens={tokens}",
        "learner.groups_per_step=1",
        "generator.groups_in_flight=1",
        "run.steps=1000000",
    )
    seconds: list[float] = []
    answers = np.random.default_rng(0).integers(3, 200, (size, tokens), np.int32)
    with scripted_run(bench, "control-long", config, 1, answers, 0.0) as scripted, _learner(scripted) as learner:
        learner.publish(1)
        for _ in range(bench.repeats):
            seconds.append(_one_long(learner, config, size * tokens))
    note = "one at a time: sampled by nobody, committed, read, checked, made into sequences"
    yield Row(f"control plane: a group of {size} x {tokens:,} tokens", "s", seconds, note=note)


def _one_long(learner: _Learner, config: RunConfig, tokens: int) -> float:
    started = time.monotonic()
    rollouts = learner.groups.next_step(learner.done, 1_000_000, learner.scripted.check)
    trained = sum(len(s.completion) for s in make_experience(rollouts, config).sequences)
    assert trained == tokens, f"{trained} of {tokens} tokens came through"
    ids = [rollout.entry.id for rollout in rollouts]
    learner.done += 1
    learner.ledger.trained(learner.done, ids)
    learner.ledger.durable(learner.done, ids)
    learner.groups.trained(rollouts)
    learner.ledger.trim()
    return time.monotonic() - started
