"""The pool of killable grader processes.

    queue --chunk--> grader (one of `workers`) --result by result--> future of each job
                        |  past its limit: SIGKILL, `timeout` for the job in progress, the rest requeued
                        |  died: the job in progress is tried once more, then `error`; the rest requeued
                        '- replaced by the warm spare, and a new spare is forked from the template

Invariants: of the graders that live or start there are always `workers` + `spares`; a job is finished exactly once;
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
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from chorus.protocol.graders import GraderSpec
from chorus.reward_server.graders.task import GradeTask, Reply
from chorus.reward_server.pool.grader_process import GraderProcess, Job, RestartReason
from chorus.reward_server.pool.template import Template

MAX_CHUNK = 16  # items a grader gets at once: enough to hide the pipe, few enough to share
MAX_CRASHES = 2  # a job that two graders died of is not given to a third
MAX_FAILED_STARTS = 3
QUEUE_WAIT_LIMIT_S = 120.0  # longest wait of a request beyond its own grading time


class QueueFullError(Exception):
    """The bounded queue has no room for the request; `retry_after_s` is when it probably has."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"the grading queue is full; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class PoolFailedError(Exception):
    """Grader processes do not start; the message says how they ended."""


@dataclass(eq=False)
class GraderPool:
    """Grades items in killable processes. Start it on a running loop; `run` from anywhere on that loop."""

    workers: int
    timeout_s: float
    memory_bytes: int
    max_queue: int
    spares: int = 1
    on_restart: Callable[[RestartReason], None] = lambda reason: None
    grader: GraderSpec | None = None  # a user's own; None: the graders that come with the service
    failed: str | None = None
    template: Template = field(init=False)
    _queue: deque[Job] = field(default_factory=deque)
    _active: list[GraderProcess] = field(default_factory=list)
    _spares: list[GraderProcess] = field(default_factory=list)
    _starting: set[GraderProcess] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _unfinished: int = 0
    _failed_starts: int = 0
    _failed_template: int = 0
    _closed: bool = False

    def __post_init__(self) -> None:
        self.template = Template(self.timeout_s, self.memory_bytes, self.grader)

    def start(self) -> None:
        """Start the graders and the spares; returns at once (`ready` says when they are warm)."""
        for _ in range(self.workers + self.spares):
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

    async def run(self, tasks: Sequence[GradeTask]) -> list[Reply]:
        """The replies to `tasks`, in order; a failure is one too: a GradeResult whose verdict is timeout or error.

        Raises QueueFullError when there is no room, PoolFailedError when no grader can be started.
        """
        self.check_room(len(tasks))
        loop = asyncio.get_running_loop()
        jobs = [Job(task, loop.create_future()) for task in tasks]
        for job in jobs:
            job.future.add_done_callback(self._count_down)
        self._unfinished += len(jobs)
        self._queue.extend(jobs)
        self.dispatch()
        if jobs:
            limit_s = QUEUE_WAIT_LIMIT_S + 2 * self.timeout_s
            await asyncio.wait([job.future for job in jobs], timeout=limit_s)
        for job in jobs:
            job.fail("no grader was free within the queue's time limit")
        return [job.future.result() for job in jobs]

    def check_room(self, n_tasks: int) -> None:
        """Raises what `run` would raise for so many tasks."""
        if self.failed is not None:
            raise PoolFailedError(self.failed)
        if self._unfinished + n_tasks > self.max_queue:
            raise QueueFullError(max(1, math.ceil(self.timeout_s)))

    async def close(self) -> None:
        """Kill every grader; jobs still open become errors."""
        self._closed = True
        for grader in [*self._active, *self._spares, *self._starting]:
            grader.kill()
        self.template.kill()
        for task in list(self._tasks):
            task.cancel()
        for job in self._queue:
            job.fail("the server stopped before the grade")

    def dispatch(self) -> None:
        """Give queued jobs to idle graders, a fair share each."""
        share = min(math.ceil(len(self._queue) / self.workers), MAX_CHUNK)
        for grader in self._active:
            if not grader.idle:
                continue
            chunk: list[Job] = []
            while self._queue and len(chunk) < share:
                job = self._queue.popleft()
                if not job.future.done():  # a job that was given back may have been answered after all
                    chunk.append(job)
            if chunk:
                grader.assign(chunk)

    def requeue(self, jobs: list[Job]) -> None:
        """Put jobs back at the head of the queue, in their order."""
        self._queue.extendleft(reversed([job for job in jobs if not job.future.done()]))

    def grader_ready(self, grader: GraderProcess) -> None:
        self._starting.discard(grader)
        self._failed_starts = 0
        self._spares.append(grader)
        self._fill()

    def grader_lost(self, grader: GraderProcess, reason: RestartReason, how: str) -> None:
        """A grader has gone: charge the job in progress, give back the others, replace it."""
        if self._closed:
            for job in grader.jobs:
                job.fail("the server stopped during the grade")
            return
        if self.failed is not None:  # nobody starts again; the others end with the server
            self._starting.discard(grader)
            return
        if grader in self._starting:
            self._starting.discard(grader)
            if (
                reason != "template" or self._failed_template != self.template.starts
            ):  # it fails all its graders at once
                self._failed_starts += 1
                self._failed_template = self.template.starts
            if self._failed_starts >= MAX_FAILED_STARTS:
                self._fail(f"grader processes end before they are ready ({how}); see their messages above")
                return
        else:
            self.on_restart(reason)
            (self._active if grader in self._active else self._spares).remove(grader)
            self._charge(list(grader.jobs), reason, how)
        self._fill()
        self._launch()

    def unusable(self, why: str) -> None:
        """A worker said that no worker can ever grade."""
        self._fail(why)

    def _charge(self, jobs: list[Job], reason: RestartReason, how: str) -> None:
        if not jobs:
            return
        current = jobs[0]
        if reason == "timeout":
            current.fail(f"no result within {self.timeout_s:g} s", "timeout", self.timeout_s * 1000)
        elif reason == "crashed":
            current.crashes += 1
            if current.crashes >= MAX_CRASHES:
                current.fail(f"the grader process died twice ({how})")
        self.requeue(jobs)

    def _fill(self) -> None:
        while self._spares and len(self._active) < self.workers:
            self._active.append(self._spares.pop(0))
        self.dispatch()

    def _fail(self, why: str) -> None:
        self.failed = why
        for job in self._queue:
            job.fail(why)

    def _count_down(self, _: asyncio.Future[Reply]) -> None:
        self._unfinished -= 1

    def _launch(self) -> None:
        grader = GraderProcess(self)
        self._starting.add(grader)
        task = asyncio.get_running_loop().create_task(grader.start())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
