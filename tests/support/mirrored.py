"""A simulated fleet whose every move is made on a real ledger too, and its metrics as Prometheus would scrape them.

The simulation says when; Valkey says what. So the lag that KEDA reads is Valkey's own, at simulated moments.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import redis
from autoscaler import SYNC_S, Autoscaler

from chorus.deploy.simulator.engine import Generator, Group
from chorus.deploy.simulator.fleet import Fleet
from chorus.deploy.simulator.pace import Pace
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import LearnerLedger, scripts
from chorus.protocol.ledger.keys import TASK_GROUP
from chorus.protocol.metrics.waits import WaitShare

SCRAPE_S = 15.0


class MirroredFleet(Fleet):
    """Every admission, lease, commit and training step happens on `client` as well, and must agree with it."""

    def __init__(self, config: RunConfig, pace: Pace, client: redis.Redis, run: str) -> None:
        self.client: Any = client
        self.ledger = LearnerLedger(client, run)
        self._published = 0
        self._entries: dict[int, str] = {}
        super().__init__(config, pace)
        self.share = WaitShare(clock=lambda: self.now)  # behind chorus_learner_wait_ratio
        self.share.begin()
        self._began = self._waited = 0.0

    def lag(self) -> int:
        """What KEDA's redis-streams trigger reads."""
        groups = self.client.xinfo_groups(self.ledger.keys.tasks)
        return next(g["lag"] for g in groups if g["name"].decode() == TASK_GROUP)

    def _hand_out(self) -> None:
        if fresh := [str(k).encode() for k in range(self._published, self._admitted)]:
            assert self.ledger.admit(self._published, fresh, self.config.capacity) == len(fresh)
            self._published = self._admitted
        super()._hand_out()

    def _leased(self, generator: Generator, group: Group) -> None:
        reply = self.client.xreadgroup(TASK_GROUP, f"gen-{id(generator)}", {self.ledger.keys.tasks: ">"}, count=1)
        entry, fields = reply[self.ledger.keys.tasks.encode()][0][0] if isinstance(reply, dict) else reply[0][1][0]
        assert int(fields[b"i"]) == group.index
        self._entries[group.index] = entry.decode()
        super()._leased(generator, group)

    def _commit(self, generator: Generator, group: Group) -> None:
        keys, entry = self.ledger.keys, self._entries.pop(group.index)
        arguments = (keys.tasks, keys.rollouts, TASK_GROUP, entry, group.index, b"")
        assert self.client.eval(scripts.COMMIT, 2, *arguments) == 1
        super()._commit(generator, group)

    def _train(self, groups: list[Group]) -> None:
        super()._train(groups)
        self._waited = self.now - self._began
        self.share.worked()

    def _trained(self, groups: list[Group]) -> None:
        self._entries |= {entry.index or 0: entry.id for entry in self.ledger.read(1000, 0.001)}
        ids = [self._entries.pop(group.index) for group in groups]
        assert self.ledger.trained(self.done + 1, ids) == len(ids)
        self.ledger.durable(self.done + 1, ids)
        self.ledger.trim()
        self.share.end(self._waited, self.now - self._began)
        self.share.begin()
        self._began = self.now
        super()._trained(groups)


@dataclass
class Scraped:
    """Samples as Prometheus keeps them: name of a series -> (time, value) in order."""

    series: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def add(self, name: str, time: float, value: float) -> None:
        self.series.setdefault(name, []).append((time, value))

    def average(self, name: str, now: float, window_s: float) -> float:
        """avg_over_time(name[window])"""
        values = [v for _, v in self._inside(self.series.get(name, []), now, window_s)]
        return sum(values) / len(values) if values else 0.0

    @staticmethod
    def _inside(samples: list[tuple[float, float]], now: float, window_s: float) -> list[tuple[float, float]]:
        """The newest samples, as far back as the window reaches."""
        inside = list(takewhile(lambda sample: sample[0] > now - window_s, reversed(samples)))
        return inside[::-1]

    def mean_rate(self, prefix: str, now: float, window_s: float) -> float | None:
        """avg(rate(prefix[window])) over all series of that name."""
        found = [
            self._inside(samples, now, window_s) for name, samples in self.series.items() if name.startswith(prefix)
        ]
        rates = [_rate(inside, now, window_s) for inside in found if len(inside) > 1]
        return sum(rates) / len(rates) if rates else None


def _rate(samples: list[tuple[float, float]], now: float, window_s: float) -> float:
    """As Prometheus extrapolates: to the window's edges where they are near, by half an interval where they are not."""
    (first_t, first), (last_t, last) = samples[0], samples[-1]
    lasted, grown = last_t - first_t, last - first
    interval = lasted / (len(samples) - 1)
    before, after = first_t - (now - window_s), now - last_t
    if grown > 0:
        before = min(before, lasted * first / grown)  # a counter was never below 0
    reach = lasted + sum(edge if edge < 1.1 * interval else interval / 2 for edge in (before, after))
    return grown * reach / lasted / window_s


@dataclass
class Moment:
    """What was read and decided at one moment."""

    at: float
    values: dict[str, float]
    replicas: int
    ready: int


def autoscale(
    fleet: MirroredFleet, autoscaler: Autoscaler, seconds: float, load_s: float
) -> tuple[list[Moment], Scraped]:
    """Let the autoscaler lead the fleet; a new generator takes `load_s` until it is ready."""
    scraped, moments = Scraped(), []
    pods = [fleet.join(0.0) for _ in range(autoscaler.current)]
    names = {id(pod): k for k, pod in enumerate(pods)}
    while fleet.now < seconds:
        fleet.run(until_s=fleet.now + SYNC_S)
        ready = [pod for pod in pods if pod in fleet.generators]
        for pod in fleet.generators:
            pod.advance(fleet.now)
            scraped.add(f"busy/{names[id(pod)]}", fleet.now, pod.held_s)
        scraped.add("wait_ratio", fleet.now, fleet.share.ratio())
        scraped.add("step", fleet.now, fleet.done)
        busy = scraped.mean_rate("busy/", fleet.now, 600.0)
        values = {
            "queued": float(fleet.lag()),
            "waiting": scraped.average("wait_ratio", fleet.now, 120.0) if fleet.done >= 10 else 0.0,
            "idle": 0.0 if busy is None else 1.0 - busy,
        }
        replicas = autoscaler.decide(fleet.now, values, len(ready))
        moments.append(Moment(fleet.now, values, replicas, len(ready)))
        while len(pods) < replicas:
            pods.append(fleet.join(load_s))
            names[id(pods[-1])] = len(names)
        while len(pods) > replicas:
            fleet.leave(pods.pop())
    return moments, scraped
