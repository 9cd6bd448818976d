"""Grader processes, and the template that they are forked from:
`python -m chorus.reward_server.pool.worker SERVER_PID CONTROL_FD TIMEOUT_S MEMORY_BYTES [GRADER]`

    template   libraries imported, warm-up grades -> a socket comes over CONTROL_FD -> fork ... -> closed -> exit
    grader     Started -> limits set -> Ready -> Work ... -> socket closed -> exit

A grader is written to be killed: it holds nothing but the tasks it was sent, each reply leaves at once, and it dies
with the server (closed sockets, and PR_SET_PDEATHSIG for a server that was killed while a grade runs).
With GRADER, a GraderSpec as JSON, it has that grader of a user's, which each process imports for itself: a file that
starts threads when it is imported must not be forked.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from chorus.protocol.graders import GraderSpec
from chorus.reward_server.graders.own import GraderError, OwnGrader
from chorus.reward_server.graders.task import GradeResult, GradeTask, Reply
from chorus.reward_server.pool.frames import Drop, Dropped, Ended, Frames, Message, Ready, Started, Unusable, Work, pack

PR_SET_PDEATHSIG = 1
CPU_GRACE_S = 2  # the wall clock limit comes first; the CPU limit is for a grader whose parent hangs
Run = Callable[[GradeTask], Reply]


class Channel:
    """A grader's end of the socket between the server and it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._frames = Frames()

    def receive(self) -> Message | None:
        """The next message; waits for it. None when the server has closed the socket."""
        return self._frames.read(self._fd)

    def waiting(self) -> bool:
        """Whether a message has arrived (or the socket was closed); never waits."""
        return self._frames.partial or bool(select.select([self._fd], [], [], 0)[0])

    def send(self, message: Message) -> None:
        data = memoryview(pack(message))
        while data:
            data = data[os.write(self._fd, data) :]


def main(argv: list[str]) -> int:
    """Fork a grader for each socket that arrives, until the server closes the control socket. Returns the exit code."""
    control = socket.socket(fileno=int(argv[1]))
    control.set_inheritable(False)
    timeout_s, memory_bytes, spec = float(argv[2]), int(argv[3]), "".join(argv[4:])
    _die_with(int(argv[0]))
    run = None if spec else _ours()
    gc.collect()
    gc.freeze()  # what is imported is not looked through again: its pages stay shared
    channel = _forked(control)
    return 0 if channel is None else _grade(channel, run, spec, timeout_s, memory_bytes)


def _forked(control: socket.socket) -> Channel | None:
    """In each grader its end of the socket; in the template None, once the server has closed `control`."""
    template, woken, wake = os.getpid(), *os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    graders: dict[int, int] = {}  # pid: the end of its socket, kept to say how it ended
    while True:
        ready = select.select([control, woken], [], [])[0]
        if woken in ready:
            os.read(woken, 4096)
            _report_ends(graders)
        if control in ready:
            if not (fds := socket.recv_fds(control, 1, 1)[1]):
                return None
            if pid := os.fork():
                graders[pid] = fds[0]
                continue
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for fd in (control.detach(), woken, wake, *graders.values()):
                os.close(fd)
            _die_with(template)
            return Channel(fds[0])


def _report_ends(graders: dict[int, int]) -> None:
    for pid in list(graders):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            channel = graders.pop(pid)
            with suppress(OSError):  # the server killed it and has closed its own end
                Channel(channel).send(Ended(os.waitstatus_to_exitcode(status)))
            os.close(channel)


def _grade(channel: Channel, run: Run | None, spec: str, timeout_s: float, memory_bytes: int) -> int:
    """Serve until the server closes the socket. Returns the exit code."""
    channel.send(Started(os.getpid()))
    try:
        run = run or _own(spec)
    except GraderError as error:
        channel.send(Unusable(str(error)))
        return 1
    # After the import: what the libraries need is not the completion's to spend.
    memory_bytes += _mapped_bytes() if spec else 0  # nobody knows what a user's file imports
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    channel.send(Ready())
    while (message := channel.receive()) is not None:
        if isinstance(message, Drop):
            channel.send(Dropped())
        elif isinstance(message, Work):
            for task in message.tasks:
                if channel.waiting():  # a drop, or the server is gone: in both cases the rest is not ours any more
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
    # A Ctrl-C in the terminal must not kill what the server still drains. Not a session of its own: Linux shares the
    # processor among sessions first (autogroups), and a grader of low priority would yield to nobody.
    os.setpgid(0, 0)


def _refresh_cpu_limit(timeout_s: float) -> None:
    used = time.process_time()
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(used + timeout_s + CPU_GRACE_S) + 1, hard))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
