"""The two guards over a command, run as a program by `protocol/runtime/processes.py`, which tells the whole story.

    python guard.py NAME ORDER      ORDER: JSON {"fd", "argv", "cpus", "grace_s"}

Over the socket `fd` the guard answers with the command's pid (or with why it can't be started), and reads
the seconds of grace with which it shall stop. The end of the socket is the end of the parent: it stops as
well. It imports the standard library only, so that it starts fast and has nothing that can fail later.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from typing import Any

# After a command's own end: time for its helpers (multiprocessing's resource tracker) to tidy up and leave.
LINGER_S = 1.0
# SIGKILL can't be refused, but a process in an uninterruptible wait takes it late.
KILL_DEADLINE_S = 10.0

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_WARDEN_IS_DEAD = signal.SIGUSR1


def _main(order: dict[str, Any]) -> int:
    """The reaper; it forks the guard. Returns the exit code of the process that returns from it."""
    control = socket.socket(fileno=order["fd"])
    control.set_inheritable(False)  # the command must not hold it
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    reaper = os.getpid()
    guard = os.fork()
    if guard == 0:
        wake = _signals_as_bytes()
        _prctl(_PR_SET_PDEATHSIG, _WARDEN_IS_DEAD)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # a fork does not inherit it
        if os.getppid() != reaper:
            return 1
        return _guard(control, wake, order["argv"], set(order["cpus"]), order["grace_s"])
    control.close()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda n, _: os.kill(guard, n))
    status = os.waitstatus_to_exitcode(os.waitpid(guard, 0)[1])
    _kill_descendants()  # there are some only if the guard was killed
    return status if status >= 0 else 128 - status


def _guard(control: socket.socket, wake: int, argv: list[str], cpus: set[int], grace_s: float) -> int:
    """Start the command, see it to its end, and leave nothing of it. Returns the exit code."""
    guard = os.getpid()
    try:
        # Kept until the end: a Popen that is collected reaps its process, and the exit status is lost.
        process = subprocess.Popen(argv, preexec_fn=lambda: _become_command(guard, cpus))
    except (OSError, subprocess.SubprocessError) as error:
        with contextlib.suppress(OSError):
            control.sendall(f"{error}\n".encode())
        return 127
    command = process.pid
    with contextlib.suppress(OSError):  # a parent that is gone is noticed below
        control.sendall(f"{command}\n".encode())
    status, deadline = None, float("inf")
    while status is None and time.monotonic() < deadline:
        grace = _next_request(control, wake, deadline, grace_s)
        if grace is not None:
            _send(command, signal.SIGTERM)
            deadline = min(deadline, time.monotonic() + grace)
        status = _reap(command)
    if status is not None:
        _linger()
    killed = _kill_descendants(command)
    if status is None:
        status = killed if killed is not None else -signal.SIGKILL
    return status if status >= 0 else 128 - status


def _become_command(guard: int, cpus: set[int]) -> None:
    """Between fork and exec: die with the guard, run on `cpus` only."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guard:  # it died before the line above
        os._exit(1)
    if cpus:
        os.sched_setaffinity(0, cpus)


def _signals_as_bytes() -> int:
    """Have signals written into a pipe, so that one `select` waits for them too. Returns the end to read."""
    read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(write_end)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, _WARDEN_IS_DEAD):
        signal.signal(number, lambda *_: None)
    return read_end


def _next_request(control: socket.socket, wake: int, deadline: float, grace_s: float) -> float | None:
    """Wait for a child's end (None), or for a reason to stop: the grace period in seconds."""
    sources = [wake] if control.fileno() < 0 else [wake, control]
    timeout_s = None if deadline == float("inf") else max(0.0, deadline - time.monotonic())
    ready = select.select(sources, [], [], timeout_s)[0]
    if control in ready:
        try:
            words = control.recv(4096).decode().split()
        except OSError:
            words = []
        if words:
            return min(float(word) for word in words)
        control.close()  # the parent is gone
        return grace_s
    if wake in ready:
        numbers = set(os.read(wake, 4096))
        if _WARDEN_IS_DEAD in numbers:
            return 0.0
        if numbers - {signal.SIGCHLD}:
            return grace_s
    return None


def _reap(command: int) -> int | None:
    """Collect all that ended below this process; returns the command's exit status if it was among them."""
    status = None
    while True:
        try:
            pid, raw = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == command:
            status = os.waitstatus_to_exitcode(raw)


def _linger() -> None:
    end = time.monotonic() + LINGER_S
    while _descendants() and time.monotonic() < end:
        time.sleep(0.02)
        _reap(0)


def _kill_descendants(command: int = 0) -> int | None:
    """SIGKILL to everything below this process until nothing is left; returns what `_reap` returns."""
    end, status = time.monotonic() + KILL_DEADLINE_S, None
    while (left := _descendants()) and time.monotonic() < end:
        for pid in left:
            _send(pid, signal.SIGKILL)
        time.sleep(0.005)
        # The children of what was just killed have fallen to this process; the next round sees them.
        status = s if (s := _reap(command)) is not None else status
    return status


def _descendants() -> list[int]:
    """All processes below this one, the dead that nobody has collected included."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                with open(f"/proc/{entry.name}/stat", "rb") as stat:
                    # The command's name, in parentheses, may contain anything.
                    parent = int(stat.read().rpartition(b")")[2].split()[1])
            except OSError:
                continue  # it ended meanwhile
            children.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    queue = [os.getpid()]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


if __name__ == "__main__":
    # argv[1] is the name, for those who read a list of processes.
    sys.exit(_main(json.loads(sys.argv[2])))
