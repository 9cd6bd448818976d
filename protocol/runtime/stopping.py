"""How a learner is stopped: a first SIGTERM (or Ctrl-C) asks, a second one ends.

    running ──SIGTERM──▶ asked ──▶ the step in progress ends, or a wait is left ──▶ checkpoint ──▶ exit status 143
                           └─ SIGTERM again, or learner.grace_s is over ──▶ the same status, at once

An end at once loses nothing either: what no checkpoint holds is trained again. Signals are read by a thread, so that
the second one ends a process whose main thread is deep in a step. Further ranks do nothing when they are asked: rank 0
ends them.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from chorus.protocol.runtime.redis import leave

log = logging.getLogger("chorus")
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopAsked(Exception):
    """Raised by `Stop.check` where a learner can leave."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


class Stop:
    """Whether this process is asked to stop."""

    def __init__(self) -> None:
        self.number = 0  # of the first signal

    def check(self) -> None:
        """Raise StopAsked once it is. Called before every step, and a few times a second in every long wait."""
        if self.number:
            raise StopAsked(self.number)


def _end(status: int) -> None:
    logging.shutdown()
    os._exit(status)


def echo_s() -> float:
    """For how long a second signal may be an echo of the first: torchrun hands on what it hears, and whoever stops it
    may have told its ranks, too, as Slurm tells every process of a step."""
    return 2.0 if "TORCHELASTIC_RUN_ID" in os.environ else 0.0


@contextmanager
def stopped_by_signals(grace_s: float, end: Callable[[int], None] = _end) -> Iterator[Stop]:
    """Within the block signals ask. From the main thread; `end` is called from another one."""
    stop = Stop()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    handlers = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(reader, stop, grace_s, end), name="signals", daemon=True)
    watcher.start()
    try:
        yield stop
    finally:
        leave(False)
        signal.set_wakeup_fd(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(writer)  # which ends the watcher
        watcher.join(1.0)


def _watch(reader: int, stop: Stop, grace_s: float, end: Callable[[int], None]) -> None:
    try:
        if not (first := _next_signal(reader)):
            return
        stop.number = first
        leave(True)
        log.warning(
            "%s: a checkpoint after the step in progress, then the end; once more ends at once",
            signal.Signals(first).name,
        )
        began, echo = time.monotonic(), echo_s()
        while select.select([reader], [], [], max(0.0, began + grace_s - time.monotonic()))[0]:
            if not (again := _next_signal(reader)):
                return
            if time.monotonic() - began >= echo:
                log.warning("%s again: ending at once", signal.Signals(again).name)
                end(128 + again)
                return
        log.warning("learner.grace_s = %g s is over: ending without a checkpoint of the newest steps", grace_s)
        end(128 + first)
    finally:
        os.close(reader)


def _next_signal(reader: int) -> int:
    """The number of one of `SIGNALS`; 0 where the block was left. Others that Python handles are passed over."""
    while number := os.read(reader, 1):
        if number[0] in SIGNALS:
            return number[0]
    return 0
