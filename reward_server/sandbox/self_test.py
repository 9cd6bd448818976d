"""The self-test: a program that tries to leave its sandbox. It runs inside and returns what it managed to do.

Standard library only: it is read as text and run as a model's program would be.
"""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import threading
from collections.abc import Callable

THREADS_ALLOWED = 64


def escapes(grader_pid: int) -> list[str]:
    """Names of the attempts that succeeded."""
    attempts: dict[str, Callable[[], object]] = {
        "a socket": lambda: socket.socket(),
        "a UNIX socket": lambda: socket.socket(socket.AF_UNIX),
        "a new process": _fork,
        "another program": lambda: os.execv("/bin/true", ["true"]),
        "a signal to its supervisor": lambda: os.kill(os.getppid() or 1, 0),
        "a signal to its grader": lambda: os.kill(grader_pid, 0),
        "ptrace": lambda: _raises(ctypes.CDLL(None, use_errno=True).ptrace(0, 0, 0, 0)),
        "reading /etc/passwd": lambda: open("/etc/passwd").close(),
        "reading /proc": lambda: os.listdir("/proc/1"),
        "listing /home or /root": lambda: os.listdir("/home") and os.listdir("/root"),
        "writing a file": _write,
        "a link": lambda: os.symlink("/etc/passwd", "/tmp/link"),
        "a memory file": lambda: os.close(os.memfd_create("x")),
        "becoming root": lambda: os.setuid(0),
        "raising its limits": lambda: resource.setrlimit(resource.RLIMIT_CPU, (10**6, 10**6)),
        "surviving its parent": lambda: _raises(ctypes.CDLL(None, use_errno=True).prctl(1, 0, 0, 0, 0)),
        "a thread bomb": _thread_bomb,
        "a memory bomb": lambda: bytearray(1 << 40),
    }
    escaped = [name for name, attempt in attempts.items() if _succeeds(attempt)]
    if set(os.environ) - {"LC_CTYPE", "PWD"}:  # Python and bubblewrap set these two themselves
        escaped.append("reading the environment")
    if os.geteuid() == 0:
        escaped.append("being root")
    return escaped


def _succeeds(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except (OSError, RuntimeError, MemoryError, ValueError):
        return False
    return True


def _raises(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def _write() -> None:
    for folder in ("/", "/tmp", "/dev/shm", "/var/tmp", os.path.dirname(os.__file__)):
        try:
            os.open(os.path.join(folder, "escaped"), os.O_CREAT | os.O_WRONLY, 0o600)
        except OSError:
            continue
        return
    raise OSError("nowhere")


def _thread_bomb() -> None:
    stop = threading.Event()
    threading.stack_size(1 << 16)
    try:
        for _ in range(THREADS_ALLOWED):
            threading.Thread(target=stop.wait, daemon=True).start()
    finally:
        stop.set()
