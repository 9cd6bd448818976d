"""Inside the sandbox: one clean interpreter that keeps order, and a forked child for each test.

    argv: mechanism, parent pid (0 = unknown) | stdin: frames in | stdout: frames out
    start -> filter built, walls built -> {"ready": true} -> {"program", limits} -> tests, one at a time -> EOF -> exit

Frames hold JSON. A test is {"stdin"} or {"function", "args"}; what comes back is
what the child left, uninterpreted: how it ended, what it wrote, and the value it sent, as text.
Nothing of this project is imported here but this package; no result is judged here.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from typing import Any

from . import frames, isolation, libc, runner
from .syscalls import Filter

_CHUNK = 1 << 16
_STDERR_BYTES = 4096  # of a traceback, the end is what one reads


def main(mechanism: str, parent_pid: int) -> None:
    """Serve until stdin ends; does not return. In a child, what its program raises travels out of here."""
    libc.die_with_parent()
    if parent_pid and os.getppid() != parent_pid:  # it died before the line above
        sys.exit(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a handler would make pid 1 reachable from inside
    control, bodies = _take_pipes(), frames.Bodies()

    def receive() -> dict[str, Any] | None:
        body = bodies.read(control[0])
        return None if body is None else json.loads(body)

    try:
        filter = Filter()
        isolation.build(mechanism, isolation.library_folders())
    except OSError as error:
        _send(control[1], {"refused": str(error)})
        sys.exit(1)
    _send(control[1], {"ready": True})
    program = receive() or sys.exit(0)
    while (test := receive()) is not None:
        ends = _Pipes()
        pid = os.fork()
        if pid == 0:
            runner.become(ends.theirs, filter, program["limits"])
            runner.run(program["source"], test)  # does not return
            return
        _send(control[1], _watch(pid, ends, test, program["limits"]))
    os._exit(0)  # nothing is open, and tearing down an interpreter takes longer than a test


class _Pipes:
    """stdin, stdout, stderr and the value of one child; `ours` do not block."""

    def __init__(self) -> None:
        pairs = [os.pipe() for _ in range(4)]
        self.theirs = [pairs[0][0], *(write for _, write in pairs[1:])]
        self.stdin, self.out, self.err, self.value = pairs[0][1], *(read for read, _ in pairs[1:])
        for fd in (self.stdin, self.out, self.err, self.value):
            os.set_blocking(fd, False)


def _watch(pid: int, pipes: _Pipes, test: dict[str, Any], limits: dict[str, Any]) -> dict[str, Any]:
    """Feed and read a child until it ends or breaks a limit; then it is dead, and all of it with it."""
    for fd in pipes.theirs:
        os.close(fd)
    started = time.monotonic()
    wall_s = min(limits["wall_s"], test["budget_s"])
    ended = os.pidfd_open(pid)
    stdin = memoryview(test.get("stdin", "").encode())
    got = {pipes.out: bytearray(), pipes.err: bytearray(), pipes.value: bytearray()}
    poll = select.poll()
    for fd in (*got, ended):
        poll.register(fd, select.POLLIN)
    poll.register(pipes.stdin, select.POLLOUT)
    broke = None
    while broke is None:
        left_s = started + wall_s - time.monotonic()
        events = dict(poll.poll(left_s * 1000)) if left_s > 0 else {}
        if left_s <= 0:
            broke = "wall"
        if pipes.stdin in events:
            stdin = _feed(pipes.stdin, stdin)
            if not stdin:
                poll.unregister(pipes.stdin)
                os.close(pipes.stdin)
                pipes.stdin = -1
        for fd in got:
            if fd in events and not _drain(fd, got[fd]):
                poll.unregister(fd)
        del got[pipes.err][:-_STDERR_BYTES]
        if max(len(got[pipes.out]), len(got[pipes.value])) > limits["output_bytes"]:
            broke = "output"
        if ended in events:
            break
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    for fd, data in got.items():  # what was in the pipes when it ended; nobody else holds them
        while broke is None and len(data) <= limits["output_bytes"] and _drain(fd, data):
            pass
    for fd in (*got, ended, *([pipes.stdin] if pipes.stdin >= 0 else [])):
        os.close(fd)
    cpu_s = usage.ru_utime + usage.ru_stime
    code = os.waitstatus_to_exitcode(status)
    # The kernel counts towards its limit by ticks, which run ahead of what it reports on a busy machine.
    if broke is None and code in (-signal.SIGKILL, -signal.SIGXCPU) and cpu_s >= 0.7 * limits["cpu_s"]:
        broke = "cpu"
    return {
        "broke": broke,
        "exit": code,
        "cpu_s": cpu_s,
        "wall_s": time.monotonic() - started,
        "out": got[pipes.out].decode(errors="replace"),
        "err": got[pipes.err][-_STDERR_BYTES:].decode(errors="replace"),
        "started": got[pipes.value].startswith(runner.STARTED),
        "value": got[pipes.value][len(runner.STARTED) :].decode(errors="replace"),
    }


def _feed(fd: int, data: memoryview) -> memoryview:
    try:
        return data[os.write(fd, data[:_CHUNK]) :] if data else data
    except BlockingIOError:
        return data
    except BrokenPipeError:  # it does not read its input: its business
        return data[:0]


def _drain(fd: int, into: bytearray) -> bool:
    """Read once; False at the end of the pipe, and when there is nothing."""
    try:
        data = os.read(fd, _CHUNK)
    except BlockingIOError:
        return False
    into += data
    return bool(data)


def _take_pipes() -> tuple[int, int]:
    """The frame pipes, moved away from 0 and 1, where a child will have its own."""
    control = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    return control


def _send(fd: int, message: dict[str, Any]) -> None:
    frames.write(fd, json.dumps(message).encode())
