"""Redis keys, namespaced by run so that runs can share a server, and by queue.

The `train` queue is what is learned from; the `eval` queue has streams and accounts of its own, so that
evaluation goes through the same generators without touching the training's. Stream replies of redis-py are read as one
plain shape, whatever protocol version the connection speaks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Queue = Literal["train", "eval"]
TASK_GROUP = "generators"
ROLLOUT_GROUP = "learner"


@dataclass(frozen=True)
class Keys:
    run: str
    queue: Queue = "train"

    def _key(self, name: str) -> str:
        return f"chorus:{self.run}:{self.queue}:{name}"

    @property
    def tasks(self) -> str:
        return self._key("tasks")

    @property
    def rollouts(self) -> str:
        return self._key("rollouts")

    @property
    def dead(self) -> str:
        return self._key("dead")

    @property
    def accounts(self) -> str:
        return self._key("books")

    @property
    def trained(self) -> str:
        """Hash: rollout entry id -> step, for what is trained and not yet durable."""
        return self._key("trained")

    @property
    def steps(self) -> str:
        """Hash: step -> its rollout entry ids in order, written before the step trains."""
        return self._key("steps")

    @property
    def digests(self) -> str:
        """Hash: admission index -> SHA-1 of the task's payload, for every group that is not durable or dropped."""
        return self._key("digests")

    @property
    def fence(self) -> str:
        """Both queues obey the one learner."""
        return f"chorus:{self.run}:fence"

    @property
    def advanced(self) -> str:
        """By which call of which learner the fence was raised last, and to what."""
        return f"chorus:{self.run}:advanced"

    @property
    def owner(self) -> str:
        """The learner's lease, see lease.py."""
        return f"chorus:{self.run}:owner"

    @property
    def identity(self) -> str:
        """Hash: whose ledger this is, see identity.py."""
        return f"chorus:{self.run}:identity"

    @property
    def members(self) -> str:
        """Hash: generator id -> its last heartbeat."""
        return f"chorus:{self.run}:members"

    @property
    def waits(self) -> str:
        """Hash: process -> what it waits for."""
        return f"chorus:{self.run}:waits"

    @property
    def reports(self) -> str:
        """Stream: sync reports of all generators."""
        return f"chorus:{self.run}:reports"

    @property
    def hold(self) -> str:
        """Who stays on which version, while some do."""
        return f"chorus:{self.run}:hold"

    def offers(self, generator_id: str) -> str:
        """Stream: the sync offers to one generator."""
        return f"chorus:{self.run}:offers:{generator_id}"


Entries = list[tuple[bytes, dict[bytes, bytes]]]


def entries_of(reply: Any) -> Entries:
    """The entries of a reply to XREAD or XREADGROUP on one stream; [] where it timed out."""
    if not reply:
        return []
    if isinstance(reply, dict):  # RESP3: {stream: [entries]}
        return next(iter(reply.values()))[0]
    return reply[0][1]  # RESP2: [[stream, entries]]


def admission_index(fields: dict[bytes, bytes]) -> int | None:
    """An entry's place in the admission order; None for an entry that the ledger did not write."""
    index = fields.get(b"i", b"")
    return int(index) if index.isdigit() and len(index) < 16 else None
