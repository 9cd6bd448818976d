"""The ledger's accounts and the fleet as Prometheus metrics, read from Redis whenever they are asked for.

One exporter a run: the learner's rank 0. It asks over a connection of its own that gives up soon and never tries
again, so that a Redis that stands still costs a scrape two seconds and the learner nothing: `chorus_ledger_up` is then
0, and the accounts are not there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, get_args

import redis
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from chorus.protocol.ledger import Accounts, Keys, LedgerLostError, read_accounts
from chorus.protocol.messages import GONE_AFTER_S, Member, MemberState, MessageError
from chorus.protocol.runtime.redis import server_time

MEMBER_STATES = (*get_args(MemberState), "gone", "unreadable")
# Exported from the start: of a counter that appears with its first drop, Prometheus would not see that drop.
_REASONS = ("attempts", "corrupt", "copy", "filtered", "nonfinite", "stale", "ungraded")
_OUTSTANDING = {
    "queued": "queued (the lag of the tasks stream)",
    "leased": "leased by a generator",
    "unread": "unread (the lag of the rollouts stream)",
    "read": "read by the learner",
}


class LedgerCollector(Collector):
    """Register it where the learner's metrics are. `client` must never block for long."""

    def __init__(self, client: redis.Redis, run: str) -> None:
        self._client: Any = client
        self._keys = Keys(run)

    def describe(self) -> Iterable[Metric]:
        """Names alone, so that registering asks nothing of Redis."""
        empty = Accounts(0, 0, 0, {}, 0, 0, 0, 0, 0, 0, 0)
        return [_up(0), *_accounts(empty, 0), _fleet([], 0.0), _memory(0)]

    def collect(self) -> Iterator[Metric]:
        try:
            accounts = read_accounts(self._client, self._keys)
            dead = int(self._client.xlen(self._keys.dead))
            members = list(self._client.hgetall(self._keys.members).values())
            now = server_time(self._client)
            memory = int(self._client.info("memory")["used_memory"])
        except (redis.RedisError, LedgerLostError):
            yield _up(0)
            return
        yield _up(1)
        yield from _accounts(accounts, dead)
        yield _fleet(members, now)
        yield _memory(memory)


def _up(value: int) -> Metric:
    return GaugeMetricFamily("chorus_ledger_up", "1 if the run's ledger could be read from Redis", value)


def _memory(used: int) -> Metric:
    return GaugeMetricFamily("chorus_ledger_redis_memory_bytes", "Memory that the Redis server uses", used)


def _accounts(accounts: Accounts, dead: int) -> Iterator[Metric]:
    """`trained` falls when a crash undoes steps, so it is no counter."""
    yield CounterMetricFamily("chorus_ledger_admitted_groups", "Groups admitted", accounts.admitted)
    yield GaugeMetricFamily("chorus_ledger_trained_groups", "Groups trained, in a checkpoint or not", accounts.trained)
    yield CounterMetricFamily("chorus_ledger_durable_groups", "Groups whose step a checkpoint holds", accounts.durable)
    dropped = CounterMetricFamily("chorus_ledger_dropped_groups", "Groups dropped, by reason", labels=["reason"])
    for reason, count in {**dict.fromkeys(_REASONS, 0), **accounts.dropped}.items():
        dropped.add_metric([reason], count)
    yield dropped
    text = f"Groups admitted, not trained, not dropped: {', '.join(_OUTSTANDING.values())}"
    outstanding = GaugeMetricFamily("chorus_ledger_outstanding_groups", text, labels=["state"])
    for state in _OUTSTANDING:
        outstanding.add_metric([state], getattr(accounts, state))
    yield outstanding
    yield GaugeMetricFamily(
        "chorus_ledger_difference_groups",
        "Admitted - trained - dropped - outstanding: 0 when nothing is lost and nothing doubled",
        accounts.difference,
    )
    yield CounterMetricFamily(
        "chorus_ledger_foreign_entries", "Entries that nobody admitted, refused", accounts.foreign
    )
    yield GaugeMetricFamily("chorus_ledger_dead_letters", "Tasks in the dead-letter stream, 10,000 at most", dead)


def _fleet(members: list[bytes], now: float) -> Metric:
    found = Counter(_state(data, now) for data in members)
    fleet = GaugeMetricFamily(
        "chorus_ledger_generators",
        f"Registered generators by state; gone: no heartbeat for {GONE_AFTER_S:g} s",
        labels=["state"],
    )
    for state in MEMBER_STATES:
        fleet.add_metric([state], found[state])
    return fleet


def _state(data: bytes, now: float) -> str:
    try:
        member = Member.decode(data)
    except MessageError:
        return "unreadable"
    return member.state if member.alive(now) else "gone"
