"""Whose ledger this is: a run's id, and the marks by which its folder and its ledger know each other again.

    folder's identity.json   id  marks of its last starts          ledger   id  mark of its last start
    every start              a new mark, into the folder first     then into the ledger

A ledger whose mark a folder does not know has gone on with another folder: one of the two is a copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis

from chorus.protocol.ledger.keys import ROLLOUT_GROUP, TASK_GROUP, Keys, Queue


@dataclass(frozen=True)
class LedgerState:
    """What a run's keys say before anybody joins. `id`: empty in a ledger of before there were ids.

    `folder` and `host`: where its last start lay.
    """

    fence: int
    durable: int
    id: str = ""
    mark: str = ""
    folder: str = ""
    host: str = ""


def read_state(client: redis.Redis, run: str) -> LedgerState | None:
    """None where the run has no ledger on this server."""
    keys, plain = Keys(run), client.pipeline(transaction=True)
    plain.get(keys.fence)
    plain.hget(keys.accounts, "durable")
    plain.hgetall(keys.identity)
    fence, durable, fields = plain.execute()
    if fence is None and not fields:
        return None
    known: dict[str, Any] = {k.decode(): v.decode() for k, v in fields.items()}
    named = {name: known.get(name, "") for name in ("id", "mark", "folder", "host")}
    return LedgerState(int(fence or 0), int(durable or 0), **named)


def write_identity(client: redis.Redis, run: str, fields: Mapping[str, str]) -> None:
    """`fields`: id, mark, folder, host."""
    client.hset(Keys(run).identity, mapping=dict(fields))


def begin_anew(client: redis.Redis, run: str, fence: int, first_index: int) -> None:
    """An empty ledger in place of what there is: learner starts count from above `fence`, groups from `first_index`.

    In one transaction: no generator finds half a ledger.
    """
    queues: tuple[Queue, ...] = ("train", "eval")
    keep = Keys(run).owner.encode()
    old = [key for key in client.scan_iter(f"chorus:{_literally(run)}:*", count=1000) if key != keep]
    pipe = client.pipeline(transaction=True)
    if old:
        pipe.delete(*old)
    pipe.set(Keys(run).fence, fence)
    pipe.hset(Keys(run).accounts, "first", first_index)
    for queue in queues:
        for stream, group in ((Keys(run, queue).tasks, TASK_GROUP), (Keys(run, queue).rollouts, ROLLOUT_GROUP)):
            pipe.xgroup_create(stream, group, id="0", mkstream=True)
    pipe.execute()


def _literally(run: str) -> str:
    """A name as a pattern of Redis' SCAN."""
    return "".join(f"\\{c}" if c in "*?[]\\^-" else c for c in run)
