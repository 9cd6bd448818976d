"""One grader process, seen from the event loop: what it is given, how long it may take, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Protocol, cast

from chorus.reward_server.graders.task import Failure, GradeResult, GradeTask, Reply
from chorus.reward_server.pool.frames import Drop, Dropped, Ended, Frames, Message, Ready, Started, Unusable, Work, pack
from chorus.reward_server.pool.template import Template

SLOW_S = 0.05  # a grade slower than this does not hold the rest of its chunk
YIELD_S = 0.2  # a grade slower than this goes on at the lowest priority, for its neighbours' sake
START_LIMIT_S = 60.0  # import and warm-up take about two seconds; a start this long is a failure
_LOWEST = 19
RestartReason = Literal["timeout", "crashed", "template"]  # the last: the process that all are forked from ended


@dataclass(eq=False)
class Job:
    task: GradeTask
    future: asyncio.Future[Reply]
    crashes: int = 0

    def finish(self, reply: Reply) -> None:
        if not self.future.done():
            self.future.set_result(reply)

    def fail(self, reason: str, verdict: Failure = "error", ms: float = 0.0) -> None:
        named = f"{self.task.kind}: {reason}" if self.task.term else reason  # else it is clear whose failure it is
        self.finish(GradeResult.failed(f"{self.task.kind}: pool", named, verdict, ms=ms))


class Owner(Protocol):
    """What a grader process tells, and takes its limits from: the pool."""

    timeout_s: float
    template: Template

    def dispatch(self) -> None: ...
    def requeue(self, jobs: list[Job]) -> None: ...
    def unusable(self, why: str) -> None: ...
    def grader_ready(self, grader: GraderProcess) -> None: ...
    def grader_lost(self, grader: GraderProcess, reason: RestartReason, how: str) -> None: ...


class GraderProcess(asyncio.Protocol):
    """One grader process, seen from the event loop: starting -> idle <-> busy -> lost."""

    def __init__(self, pool: Owner) -> None:
        self.jobs: deque[Job] = deque()  # without a result; the first one is in progress
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._frames = Frames()
        self._pid: int | None = None  # until it says so
        self._transport: asyncio.WriteTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._since = self._loop.time()  # when the job in progress (or the start) began
        self._connected = False
        self._ready = False
        self._kept: Job | None = None  # the job that was in progress when the drop was sent
        self._drop_sent = False  # asked for the rest back; the answer is outstanding
        self._lost = False
        self._yielding = False

    @property
    def idle(self) -> bool:
        return self._ready and not self._lost and not self.jobs and not self._drop_sent

    async def start(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._pool.template.fork(theirs)
            await self._loop.create_unix_connection(lambda: self, sock=ours)
        except OSError as error:  # no memory or no process left: counts as a failed start
            ours.close()
            self._gone("crashed", str(error))

    def assign(self, jobs: list[Job]) -> None:
        """Give an idle grader its chunk."""
        self.jobs.extend(jobs)
        self._send(Work(tuple(job.task for job in jobs)))
        self._since = self._loop.time()
        self._arm(SLOW_S if len(jobs) > 1 else YIELD_S)

    def kill(self) -> None:
        self._disarm()
        if self._pid is None:  # the template is stuck before the fork, and can't be of use to anybody
            self._pool.template.kill()
        elif self._connected:  # else it has ended, and its pid may be another's
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is one in all but class
        self._connected = True
        self._arm(START_LIMIT_S)

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._frames.feed(data):
                if self._lost:
                    return
                self._take(message)
        except (ValueError, RecursionError) as error:
            self._gone("crashed", f"it sent what is no message ({error})")
            self.kill()
        if self.idle:
            self._disarm()
            self._pool.dispatch()

    def _take(self, message: Message) -> None:
        if isinstance(message, Started):
            self._pid = message.pid
        elif isinstance(message, Ready):
            self._ready = True
            self._disarm()
            self._pool.grader_ready(self)
        elif isinstance(message, Ended):
            self._gone("crashed", f"exit code {message.exit_code}")
        elif isinstance(message, Unusable):
            self._pool.unusable(message.reason)
        elif isinstance(message, Dropped):
            # The others were requeued when the drop was sent. Results come before this message, so a
            # first job that is still open had not been begun: the grader was slow to wake, not the job.
            self._drop_sent = False
            self._pool.requeue([self._kept] if self._kept is not None else [])
            self._kept = None
            self.jobs.clear()
            self._yield(False)
        elif isinstance(message, Reply) and self.jobs:
            self.jobs.popleft().finish(message)
            self._since = self._loop.time()
            self._yield(False)
        else:
            raise ValueError(f"{type(message).__name__}, which nobody asked for")

    def connection_lost(self, exc: Exception | None) -> None:
        self._connected = False
        self._gone("template", "the process it was forked from ended")

    def _on_timer(self) -> None:
        """Lazy: results move `_since` and leave the timer, which looks here whether time is really up."""
        self._timer = None
        elapsed_s = self._loop.time() - self._since
        limit_s = self._pool.timeout_s if self._ready else START_LIMIT_S
        if elapsed_s >= limit_s:
            self._gone("timeout", "its time limit")
            self.kill()
            return
        marks = [limit_s]
        if self._ready:
            if elapsed_s < YIELD_S:
                marks.append(YIELD_S)
            else:
                self._yield(True)
            if len(self.jobs) > 1 and not self._drop_sent:
                if elapsed_s < SLOW_S:
                    marks.append(SLOW_S)
                else:
                    self._hand_back()
        self._arm(min(marks) - elapsed_s)

    def _hand_back(self) -> None:
        """Let the others of the chunk be graded elsewhere."""
        self._drop_sent = True
        self._kept = self.jobs[0]
        self._send(Drop())
        self._pool.requeue(list(self.jobs)[1:])
        self._pool.dispatch()

    def _yield(self, yielding: bool) -> None:
        """Lowest priority for the grader and what it started, or its old one again.

        Without the privilege to raise a priority the grader keeps the low one: it is slower on a full machine only.
        """
        if yielding is self._yielding or self._pid is None:
            return
        usual = os.getpriority(os.PRIO_PROCESS, 0)
        with suppress(OSError):  # gone already, or not allowed
            os.setpriority(os.PRIO_PGRP, self._pid, _LOWEST if yielding else usual)
            self._yielding = yielding

    def _gone(self, reason: RestartReason, how: str) -> None:
        if self._lost:
            return
        self._lost = True
        self._disarm()
        if self._drop_sent:  # the jobs behind the first are in the queue already
            self.jobs = deque(list(self.jobs)[:1])
        self._pool.grader_lost(self, reason, how)

    def _send(self, message: Message) -> None:
        if self._transport is not None:
            # buffered without waiting: bounded by the body limit, one chunk a grader
            self._transport.write(pack(message))

    def _arm(self, delay_s: float) -> None:
        self._disarm()
        self._timer = self._loop.call_later(max(delay_s, 0.001), self._on_timer)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
