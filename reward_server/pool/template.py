"""The process that grader processes are forked from: what they import is imported once.

    pool ──a socket──▶ template: libraries imported, warm ──fork──▶ grader on that socket

A grader that was killed is so replaced within milliseconds, where the imports would take seconds of processor time.
The template grades nothing and never sees a completion. It dies with the server, and its graders die with it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import suppress

from chorus.protocol.graders import GraderSpec

COMMAND = (sys.executable, "-P", "-m", "chorus.reward_server.pool.worker")
_END_S = 2.0  # SIGKILL can't be refused; a process in an uninterruptible wait takes it late


class Template:
    """Starts with the first grader that is asked for, and again whenever it is gone."""

    def __init__(self, timeout_s: float, memory_bytes: int, grader: GraderSpec | None) -> None:
        self._arguments = [str(timeout_s), str(memory_bytes)]
        if grader is not None:
            self._arguments.append(grader.model_dump_json())
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def fork(self, channel: socket.socket) -> None:
        """Ask for one grader, which will talk over `channel`. Raises OSError where no process can be started."""
        try:
            self._ask(channel)
        except (BrokenPipeError, ConnectionResetError):  # it is gone
            self.kill()
            self._ask(channel)

    def _ask(self, channel: socket.socket) -> None:
        if self._control is None:
            self._control = self._start()
        socket.send_fds(self._control, [b"g"], [channel.fileno()])  # a template that still imports reads it later

    def kill(self) -> None:
        """End it and all its graders, which the kernel ends."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
        self._process = self._control = None

    def _start(self) -> socket.socket:
        """Returns the server's end of the control socket."""
        self.starts += 1
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            # One thread a grader: BLAS pools would count against RLIMIT_AS and fight over the cores.
            self._process = subprocess.Popen(
                [*COMMAND, str(os.getpid()), str(theirs.fileno()), *self._arguments],
                stdin=subprocess.DEVNULL, stdout=2, pass_fds=[theirs.fileno()],
                env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )  # fmt: skip
        return ours
