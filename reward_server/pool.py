"""The pool of killable grader processes.

    queue --chunk--> grader (one of `workers`) --result by result--> future of each job
                        |  past its limit: SIGKILL, `timeout` for the job in progress, the rest requeued
                        |  died: the job in progress is tried once more, then `error`; the rest requeued
                        '- replaced by the warm spare, and a new spare is started

Invariants: of the graders that live or start there are always `workers` + 1; a job is finished exactly once;
a grader has at most one chunk; the job in progress is always the first of its chunk without a result.
Everything runs on the event loop, nothing waits for a process. A job that takes longer than SLOW_S gives the
jobs behind it back to the queue, and after YIELD_S it runs only where nobody else wants the core: that is all by
which a hostile completion delays its neighbours.

Example (a test runs it): with two workers, `run([clean, hostile, clean])` sends chunks [clean, hostile] and
[clean]; after `timeout_s` the first grader is killed and the results are correct, timeout, correct.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from reward_server.wire import Frames, pack

MAX_CHUNK = 16  # items a grader gets at once: enough to hide the pipe, few enough to share
SLOW_S = 0.05  # a grade slower than this does not hold the rest of its chunk
YIELD_S = 0.2  # a grade slower than this goes on at the lowest priority, for its neighbours' sake
MAX_CRASHES = 2  # a job that two graders died of is not given to a third
START_LIMIT_S = 60.0  # import and warm-up take about two seconds; a start this long is a failure
MAX_FAILED_STARTS = 3
QUEUE_WAIT_LIMIT_S = 120.0  # longest wait of a request beyond its own grading time

_LOWEST = 19

RestartReason = Literal["timeout", "crashed"]


class QueueFullError(Exception):
    """The bounded queue has no room for the request; `retry_after_s` is when it probably has."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"the grading queue is full; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class PoolFailedError(Exception):
    """Grader processes do not start; the message says how they ended."""


@dataclass(eq=False)
class _Job:
    item: dict[str, Any]
    future: asyncio.Future[dict[str, Any]]
    crashes: int = 0

    def finish(self, result: dict[str, Any]) -> None:
        if not self.future.done():
            self.future.set_result(result)


