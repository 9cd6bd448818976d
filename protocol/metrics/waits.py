"""Every wait has an owner, a deadline and a metric: the board on which a process notes what it waits for.

    with waits.on("rollouts", "generators", deadline_s=600.0):
        ...

While the block runs, the wait stands on the board. Prometheus sees the age of the oldest open one of each kind
and the sum of all that ended; the process sends the board to Redis with its heartbeat, and `chorus why` reads
it there. A board is shared by threads.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

from prometheus_client import CollectorRegistry, Counter, Gauge
from pydantic import BaseModel, ConfigDict, Field

from chorus.protocol.messages import Message

LAG_WARNING_S = 1.0
_LAG_INTERVAL_S = 0.5


class Wait(BaseModel):
    """`what` is waited for, `whom` it depends on. `since` and `until` in unix seconds; None: no deadline."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    what: str
    whom: str
    detail: str = ""
    since: float
    until: float | None


class WaitReport(Message):
    """All that one process waits for at `at` (unix seconds by Redis' clock, as all of its times)."""

    SCHEMA: ClassVar[str] = "chorus.waits/1"

    process: str
    at: float
    waits: list[Wait] = Field(max_length=4096)


class Waits:
    """The board of one process."""

    def __init__(self, prefix: str, registry: CollectorRegistry) -> None:
        self._open: dict[int, Wait] = {}
        self._next = itertools.count()
        self._lock = threading.Lock()
        self._waited = Counter(
            f"{prefix}_waited_seconds", "Waits that have ended, by what for", ["what"], registry=registry
        )
        self._oldest = Gauge(f"{prefix}_waiting_seconds", "Age of the oldest open wait", ["what"], registry=registry)

    @contextmanager
    def on(self, what: str, whom: str, deadline_s: float | None, detail: str = "") -> Iterator[None]:
        """Note a wait for as long as the block runs; the block itself keeps the deadline."""
        since, started, key = time.time(), time.monotonic(), next(self._next)
        until = None if deadline_s is None else since + deadline_s
        with self._lock:
            self._open[key] = Wait(what=what, whom=whom, detail=detail, since=since, until=until)
        self._oldest.labels(what).set_function(lambda: self._age(what))
        try:
            yield
        finally:
            with self._lock:
                del self._open[key]
            self._waited.labels(what).inc(time.monotonic() - started)

    def _age(self, what: str) -> float:
        with self._lock:
            return max((time.time() - wait.since for wait in self._open.values() if wait.what == what), default=0.0)

    def report(self, process: str, now: float) -> WaitReport:
        """The board as it is sent to Redis, the oldest waits first, with its times by Redis' clock: `now` is there."""
        with self._lock:
            waits = sorted(self._open.values(), key=lambda wait: wait.since)[:4096]
        ahead_s = now - time.time()
        return WaitReport(process=process, at=now, waits=[_moved(wait, ahead_s) for wait in waits])


def _moved(wait: Wait, seconds: float) -> Wait:
    until = None if wait.until is None else wait.until + seconds
    return wait.model_copy(update={"since": wait.since + seconds, "until": until})


class WaitShare:
    """How much of its last steps a process has waited, the running step included.

        begin ─▶ (waits) ─▶ worked ─▶ (works) ─▶ end ─▶ begin ...

    The running one counts with as much as it has had so far: a step that never gets what it waits for shows, too.
    One thread writes, others read: what they read is replaced whole, never changed.
    """

    def __init__(self, steps: int = 5, clock: Callable[[], float] = time.monotonic) -> None:
        self._steps = steps
        self._clock = clock
        self._done: tuple[tuple[float, float], ...] = ()  # (waited, lasted) in seconds
        self._running: tuple[float, float | None] | None = None  # since, end of its wait

    def begin(self) -> None:
        self._running = (self._clock(), None)

    def worked(self) -> None:
        """The wait is over, work begins."""
        if self._running is not None:
            self._running = (self._running[0], self._clock())

    def end(self, waited_s: float, lasted_s: float) -> None:
        self._done = (*self._done, (waited_s, lasted_s))[-self._steps :]
        self._running = None

    def ratio(self) -> float:
        """0 to 1; 0 before the first step."""
        parts, running, now = self._done, self._running, self._clock()
        if running is not None:
            since, worked = running
            parts = (*parts, ((worked or now) - since, now - since))
        lasted = sum(part[1] for part in parts)
        return sum(part[0] for part in parts) / lasted if lasted > 0 else 0.0


async def watch_event_loop(lag_s: Gauge, log: logging.Logger) -> None:
    """Warn when this event loop comes to its work more than LAG_WARNING_S late. Never returns."""
    while True:
        due = time.monotonic() + _LAG_INTERVAL_S
        await asyncio.sleep(_LAG_INTERVAL_S)
        late_s = time.monotonic() - due
        lag_s.set(max(0.0, late_s))
        if late_s > LAG_WARNING_S:
            log.warning(
                "the event loop stood still for %.1f s: something in it blocks, or the machine is overloaded", late_s
            )
