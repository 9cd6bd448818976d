"""Who may be a run's learner: the owner of a lease in Redis, prolonged while it lives.

    free ──take──▶ ours ──every third of LEASE_S: prolonged──▶ ours ──let go──▶ free
                     ╰──── owner dead, and here: taken at once; elsewhere: LEASE_S later, by Redis' own time ────▶

An owner that is here and lives, or one from elsewhere that prolongs its lease while we watch, keeps it: the second
start is refused. An earlier start of the same job of Slurm is as good as dead, though it may live on unseen on a node
that Slurm has lost: Slurm has started the job again, and knows of no other. The lease keeps learners apart before they
touch anything; what a learner that was taken for dead still sends is refused by the fence.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from chorus.protocol.ledger import scripts
from chorus.protocol.ledger.keys import Keys
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.heartbeat import beating
from chorus.protocol.runtime.owner import Owner

LEASE_S = 30.0
_POLL_S = 0.2

log = logging.getLogger("chorus.ledger")


@contextmanager
def leased(client: redis.Redis, quick: redis.Redis, run: str, folder: Path) -> Iterator[None]:
    """Hold the run's lease while the block runs. `quick`: a client that does not wait for a server that is away.

    Raises CannotGoOn where another learner has it and lives.
    """
    key, me = Keys(run).owner, _value(folder)
    await_free(client, run, me)

    def prolong() -> None:
        with contextlib.suppress(redis.RedisError):  # tried again before it runs out
            _hold(quick, key, me)

    try:
        with beating("lease", LEASE_S / 3, prolong):
            yield
    finally:
        with contextlib.suppress(redis.RedisError):
            quick.eval(scripts.LET_GO, 1, key, me)


def await_free(client: redis.Redis, run: str, me: str = "") -> None:
    """Return when nobody holds the lease; with `me`, it is `me` who holds it then. Raises CannotGoOn."""
    key, before, dead, said = Keys(run).owner, float("inf"), b"", False
    end = time.monotonic() + LEASE_S + 5.0
    while held := _hold(client, key, me, dead):
        raw, left_ms = held
        value = _read(raw)
        owner = Owner.read(value)
        if _started_again(value) or (owner is not None and owner.is_here and not owner.lives):
            dead = raw
            continue
        if (owner is not None and owner.is_here) or left_ms > before or time.monotonic() > end:
            raise CannotGoOn(
                f"run {run!r} is going on already: {owner or 'a process'} trains it in {value.get('folder')}; stop "
                "that one first"
            )
        if not said:
            log.warning("run %r was held by %s: waiting until its lease has run out, %d ms", run, owner, left_ms)
            said = True
        before = left_ms
        time.sleep(_POLL_S)


def holder(client: redis.Redis, run: str) -> str:
    """Who holds the lease, as a person reads it; empty where nobody does."""
    value = _read(client.get(Keys(run).owner))
    return f"{Owner.read(value) or 'a process'}, folder {value.get('folder')}" if value else ""


def _value(folder: Path) -> str:
    return json.dumps(Owner.me().as_dict() | _job() | {"folder": str(folder.resolve())}, sort_keys=True)


def _job() -> dict[str, Any]:
    """Which start of which job of Slurm this process belongs to."""
    number = os.environ.get("SLURM_JOB_ID")
    return {"job": number, "start": int(os.environ.get("SLURM_RESTART_COUNT") or 0)} if number else {}


def _started_again(holder: dict[str, Any]) -> bool:
    mine = _job()
    return bool(mine) and holder.get("job") == mine["job"] and holder.get("start", 0) < mine["start"]


def _hold(client: Any, key: str, me: str, dead: bytes = b"") -> tuple[bytes, float] | None:
    """Take or prolong the lease, unless somebody else than `dead` has it: then who, and for how many ms more."""
    reply = client.eval(scripts.HOLD, 1, key, me, int(LEASE_S * 1000), dead)
    return (reply[0], float(reply[1])) if reply else None


def _read(value: Any) -> dict[str, Any]:
    try:
        found = json.loads(value or b"{}")
    except ValueError:
        return {"folder": "unknown"}
    return found if isinstance(found, dict) else {"folder": "unknown"}