@dataclass
class GraderPool:
    """Grades items in killable processes. Start it on a running loop; `run` from anywhere on that loop."""

    workers: int
    timeout_s: float
    memory_bytes: int
    max_queue: int
    on_restart: Callable[[RestartReason], None] = lambda reason: None
    failed: str | None = None
    _queue: deque[_Job] = field(default_factory=deque)
    _active: list[_Grader] = field(default_factory=list)
    _spares: list[_Grader] = field(default_factory=list)
    _starting: set[_Grader] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _unfinished: int = 0
    _failed_starts: int = 0
    _closed: bool = False

    def start(self) -> None:
        """Start the graders and the spare; returns at once (`ready` says when they are warm)."""
        for _ in range(self.workers + 1):
            self._launch()

    @property
    def ready(self) -> bool:
        """Whether every worker is warm."""
        return not self._closed and len(self._active) == self.workers

    @property
    def warm_workers(self) -> int:
        return len(self._active)

    @property
    def unfinished(self) -> int:
        """Jobs queued or in progress."""
        return self._unfinished

    async def run(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The results of `items`, in order; a failure is one too: {"failure": "timeout"|"error", "reason"}.

        Raises QueueFullError when there is no room, PoolFailedError when no grader can be started.
        """
        if self.failed is not None:
            raise PoolFailedError(self.failed)
        if self._unfinished + len(items) > self.max_queue:
            raise QueueFullError(max(1, math.ceil(self.timeout_s)))
        loop = asyncio.get_running_loop()
        jobs = [_Job(item, loop.create_future()) for item in items]
        for job in jobs:
            job.future.add_done_callback(self._count_down)
        self._unfinished += len(jobs)
        self._queue.extend(jobs)
        self.dispatch()
        if jobs:
            limit_s = QUEUE_WAIT_LIMIT_S + 2 * self.timeout_s
            await asyncio.wait([job.future for job in jobs], timeout=limit_s)
        for job in jobs:
            job.finish({"failure": "error", "reason": "no grader was free within the queue's time limit"})
        return [job.future.result() for job in jobs]

    async def close(self) -> None:
        """Kill every grader; jobs still open become errors."""
        self._closed = True
        for grader in [*self._active, *self._spares, *self._starting]:
            grader.kill()
        for task in list(self._tasks):
            task.cancel()
        for job in self._queue:
            job.finish({"failure": "error", "reason": "the server stopped before the grade"})

    def dispatch(self) -> None:
        """Give queued jobs to idle graders, a fair share each."""
        share = min(math.ceil(len(self._queue) / self.workers), MAX_CHUNK)
        for grader in self._active:
            if not grader.idle:
                continue
            chunk: list[_Job] = []
            while self._queue and len(chunk) < share:
                job = self._queue.popleft()
                if not job.future.done():  # a job that was given back may have been answered after all
                    chunk.append(job)
            if chunk:
                grader.assign(chunk)

    def requeue(self, jobs: list[_Job]) -> None:
        """Put jobs back at the head of the queue, in their order."""
        self._queue.extendleft(reversed([job for job in jobs if not job.future.done()]))

    def grader_ready(self, grader: _Grader) -> None:
        self._starting.discard(grader)
        self._failed_starts = 0
        self._spares.append(grader)
        self._fill()

    def grader_lost(self, grader: _Grader, reason: RestartReason, how: str) -> None:
        """A grader has gone: charge the job in progress, give back the others, replace it."""
        if self._closed:
            for job in grader.jobs:
                job.finish({"failure": "error", "reason": "the server stopped during the grade"})
            return
        if grader in self._starting:
            self._starting.discard(grader)
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                self._fail(f"grader processes end before they are ready ({how}); see their messages above")
                return
        else:
            self.on_restart(reason)
            (self._active if grader in self._active else self._spares).remove(grader)
            self._charge(list(grader.jobs), reason, how)
        self._fill()
        self._launch()

    def _charge(self, jobs: list[_Job], reason: RestartReason, how: str) -> None:
        if not jobs:
            return
        current = jobs[0]
        if reason == "timeout":
            limit = f"no result within {self.timeout_s:g} s"
            current.finish({"failure": "timeout", "reason": limit, "ms": self.timeout_s * 1000})
        else:
            current.crashes += 1
            if current.crashes >= MAX_CRASHES:
                current.finish({"failure": "error", "reason": f"the grader process died twice ({how})"})
        self.requeue(jobs)

    def _fill(self) -> None:
        while self._spares and len(self._active) < self.workers:
            self._active.append(self._spares.pop(0))
        self.dispatch()

    def _fail(self, why: str) -> None:
        self.failed = why
        for job in self._queue:
            job.finish({"failure": "error", "reason": why})

    def _count_down(self, _: asyncio.Future[dict[str, Any]]) -> None:
        self._unfinished -= 1

    def _launch(self) -> None:
        grader = _Grader(self)
        self._starting.add(grader)
        task = asyncio.get_running_loop().create_task(grader.start())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Grader(asyncio.SubprocessProtocol):
    """One grader process, seen from the event loop: starting -> idle <-> busy -> lost."""

    def __init__(self, pool: GraderPool) -> None:
        self.jobs: deque[_Job] = deque()  # without a result; the first one is in progress
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._frames = Frames()
        self._transport: asyncio.SubprocessTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._since = self._loop.time()  # when the job in progress (or the start) began
        self._ready = False
        self._kept: _Job | None = None  # the job that was in progress when the drop was sent
        self._drop_sent = False  # asked for the rest back; the answer is outstanding
        self._lost = False
        self._yielding = False

    @property
    def idle(self) -> bool:
        return self._ready and not self._lost and not self.jobs and not self._drop_sent

    async def start(self) -> None:
        root = str(Path(__file__).resolve().parent.parent)
        # One thread a grader: BLAS pools would count against RLIMIT_AS and fight over the cores.
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        arguments = (os.getpid(), self._pool.timeout_s, self._pool.memory_bytes)
        try:
            await self._loop.subprocess_exec(
                lambda: self,
                *(sys.executable, "-m", "reward_server.worker", *map(str, arguments)),
                stderr=None,
                env=environment,
            )
        except OSError as error:  # no memory or no process left: counts as a failed start
            self._gone("crashed", str(error))

    def assign(self, jobs: list[_Job]) -> None:
        """Give an idle grader its chunk."""
        self.jobs.extend(jobs)
        self._send({"items": [job.item for job in jobs]})
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
        for message in self._frames.feed(data):
            if self._lost:
                return
            if "ready" in message:
                self._ready = True
                self._disarm()
                self._pool.grader_ready(self)
            elif "dropped" in message:
                # The others were requeued when the drop was sent. Results come before this message, so a
                # first job that is still open had not been begun: the grader was slow to wake, not the job.
                self._drop_sent = False
                self._pool.requeue([self._kept] if self._kept is not None else [])
                self._kept = None
                self.jobs.clear()
                self._yield(False)
            else:
                self.jobs.popleft().finish(message)
                self._since = self._loop.time()
                self._yield(False)
        if self.idle:
            self._disarm()
            self._pool.dispatch()

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
        self._send({"drop": True})
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

    def _send(self, message: dict[str, Any]) -> None:
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
