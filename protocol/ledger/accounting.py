"""The accounts: what became of every admitted group, counted from Redis alone.

An entry that somebody else wrote into a stream (an unknown one) is not a group: it is not outstanding, and once a
reader has refused it, it is counted as foreign. Looking for them means looking into every live entry, so it
is done only where the accounts do not balance without it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import redis

from chorus.protocol.ledger import scripts
from chorus.protocol.ledger.keys import ROLLOUT_GROUP, TASK_GROUP, Keys


class LedgerLostError(RuntimeError):
    """The run's keys are gone from Redis, or were never there."""


def lost(run: str, why: object) -> LedgerLostError:
    """What a process says whose run vanished under it."""
    return LedgerLostError(
        f"the ledger of run {run!r} is gone from Redis ({why}): was the server flushed or replaced? "
        "Start a new run; a checkpoint of this one can be its model.path"
    )


@dataclass(frozen=True)
class Accounts:
    """`trained` = durable + trained and not yet durable. `foreign` entries were admitted by nobody, and are
    refused; `unknown` such entries that nobody has read yet."""

    admitted: int
    trained: int
    durable: int
    dropped: dict[str, int]
    outstanding: int
    queued: int
    leased: int
    unread: int
    read: int
    foreign: int
    unknown: int

    @property
    def difference(self) -> int:
        """0 when nothing is lost and nothing doubled."""
        return self.admitted - self.trained - sum(self.dropped.values()) - self.outstanding

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"difference": self.difference}


def read_accounts(client: redis.Redis, keys: Keys) -> Accounts:
    """Count. Raises LedgerLostError where the run has no ledger."""
    accounts = _count(client, keys, unknown=False)
    return accounts if accounts.difference == 0 else _count(client, keys, unknown=True)


def _count(client: redis.Redis, keys: Keys, unknown: bool) -> Accounts:
    """Read in one transaction, so that a group in motion is not seen twice or not at all."""
    pipe = client.pipeline(transaction=True)
    pipe.hgetall(keys.accounts)
    pipe.hlen(keys.trained)
    pipe.xinfo_groups(keys.tasks)
    pipe.xinfo_groups(keys.rollouts)
    if unknown:
        pipe.eval(scripts.UNKNOWN, 1, keys.tasks, TASK_GROUP)
        pipe.eval(scripts.UNKNOWN, 1, keys.rollouts, ROLLOUT_GROUP)
    try:
        counts, fresh, task_groups, rollout_groups, *found = pipe.execute()
    except redis.ResponseError as error:
        raise LedgerLostError(f"run {keys.run!r} has no ledger on this Redis ({error})") from None
    counters = {field.decode(): int(value) for field, value in counts.items() if field != b"last_admission"}
    queued, leased = _unread_and_pending(client, keys.tasks, TASK_GROUP, task_groups)
    unread, pending = _unread_and_pending(client, keys.rollouts, ROLLOUT_GROUP, rollout_groups)
    read = pending - fresh
    durable = counters.get("durable", 0)
    return Accounts(
        admitted=counters.get("admitted", 0),
        trained=durable + fresh,
        durable=durable,
        dropped={k.removeprefix("dropped:"): v for k, v in counters.items() if k.startswith("dropped:")},
        outstanding=queued + leased + unread + read - sum(found),
        queued=queued,
        leased=leased,
        unread=unread,
        read=read,
        foreign=counters.get("foreign", 0),
        unknown=sum(found),
    )


def _unread_and_pending(client: redis.Redis, stream: str, group: str, groups: list[dict[str, Any]]) -> tuple[int, int]:
    for info in groups:
        if info["name"].decode() == group:
            lag = info["lag"]
            if lag is None:  # Redis lost count (an entry was deleted by hand): count the entries themselves
                after = b"(" + info["last-delivered-id"]
                unread: Any = client.xrange(stream, min=after.decode())
                lag = len(unread)
            return int(lag), int(info["pending"])
    raise LedgerLostError(f"stream {stream} has no consumer group {group}")
