"""A grader process, frames on its pipes:
`python -m chorus.reward_server.pool.worker PARENT_PID TIMEOUT_S MEMORY_BYTES [GRADER]`

    start -> libraries imported, warm-up grades, limits set -> Ready -> Work ... -> pipe closed -> exit

It is written to be killed: it holds nothing but the tasks it was sent, each reply leaves at once, and it
dies with its parent (closed pipe, and PR_SET_PDEATHSIG for a parent that was killed while a grade runs).
With GRADER, a GraderSpec as JSON, it has that grader of a user's and none of ours.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from chorus.protocol.graders import GraderSpec
from chorus.reward_server.graders.own import GraderError, OwnGrader
from chorus.reward_server.graders.task import GradeResult, GradeTask, Reply
from chorus.reward_server.pool.frames import Drop, Dropped, Frames, Message, Ready, Unusable, Work, pack

PR_SET_PDEATHSIG = 1
CPU_GRACE_S = 2  # the wall clock limit comes first; the CPU limit is for a grader whose parent hangs
Run = Callable[[GradeTask], Reply]


class Channel:
    """The pipes, taken away from stdin and stdout so that no library can print into a frame."""

    def __init__(self) -> None:
        self._in, self._out = os.dup(0), os.dup(1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        self._frames = Frames()

    def receive(self) -> Message | None:
        """The next message; waits for it. None when the parent has closed the pipe."""
        return self._frames.read(self._in)

    def waiting(self) -> bool:
        """Whether a message has arrived (or the pipe was closed); never waits."""
        return self._frames.partial or bool(select.select([self._in], [], [], 0)[0])

    def send(self, message: Message) -> None:
        data = memoryview(pack(message))
        while data:
            data = data[os.write(self._out, data) :]


def main(argv: list[str]) -> int:
    """Serve until the parent closes the pipe. Returns the exit code."""
    parent_pid, timeout_s, memory_bytes = int(argv[0]), float(argv[1]), int(argv[2])
    _die_with(parent_pid)
    # A Ctrl-C in the terminal must not kill what the server still drains. Not a session of its own: Linux shares the
    # processor among sessions first (autogroups), and a grader of low priority would yield to nobody.
    os.setpgid(0, 0)
    channel = Channel()
    try:
        run = _own(argv[3]) if len(argv) > 3 else _ours()
    except GraderError as error:
        channel.send(Unusable(str(error)))
        return 1
    # After the import: what the libraries need is not the completion's to spend.
    memory_bytes += _mapped_bytes() if len(argv) > 3 else 0  # nobody knows what a user's file imports
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    channel.send(Ready(os.getpid()))
    while (message := channel.receive()) is not None:
        if isinstance(message, Drop):
            channel.send(Dropped())
        elif isinstance(message, Work):
            for task in message.tasks:
                if channel.waiting():  # a drop, or the parent is gone: in both cases the rest is not ours any more
                    break
                _refresh_cpu_limit(timeout_s)
                channel.send(_timed(run, task))
    return 0


def _ours() -> Run:
    from chorus.reward_server.graders.registry import run, warm_up

    warm_up()
    return run


def _own(spec: str) -> Run:
    return OwnGrader(GraderSpec.model_validate_json(spec)).run


def _mapped_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _timed(run: Run, task: GradeTask) -> Reply:
    started = time.perf_counter()
    reply = _guarded(run, task)
    return replace(reply, ms=(time.perf_counter() - started) * 1000) if isinstance(reply, GradeResult) else reply


def _guarded(run: Run, task: GradeTask) -> Reply:
    """A task's own failure is its reply; the process goes on."""
    try:
        return run(task)
    except MemoryError:
        reason = "the grade needed more memory than its limit"
    except RecursionError:
        reason = "the expression is nested too deeply to compare"
    except Exception as error:
        reason = f"the grader raised {type(error).__name__}"
    return GradeResult.failed(f"{task.kind}: pool", reason)


def _die_with(parent_pid: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it died before the line above
        sys.exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to handle: it drains first


def _refresh_cpu_limit(timeout_s: float) -> None:
    used = time.process_time()
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(used + timeout_s + CPU_GRACE_S) + 1, hard))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
