"""Outside the sandbox: which mechanism this machine has, and one sandbox for one program.

    mechanisms(): each that passed the self-test, best first    Sandbox: start -> ready -> run(test)* -> closed

A mechanism is found by trying it: a sandbox is built, and a program inside tries to break out (`escapes`). Only one
in which every attempt failed is used. Nothing here waits without a limit: a sandbox that does not answer is killed.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from chorus.reward_server.sandbox import frames

MECHANISMS = ("bubblewrap", "namespaces", "landlock")
_START_LIMIT_S = 10.0
_ANSWER_GRACE_S = 0.5  # beyond the child's own wall limit
_CLOSE_GRACE_S = 0.5
_PACKAGE = Path(__file__).resolve().parent
_START = (
    "import sys; sys.path.insert(0, sys.argv[3]); from sandbox.supervisor import main; "
    "sys.path.pop(0); main(sys.argv[1], int(sys.argv[2]))"
)


class SandboxError(Exception):
    """The sandbox failed, not the program in it."""


@dataclass(frozen=True)
class Limits:
    """What one test may use. `cpu_s` is whole seconds, as the kernel counts them."""

    cpu_s: int
    wall_s: float
    memory_bytes: int = 512 << 20  # address space
    output_bytes: int = 4 << 20  # standard output, and the value of a function


@dataclass(frozen=True)
class Outcome:
    """What a child left behind."""

    broke: str | None  # the limit it broke: "cpu" | "wall" | "output"
    exit: int  # exit status; minus the signal that killed it
    cpu_s: float
    wall_s: float
    out: str
    err: str  # its end
    value: str  # JSON of what the function returned; "" when it did not return


class Sandbox:
    """A supervisor and its walls, for one program. Use it as a context manager: leaving it kills what is inside."""

    def __init__(self, mechanism: str, source: str, limits: Limits) -> None:
        self._limits = limits
        self._bodies = frames.Bodies()
        self._supervisor = subprocess.Popen(
            _command(mechanism),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},  # the server's token is in its environment
            cwd="/",
            start_new_session=True,
        )
        try:
            ready = self._receive(_START_LIMIT_S)
            if "refused" in ready:
                raise SandboxError(f"{mechanism}: {ready['refused']}")
            self._send({"source": source, "limits": asdict(limits)})
        except BaseException:
            self.close()
            raise

    def run(self, test: dict[str, Any], budget_s: float) -> Outcome:
        """Run one test: {"stdin": text}, or {"function": name, "args": list}; for `budget_s` at most."""
        self._send({**test, "budget_s": budget_s})
        report = self._receive(min(self._limits.wall_s, budget_s) + _ANSWER_GRACE_S)
        if not report.pop("started"):
            raise SandboxError(f"the program was not started: {report['err'].strip()[-200:]}")
        return Outcome(**report)

    def close(self) -> None:
        """End the supervisor, at its own pace if it is quick: only then does it reap what it started."""
        for pipe in (self._supervisor.stdin, self._supervisor.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._supervisor.wait(_CLOSE_GRACE_S)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()  # its parent-death signal takes the rest with it
            self._supervisor.wait()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, message: dict[str, Any]) -> None:
        try:  # the supervisor reads a message to its end before it does anything else
            frames.write(self._fd("stdin"), json.dumps(message).encode())
        except BrokenPipeError as error:
            raise SandboxError("the sandbox ended before its program was run") from error

    def _receive(self, limit_s: float) -> dict[str, Any]:
        deadline, fd = time.monotonic() + limit_s, self._fd("stdout")
        while (body := self._bodies.next()) is None:
            if not select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise SandboxError("the sandbox did not answer within its limit")
            data = os.read(fd, 1 << 20)
            if not data:
                raise SandboxError(f"the sandbox ended (exit status {self._supervisor.wait()})")
            self._bodies.add(data)
        return json.loads(body)

    def _fd(self, name: str) -> int:
        return getattr(self._supervisor, name).fileno()


@lru_cache(maxsize=1)
def find_mechanism() -> tuple[str | None, str]:
    """(the first mechanism that holds, "") or (None, why none does). Takes a fraction of a second, once."""
    reasons = []
    for mechanism in MECHANISMS:
        try:
            escaped = try_to_escape(mechanism)
        except (SandboxError, OSError) as error:
            reasons.append(f"{mechanism}: {str(error).removeprefix(mechanism + ': ')}")
            continue
        if not escaped:
            return mechanism, ""
        reasons.append(f"{mechanism}: it does not stop {', '.join(escaped)}")
    return None, "; ".join(reasons)


def try_to_escape(mechanism: str) -> list[str]:
    """Names of the attempts that succeeded in a sandbox of this mechanism; [] is what one wants.

    Raises SandboxError or OSError when the sandbox cannot be built or does not run an honest program.
    """
    source = (_PACKAGE / "self_test.py").read_text()
    limits = Limits(cpu_s=2, wall_s=_START_LIMIT_S)
    with Sandbox(mechanism, source, limits) as sandbox:
        outcome = sandbox.run({"function": "escapes", "args": [os.getpid()]}, _START_LIMIT_S)
    if not outcome.value:
        raise SandboxError(f"a program does not run in it ({outcome.err.strip()[-200:] or outcome.exit})")
    return json.loads(outcome.value)


def interpreter() -> str:
    """The base interpreter: isolated (-I -S), it has nothing of a virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def _command(mechanism: str) -> list[str]:
    supervisor = [interpreter(), "-I", "-S", "-B", "-X", "utf8", "-c", _START, mechanism]
    if mechanism != "bubblewrap":
        return [*supervisor, str(os.getpid()), str(_PACKAGE.parent)]
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise SandboxError("there is no bwrap command")
    return [bwrap, *_bubblewrap_arguments(), "--", *supervisor, "0", str(_PACKAGE.parent)]


def _bubblewrap_arguments() -> list[str]:
    """Everything unshared, and of the files only the interpreter, its libraries and this package, read-only."""
    python = interpreter()
    library = str(Path(python).parents[1] / "lib")
    arguments = ["--unshare-all", "--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL"]
    for path in dict.fromkeys(["/usr", "/lib", "/lib64", python, library, str(_PACKAGE)]):
        arguments += ["--ro-bind-try", path, path]
    return [*arguments, "--dev-bind", "/dev/null", "/dev/null", "--remount-ro", "/", "--chdir", "/"]
