"""Child processes that never outlive their parent, whoever of them is killed, and however.

`spawn_guarded` puts two small guards between a parent and its command:

    parent ══ socket ══▶ reaper ──▶ guard ──▶ command ──▶ whatever the command starts

The guard starts the command and stops it: when it is asked to, or when the socket ends because the parent is
gone (a `kill -9` closes it too). It sends SIGTERM to the command, waits a grace period, then sends SIGKILL to
everything below itself. Being a subreaper it inherits every orphan, so that a grandchild (a worker of vLLM's, say)
can hide neither in a session of its own nor behind a dead father. The reaper does nothing but outlive the
guard: a killed guard's orphans fall to it, and it kills them; a killed reaper is a signal to the guard. Who
kills one process of the chain, any one, leaves nothing behind.

    server = spawn_guarded([sys.executable, "-m", "http.server", "0"], name="server", log=Path("server.log"))
    server.poll()           # None while the command runs, then its exit status (-9: killed by signal 9)
    server.stop(grace_s=5)  # SIGTERM, at most 5 s, then SIGKILL to all that is left

The guards are `protocol/runtime/guard.py`, run as a program; they take some 100 ms to start. Linux only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

from chorus.protocol.runtime import guard

START_DEADLINE_S = 20.0
_controls: weakref.WeakSet[socket.socket] = weakref.WeakSet()


class SpawnError(RuntimeError):
    """The command could not be started. The message names it and says why."""


class Guarded:
    """A command under guard. Keep the object: the command is stopped when nobody refers to it any more."""

    def __init__(self, name: str, pid: int, reaper: subprocess.Popen[bytes], control: socket.socket) -> None:
        self.name = name
        self.pid = pid  # of the command itself
        self._warden = reaper
        self._control = control
        _controls.add(control)

    def poll(self) -> int | None:
        """The command's exit status, None while anything of it runs; negative: killed by that signal."""
        return _as_status(self._warden.poll())

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for the end of the command and of all that it started. Raises TimeoutError."""
        try:
            return _as_status(self._warden.wait(timeout_s)) or 0
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.name} (pid {self.pid}) still runs after {timeout_s} s") from None

    async def wait_async(self) -> int:
        """`wait` for coroutines; cancelling it leaves the command as it is."""
        if (status := self.poll()) is not None:
            return status
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        descriptor = os.pidfd_open(self._warden.pid)  # readable once the process has ended
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        return self.wait()

    def request_stop(self, grace_s: float = 10.0) -> None:
        """Ask for SIGTERM now and SIGKILL after `grace_s`; returns at once."""
        with contextlib.suppress(OSError):  # the guard may be gone, and with it what it guarded
            self._control.sendall(f"{grace_s}\n".encode())

    def stop(self, grace_s: float = 10.0) -> int:
        """Stop the command and all that it started; returns its exit status. At most grace_s + 15 s."""
        self.request_stop(grace_s)
        try:
            return self.wait(grace_s + guard.LINGER_S + guard.KILL_DEADLINE_S)
        except TimeoutError:
            self._warden.kill()
            return self.wait(guard.KILL_DEADLINE_S)

    def kill(self) -> int:
        """SIGKILL to the command and all that it started, at once."""
        return self.stop(grace_s=0.0)


def spawn_guarded(
    argv: Sequence[str],
    *,
    name: str,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    cpus: set[int] | None = None,
    grace_s: float = 10.0,
) -> Guarded:
    """Start `argv` under guard and return when it runs (some 100 ms; at most START_DEADLINE_S).

    `env` replaces the environment (None: inherited). `log` is appended to; None: output goes where the
    parent's goes. `cpus` are the cores that the command may use. `grace_s` holds when the parent dies
    without asking. Raises SpawnError.
    """
    ours, theirs = socket.socketpair()
    order = {"fd": theirs.fileno(), "argv": list(argv), "cpus": sorted(cpus or ()), "grace_s": grace_s}
    output = log.open("ab") if log is not None else None
    try:
        reaper = subprocess.Popen(
            # -I: neither the folder of this file nor PYTHON* variables may change what the guard imports.
            [sys.executable, "-I", "-S", guard.__file__, name, json.dumps(order)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=None if env is None else dict(env),
            pass_fds=(theirs.fileno(),),
            start_new_session=True,  # a Ctrl-C in the terminal reaches the parent alone
        )
    finally:
        theirs.close()
        if output is not None:
            output.close()
    pid = _await_start(name, ours, reaper)
    return Guarded(name, pid, reaper, ours)


def free_port() -> int:
    """A port of this machine's loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def bind_tree(pid: int, cpus: set[int]) -> None:
    """Let a process, its threads and all that it has started use `cpus` alone; what has ended is passed over."""
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                os.sched_setaffinity(int(thread.name), cpus)
                for child in (thread / "children").read_text().split():
                    bind_tree(int(child), cpus)


def _await_start(name: str, control: socket.socket, reaper: subprocess.Popen[bytes]) -> int:
    control.settimeout(START_DEADLINE_S)
    try:
        answer = control.makefile("rb").readline().decode()
    except TimeoutError:
        answer = f"no sign of it after {START_DEADLINE_S} s"
    control.settimeout(None)
    if answer.strip().isdigit():
        return int(answer)
    reaper.kill()
    reaper.wait()
    control.close()
    raise SpawnError(f"{name} can't be started: {answer.strip() or 'its guard died; see the log'}")


def _as_status(code: int | None) -> int | None:
    """Like a shell, the guards exit with 128 + n where signal n ended the command."""
    return 128 - code if code is not None and 128 < code < 192 else code


def _after_fork() -> None:
    """A child of the parent must not hold the sockets by whose end the guards know that the parent is gone."""
    for control in list(_controls):
        control.close()


os.register_at_fork(after_in_child=_after_fork)
