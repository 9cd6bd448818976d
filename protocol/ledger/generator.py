"""The generator's half of the ledger (asynchronous): lease, renew, release, commit, dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis
import redis.asyncio

from chorus.protocol.ledger import scripts
from chorus.protocol.ledger.accounting import lost
from chorus.protocol.ledger.keys import TASK_GROUP, Keys, Queue, admission_index, entries_of
from chorus.protocol.runtime.redis import is_full

_DEAD_KEPT = 10_000


@dataclass(frozen=True)
class Lease:
    """A task this generator holds. `attempt` counts deliveries from 1; None index: admitted by nobody."""

    id: str
    index: int | None
    payload: bytes
    attempt: int


class GeneratorLedger:
    """Leases live as long as they are renewed; after `lease_s` without renewal anybody may claim them.

    Methods raise LedgerLostError where the run's keys vanished.
    """

    def __init__(
        self, client: redis.asyncio.Redis, run: str, consumer: str, lease_s: float, queue: Queue = "train"
    ) -> None:
        self.client: Any = client  # redis-py's types cover replies that never come
        self.keys = Keys(run, queue)
        self.consumer = consumer
        self.lease_ms = int(lease_s * 1000)
        self._scripts = {
            name: client.register_script(getattr(scripts, name)) for name in ("RENEW", "RELEASE", "COMMIT", "DEAD")
        }

    async def _run(self, name: str, keys: list[str], args: Sequence[Any]) -> Any:
        try:
            return await self._scripts[name](keys=keys, args=args)
        except redis.ResponseError as error:
            if is_full(error):
                raise  # full is not gone
            raise lost(self.keys.run, error) from None

    async def lease(self, count: int, block_s: float) -> list[Lease]:
        """Up to `count` tasks: first what others let expire, then new ones, waiting up to `block_s`."""
        try:
            if claimed := await self._claim_expired(count):
                return claimed
            # Should its reply be lost, the tasks stay leased and unrenewed, and are claimed when they expire.
            reply = await self.client.xreadgroup(
                TASK_GROUP,
                self.consumer,
                {self.keys.tasks: ">"},
                count=count,
                block=max(1, int(block_s * 1000)) if block_s > 0 else None,
            )
        except redis.ResponseError as error:
            if is_full(error):
                raise
            raise lost(self.keys.run, error) from None
        return [_lease(id, fields, 1) for id, fields in entries_of(reply)]

    async def _claim_expired(self, count: int) -> list[Lease]:
        """One question while nothing has expired: Redis itself looks through the pending entries."""
        stream, idle = self.keys.tasks, self.lease_ms
        old = await self.client.xpending_range(stream, TASK_GROUP, min="-", max="+", count=count, idle=idle)
        if not old:
            return []
        # Of those that another generator claims meanwhile none is idle any more.
        ids = [entry["message_id"] for entry in old]
        claimed = await self.client.xclaim(stream, TASK_GROUP, self.consumer, idle, ids)
        leases = []
        for id, fields in claimed:
            pending = await self.client.xpending_range(stream, TASK_GROUP, min=id, max=id, count=1)
            if fields and pending:
                leases.append(_lease(id, fields, pending[0]["times_delivered"]))
        return leases

    async def renew(self, ids: Sequence[str]) -> set[str]:
        """Prolong the leases; returns those that are still this generator's."""
        if not ids:
            return set()
        held = await self._run("RENEW", [self.keys.tasks], [TASK_GROUP, self.consumer, *ids])
        return {id.decode() for id in held}

    async def release(self, ids: Sequence[str], count_try: bool = False) -> None:
        """Give tasks back; others may claim them at once. `count_try`: this delivery was a failed attempt."""
        if ids:
            args: list[Any] = [TASK_GROUP, self.consumer, self.lease_ms * 1000, 0 if count_try else 1, *ids]
            await self._run("RELEASE", [self.keys.tasks], args)

    async def commit(self, lease: Lease, payload: bytes) -> bool:
        """Publish the finished group. False: a twin was first, and this copy is void."""
        k = self.keys
        return bool(await self._run("COMMIT", [k.tasks, k.rollouts], [TASK_GROUP, lease.id, lease.index, payload]))

    async def bury(self, lease: Lease, reason: str, detail: str) -> None:
        """Take a task out for good: counted as dropped, kept in the dead-letter stream."""
        k = self.keys
        args = [TASK_GROUP, lease.id, reason, detail[:2000], _DEAD_KEPT]
        await self._run("DEAD", [k.tasks, k.accounts, k.dead, k.digests], args)


def _lease(id: bytes, fields: dict[bytes, bytes], attempt: int) -> Lease:
    return Lease(id.decode(), admission_index(fields), fields.get(b"d", b""), attempt)
