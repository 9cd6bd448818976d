"""The learner's half of the ledger (synchronous): admit, read, record, train, make durable, drop."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
import redis

from chorus.protocol.ledger import scripts
from chorus.protocol.ledger.accounting import Accounts, LedgerLostError, lost, read_accounts
from chorus.protocol.ledger.keys import ROLLOUT_GROUP, TASK_GROUP, Keys, Queue, admission_index, entries_of
from chorus.protocol.messages import RolloutGroup
from chorus.protocol.runtime.redis import is_full

_CONSUMER = "learner"


class FencedError(RuntimeError):
    """A newer learner has taken over this run; this one must stop and change nothing more."""


class IndexTakenError(LedgerLostError):
    """Somebody else has admitted to this queue since its count was read."""


@dataclass(frozen=True)
class Entry:
    """One entry of the rollouts stream. `index` is None where nobody admitted it.

    `digest`: of the task that was admitted at `index`; None where none is open there.
    """

    id: str
    index: int | None
    payload: bytes
    digest: str | None = None


def digest_of(task: bytes) -> str:
    """What the ledger keeps of a task's payload: SHA-1, which Redis's scripts know too."""
    return hashlib.sha1(task).hexdigest()


class LearnerLedger:
    """All of the learner's changes, fenced: the newest learner start alone may make them.

    Every method raises FencedError after a takeover and LedgerLostError where the keys vanished.
    """

    def __init__(self, client: redis.Redis, run: str, queue: Queue = "train", fence: int | None = None) -> None:
        self.client: Any = client  # redis-py's types cover replies that never come
        self.keys = Keys(run, queue)
        for stream, group in ((self.keys.tasks, TASK_GROUP), (self.keys.rollouts, ROLLOUT_GROUP)):
            try:
                client.xgroup_create(stream, group, id="0", mkstream=True)
            except redis.ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
        self.fence = int(client.incr(self.keys.fence)) if fence is None else fence
        self._last_read = "0"
        self._scripts = {name: client.register_script(getattr(scripts, name)) for name in _NAMES}

    def _run(self, name: str, keys: list[str], args: Sequence[Any]) -> int:
        try:
            return self._scripts[name](keys=keys, args=args)
        except redis.ResponseError as error:
            text = str(error)
            if text.startswith("FENCED"):
                raise FencedError(f"run {self.keys.run!r}: this learner was {text.lower()}; it stops") from None
            if text.startswith("TAKEN"):
                raise IndexTakenError(f"run {self.keys.run!r}: index {text.lower()}") from None
            if text.startswith(("LOST", "NOGROUP")):
                raise lost(self.keys.run, text) from None
            raise

    def advance(self) -> int:
        """A new fence for the same learner: its versions from now on begin a new lineage of weights."""
        self.fence = self._run("ADVANCE", [self.keys.fence, self.keys.advanced], [self.fence, secrets.token_hex(8)])
        return self.fence

    def admitted(self) -> int:
        """The index of the next group: those admitted so far, from the lineage's first one on."""
        return sum(int(n or 0) for n in self.client.hmget(self.keys.accounts, "first", "admitted"))

    def admit(self, first_index: int, payloads: Sequence[bytes], capacity: int) -> int:
        """Publish tasks while fewer than `capacity` groups are outstanding. Returns how many it took.

        Raises IndexTakenError where `first_index` is admitted already and not by these payloads.
        """
        k = self.keys
        return self._run(
            "ADMIT",
            [k.fence, k.tasks, k.accounts, k.trained, k.digests],
            [self.fence, capacity, first_index, *payloads],
        )

    def read(self, count: int, block_s: float) -> list[Entry]:
        """Up to `count` new rollouts, oldest first; waits up to `block_s` for the first one.

        What was delivered in a reply that never arrived comes first, and what an earlier learner had read.
        """
        return self._read(self._last_read, count, 0.0) or self._read(">", count, block_s)

    def reread(self) -> list[Entry]:
        """What an earlier learner had read and nobody acknowledged, oldest first."""
        entries: list[Entry] = []
        last = "0"
        while page := self._read(last, 1000, 0.0):
            entries += page
            last = page[-1].id
        return entries

    def _read(self, after: str, count: int, block_s: float) -> list[Entry]:
        try:
            reply = self.client.xreadgroup(
                ROLLOUT_GROUP,
                _CONSUMER,
                {self.keys.rollouts: after},
                count=count,
                block=max(1, int(block_s * 1000)) if after == ">" else None,
            )
        except redis.ResponseError as error:
            if is_full(error):
                raise
            raise lost(self.keys.run, error) from None
        entries = [(id.decode(), fields) for id, fields in entries_of(reply) if fields]
        if entries:
            self._last_read = entries[-1][0]
        indices = [admission_index(fields) for _, fields in entries]
        digests = self.client.hmget(self.keys.digests, [str(index) for index in indices]) if entries else []
        return [
            Entry(id, index, fields.get(b"d", b""), digest and digest.decode())
            for (id, fields), index, digest in zip(entries, indices, digests, strict=True)
        ]

    def record(self, step: int, ids: Sequence[str]) -> None:
        """Write down the step's entries in their order, before it trains."""
        self._run("RECORD", [self.keys.fence, self.keys.steps], [self.fence, step, msgpack.packb(list(ids))])

    def recorded(self) -> dict[int, list[str]]:
        """Step -> entry ids, for all steps that are not yet durable."""
        steps = self.client.hgetall(self.keys.steps)
        return {int(step): msgpack.unpackb(ids) for step, ids in sorted(steps.items(), key=lambda s: int(s[0]))}

    def trained(self, step: int, ids: Sequence[str]) -> int:
        """The optimizer has stepped: the groups' credits are free. Returns how many were ours to train."""
        k = self.keys
        return self._run("TRAINED", [k.fence, k.rollouts, k.trained], [self.fence, ROLLOUT_GROUP, step, *ids])

    def durable(self, step: int, ids: Sequence[str]) -> int:
        """A durable checkpoint holds these entries. Idempotent. Returns how many were new to the accounts."""
        k = self.keys
        keys = [k.fence, k.rollouts, k.accounts, k.trained, k.digests]
        fresh = self._run("DURABLE", keys, [self.fence, ROLLOUT_GROUP, *ids])
        done = [s for s in self.recorded() if s <= step]
        if done:
            self.client.hdel(k.steps, *map(str, done))
        return fresh

    def drop(self, reason: str, ids: Iterable[str]) -> None:
        """These rollouts will never be trained, because of `reason`."""
        if ids := list(ids):
            k = self.keys
            keys = [k.fence, k.rollouts, k.accounts, k.trained, k.digests]
            self._run("DROP", keys, [self.fence, ROLLOUT_GROUP, reason, *ids])

    def refuse(self, ids: Sequence[str]) -> None:
        """Second answers to groups that are in the accounts already: counted as foreign."""
        k = self.keys
        self._run("REFUSE", [k.fence, k.rollouts, k.accounts], [self.fence, ROLLOUT_GROUP, *ids])

    def rewind(self, durable_step: int) -> None:
        """After a crash: steps beyond the checkpoint are undone, their groups outstanding again."""
        self._run("REWIND", [self.keys.fence, self.keys.trained, self.keys.steps], [self.fence, durable_step])

    def trim(self) -> None:
        """Let Redis forget what is done with, so that its memory is bounded by what is outstanding."""
        for stream, group in ((self.keys.tasks, TASK_GROUP), (self.keys.rollouts, ROLLOUT_GROUP)):
            self._run("TRIM", [stream], [group])

    def outstanding_indices(self) -> set[int]:
        """Admission indices of all groups that are neither trained nor dropped."""
        return self._unacknowledged(self.keys.tasks, TASK_GROUP) | {
            index
            for id, index in self._pending_or_unread(self.keys.rollouts, ROLLOUT_GROUP)
            if not self.client.hexists(self.keys.trained, id)
        }

    def _unacknowledged(self, stream: str, group: str) -> set[int]:
        return {index for _, index in self._pending_or_unread(stream, group)}

    def _pending_or_unread(self, stream: str, group: str) -> list[tuple[str, int]]:
        try:
            # In this order: what is delivered between the two is still found, as younger than `last`.
            info = next(g for g in self.client.xinfo_groups(stream) if g["name"].decode() == group)
            pending = self.client.xpending_range(stream, group, min="-", max="+", count=1_000_000)
        except (redis.ResponseError, StopIteration) as error:
            raise lost(self.keys.run, error) from None
        ids, last = {p["message_id"] for p in pending}, _order(info["last-delivered-id"])
        return [
            (id.decode(), index)
            for id, fields in self.client.xrange(stream)
            if (index := admission_index(fields)) is not None and (id in ids or _order(id) > last)
        ]

    def accounts(self) -> Accounts:
        return read_accounts(self.client, self.keys)


_NAMES = ("ADVANCE", "ADMIT", "RECORD", "TRAINED", "DURABLE", "DROP", "REFUSE", "REWIND", "TRIM")


def _order(entry_id: bytes) -> tuple[int, int]:
    ms, _, sequence = entry_id.decode().partition("-")
    return int(ms), int(sequence)


@dataclass(frozen=True)
class Rollout:
    """A finished group and its entry on the ledger."""

    entry: Entry
    group: RolloutGroup
