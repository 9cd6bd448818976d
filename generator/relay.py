"""Weights that one generator passes on to the next, piece by piece, while the rest of them still comes.

    learner ─▶ this worker ─▶ the next generator's workers ─▶ ...

The sending is in a thread of its own: whoever hangs at the other end costs its own sync a deadline, and nothing here.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

import redis
import torch

from chorus.protocol.messages import Onward
from chorus.protocol.runtime.exits import CannotGoOn, first_line
from chorus.protocol.weights import broadcast, close_group, join_store, open_group

log = logging.getLogger("chorus.relay")
_LOST = (RuntimeError, OSError, redis.RedisError, CannotGoOn)  # of the other end, or of Redis, where the two meet


class Relay:
    """One group whose rank 0 is this worker. After a failure what comes is let go: the learner makes another group."""

    def __init__(self, group: str, meet: Callable[[], Any], deadline_s: float) -> None:
        self.group = group
        self._meet, self._deadline_s = meet, deadline_s
        self._pieces: queue.Queue[torch.Tensor | None] = queue.Queue()
        self._failed = False
        threading.Thread(target=self._send_all, name=f"relay {group}", daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether pieces are still to be sent, so that their memory must stay as it is."""
        return self._pieces.unfinished_tasks > 0

    def pass_on(self, piece: torch.Tensor) -> None:
        self._pieces.put(piece)

    def close(self) -> None:
        """After what it has; returns at once."""
        self._pieces.put(None)

    def _send_all(self) -> None:
        group = None
        while (piece := self._pieces.get()) is not None:
            try:
                if not self._failed:
                    group = group or self._meet()
                    broadcast(group, piece, self._deadline_s)
            except _LOST as error:
                self._failed = True
                log.warning("weights were not passed on over %s: %s", self.group, first_line(error))
            finally:
                self._pieces.task_done()
        close_group(group)


def relay_to(
    onward: Onward | None, relay: Relay | None, backend: str, store_host: str, store_port: int, deadline_s: float
) -> Relay | None:
    """The way on to this group: the one that there is, or another in its place, or none."""
    if relay is not None and (onward is None or onward.group != relay.group):
        relay.close()
        relay = None
    if onward is None or relay is not None:
        return relay

    def meet() -> Any:
        store = join_store(store_host, store_port, deadline_s)
        return open_group(backend, store, onward.group, 0, onward.world_size, deadline_s)

    return Relay(onward.group, meet, deadline_s)
