"""A live generator to measure, with everything it needs, started as `chorus run` starts it.

    Valkey, reward server, generator (agent + vLLM)     processes of their own, bound to the recipe's cores
    learner's place                                     this process: ledger, weights, one sync at the start

What is missing is the loop: nothing trains, so that one half can be looked at alone.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import redis
import torch
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from chorus.benchmarks.bench import Bench
from chorus.benchmarks.machine import on_cores
from chorus.deploy.placement import Placement, place, visible_cores
from chorus.deploy.services import Chosen, reward_server_service, services_of, valkey_service
from chorus.deploy.supervisor import Supervisor
from chorus.learner.rollouts.admission import Admission
from chorus.learner.training.distributed import DistributedTrainer, Snapshot
from chorus.learner.weight_sync.broadcaster import Broadcaster
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import LearnerLedger
from chorus.protocol.messages import RolloutGroup, SyncReport, Task, Version
from chorus.protocol.metrics.processes import LearnerMetrics
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.processes import free_port

_GENERATE_DEADLINE_S = 600.0
_WEIGHT_CHECKS = 6  # as many as the learner's loop sends


@dataclass
class Fleet:
    """`step` counts the weight syncs; everything is synchronous and called from one thread."""

    config: RunConfig
    placement: Placement
    supervisor: Supervisor
    ledger: LearnerLedger
    admission: Admission
    crew: DistributedTrainer
    broadcaster: Broadcaster
    step: int = 0

    def tasks(self, groups: int) -> list[Task]:
        """The next groups in admission order; they are the run's own prompts."""
        first = self.ledger.admitted()
        return [self.admission.task(first + k, min_version=0) for k in range(groups)]

    def admit(self, tasks: list[Task]) -> None:
        """Give the generator all of them at once."""
        payloads = [task.encode() for task in tasks]
        taken = self.ledger.admit(tasks[0].index, payloads, capacity=len(payloads))
        assert taken == len(tasks), "earlier groups are still outstanding"

    def collect(self, groups: int) -> list[RolloutGroup]:
        """Wait for so many committed groups and settle them in the accounts. Raises TimeoutError."""
        entries = []
        deadline = time.monotonic() + _GENERATE_DEADLINE_S
        while len(entries) < groups:
            entries += self.ledger.read(groups - len(entries), block_s=1.0)
            self.supervisor.tick()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(entries)} of {groups} groups after {_GENERATE_DEADLINE_S:g} s")
        ids = [entry.id for entry in entries]
        self.ledger.trained(self.step, ids)
        self.ledger.durable(self.step, ids)
        self.ledger.trim()
        return [RolloutGroup.decode(entry.payload) for entry in entries]

    def snapshot(self) -> Snapshot:
        """The weights in host memory under a new version, as the learner's loop takes them after a step."""
        self.step += 1
        prefixes = [self.admission.at(k)[1].ids for k in range(_WEIGHT_CHECKS)]
        return self.crew.snapshot(Version(fence=self.ledger.fence, step=self.step), prefixes)

    def sync(self, snapshot: Snapshot, deadline_s: float) -> tuple[float, SyncReport]:
        """(seconds from publishing to the generator's report, the report). Raises TimeoutError."""
        started = time.monotonic()
        self.broadcaster.publish(snapshot)
        while self.broadcaster.wait_synced(1, 1.0) == 0:
            self.supervisor.tick()
            if time.monotonic() - started > deadline_s:
                raise TimeoutError(f"the generator had not taken its weights after {deadline_s:g} s")
        took = time.monotonic() - started
        (link,) = self.broadcaster.links.values()
        assert link.report is not None
        return took, link.report

    def cpu_ms(self) -> Counter[str]:
        """Milliseconds of processor time so far, by kind of process; `learner's side` is this process."""
        spent: Counter[str] = Counter()
        for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
            times = process.cpu_times()
            spent[_kind(process)] += round(1000 * (times.user + times.system))
        return spent


def _kind(process: psutil.Process) -> str:
    line = " ".join(process.cmdline())
    if process.pid == os.getpid():
        return "learner's side"
    for word, kind in _KINDS.items():
        if word in line:
            return kind
    return "other"


# What stands in a command line, the first that fits.
_KINDS = {
    "guard.py": "other",
    "generator.vllm_process": "engine",
    " generator ": "agent",
    "reward": "reward server",
    "valkey": "Valkey",
}


def completion_tokens(groups: list[RolloutGroup]) -> int:
    return sum(sample.n_tokens for group in groups for sample in group.samples)


@contextmanager
def open_fleet(bench: Bench, name: str, config: RunConfig) -> Iterator[Fleet]:
    """Start all, wait until the generator has our weights (about a minute), and stop all at the end."""
    folder = bench.folder / name
    (folder / "logs").mkdir(parents=True)
    placement = place(config, visible_cores(), gpus=[])
    config = config.model_copy(
        update={
            "redis": config.redis.model_copy(update={"url": f"redis://127.0.0.1:{free_port()}/0"}),
            "reward": config.reward.model_copy(update={"url": f"http://127.0.0.1:{free_port()}"}),
        }
    )
    (folder / "config.json").write_text(config.model_dump_json(indent=2), encoding="utf-8")
    chosen = Chosen(config, RunFolder(folder), placement, own_redis=True, own_reward_server=True, resumed=False)
    supervisor = Supervisor(folder / "logs", bench.say)
    bench.say(f"{folder}: starting, {placement.describe()}")
    try:
        supervisor.start(valkey_service(chosen))
        client = redis.Redis.from_url(config.redis.url, retry=Retry(ConstantBackoff(0.1), 300))
        client.ping()
        supervisor.start(reward_server_service(chosen))
        for service in services_of(chosen):
            if service.role == "generator":
                supervisor.start(service)
        with on_cores(placement.learner_cpus):
            fleet = _learner_side(config, folder, placement, supervisor, client)
            try:
                start_s = config.generator.start_deadline_s + config.learner.sync_deadline_s
                fleet.sync(fleet.snapshot(), start_s)
                yield fleet
            finally:
                fleet.broadcaster.close()
    finally:
        supervisor.stop()


def _learner_side(
    config: RunConfig, folder: Path, placement: Placement, supervisor: Supervisor, client: redis.Redis
) -> Fleet:
    ledger = LearnerLedger(client, folder.name)
    LearnerLedger(client, folder.name, "eval", ledger.fence)  # the generator leases from both queues
    crew = DistributedTrainer(config, torch.device("cpu"), None)
    broadcaster = Broadcaster(config, client, folder.name, "gloo", crew.device, LearnerMetrics())
    return Fleet(config, placement, supervisor, ledger, Admission(config, folder.name), crew, broadcaster)
