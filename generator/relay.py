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

import torch

from chorus.protocol.weights import broadcast, close_group

log = logging.getLogger("chorus.relay")


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
            except RuntimeError as error:
                self._failed = True
                log.warning("weights were not passed on over %s: %s", self.group, str(error).splitlines()[0])
            finally:
                self._pieces.task_done()
        close_group(group)
