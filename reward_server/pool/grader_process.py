"""One grader process, seen from the event loop: what it is given, how long it may take, and how it ends."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Protocol, cast

from chorus.protocol.graders import GraderSpec
from chorus.reward_server.graders.task import Failure, GradeResult, GradeTask, Reply
from chorus.reward_server.pool.frames import Drop, Dropped, Frames, Message, Ready, Unusable, Work, pack

SLOW_S = 0.05  # a grade slower than this does not hold the rest of its chunk
YIELD_S = 0.2  # a grade slower than this goes on at the lowest priority, for its neighbours' sake
START_LIMIT_S = 60.0  # import and warm-up take about two seconds; a start this long is a failure
_LOWEST = 19
COMMAND = (sys.executable, "-P", "-m", "chorus.reward_server.pool.worker")
RestartReason = Literal["timeout", "crashed"]


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
    memory_bytes: int
    grader: GraderSpec | None  # of a user's; None: ours

    def dispatch(self) -> None: ...
    def requeue(self, jobs: list[Job]) -> None: ...
    def unusable(self, why: str) -> None: ...
    def grader_ready(self, grader: GraderProcess) -> None: ...
    def grader_lost(self, grader: GraderProcess, reason: RestartReason, how: str) -> None: ...


class GraderProcess(asyncio.SubprocessProtocol):
    """One grader process, seen from the event loop: starting -> idle <-> busy -> lost."""

    def __init__(self, pool: Owner) -> None:
        self.jobs: deque[Job] = deque()  # without a result; the first one is in progress
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._frames = Frames()
        self._transport: asyncio.SubprocessTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._since = self._loop.time()  # when the job in progress (or the start) began
        self._ready = False
        self._kept: Job | None = None  # the job that was in progress when the drop was sent
        self._drop_sent = False  # asked for the rest back; the answer is outstanding
        self._lost = False
        self._yielding = False

    @property
    def idle(self) -> bool:
        return self._ready and not self._lost and not self.jobs and not self._drop_sent

    async def start(self) -> None:
        # One thread a grader: BLAS pools would count against RLIMIT_AS and fight over the cores.
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        arguments = [os.getpid(), self._pool.timeout_s, self._pool.memory_bytes]
        if self._pool.grader is not None:
            arguments.append(self._pool.grader.model_dump_json())
        try:
            await self._loop.subprocess_exec(
                lambda: self,
                *COMMAND,
                *map(str, arguments),
                stderr=None,
                env=environment,
            )
        except OSError as error:  # no memory or no process left: counts as a failed start
            self._gone("crashed", str(error))

    def assign(self, jobs: list[Job]) -> None:
        """Give an idle grader its chunk."""
        self.jobs.extend(jobs)
        self._send(Work(tuple(job.task for job in jobs)))
        self._since = self._loop.time()
        self._arm(SLOW_S if len(jobs) > 1 else YIELD_S)

    def kill(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None and self._transport.get_returncode() is None:
            self._transport.kill()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)  # uvloop's is one in all but class
        self._arm(START_LIMIT_S)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
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
        if isinstance(message, Ready):
            self._ready = True
            self._disarm()
            self._pool.grader_ready(self)
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

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 1:
            self._gone("crashed", "its pipe closed")

    def process_exited(self) -> None:
        code = self._transport.get_returncode() if self._transport else None
        self._gone("crashed", f"exit code {code}")
        if self._transport is not None:
            self._transport.close()

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
        if yielding is self._yielding or self._transport is None:
            return
        usual = os.getpriority(os.PRIO_PROCESS, 0)
        with suppress(OSError):  # gone already, or not allowed
            os.setpriority(os.PRIO_PGRP, self._transport.get_pid(), _LOWEST if yielding else usual)
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
        if self._transport is None:
            return
        pipe = self._transport.get_pipe_transport(0)
        cast(asyncio.WriteTransport, pipe).write(
            pack(message)
        )  # buffered without waiting: bounded by the body limit, one chunk a grader

    def _arm(self, delay_s: float) -> None:
        self._disarm()
        self._timer = self._loop.call_later(max(delay_s, 0.001), self._on_timer)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
