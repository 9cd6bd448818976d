"""What the tests on real engines share (`make compose-test`, `slurm-test`, `hosts-test`): phases, and one way to end.

    with drive.phase("three steps trained"): ...       compose-test:   12.3 s  three steps trained
    drive.check(n == 3, "three generators sample")     compose-test:           three generators sample

What does not hold or does not come in time is a DriveError: FAILED and 1. Where nothing of the kind can be started it
is a NothingHereError: SKIPPED and 0.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


class DriveError(AssertionError):
    """Something did not happen, or not in time."""


class NothingHereError(RuntimeError):
    """What the test needs can't be started on this machine."""


class Drive:
    def __init__(self, name: str) -> None:
        self._name = name
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        for line in text.splitlines():
            print(f"{self._name}:           {line}", flush=True)

    @contextlib.contextmanager
    def phase(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        print(f"{self._name}: {time.monotonic() - began:6.1f} s  {what}", flush=True)

    def check(self, holds: bool, what: str) -> None:
        if not holds:
            raise DriveError(f"it does not hold that {what}")
        self.say(what)

    def run(self, work: Callable[[], None], clean: Callable[[], None], cleaned: str) -> int:
        """The exit status. `clean` is done whatever happens, also after a signal; `cleaned` is its phase."""
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _leave)
        try:
            work()
            status = 0
        except NothingHereError as why:
            print(f"{self._name}: SKIPPED: {why}")
            status = 0
        except DriveError as error:
            print(f"{self._name}: FAILED: {error}", file=sys.stderr)
            status = 1
        finally:
            with self.phase(cleaned):
                clean()
        print(f"{self._name}: {time.monotonic() - self._began:6.1f} s  in all")
        return status


def awaited(
    what: str, ready: Callable[[], Any], deadline_s: float, seen: Callable[[], str], every_s: float = 1.0
) -> Any:
    """The first true value of `ready`, whose errors mean not yet. Raises DriveError with what is seen at the end."""
    end, problem = time.monotonic() + deadline_s, ""
    while time.monotonic() < end:
        try:
            if value := ready():
                return value
        except (DriveError, OSError, ValueError, LookupError) as error:
            problem = f" ({error})"
        time.sleep(every_s)
    raise DriveError(f"not within {deadline_s:.0f} s: {what}{problem}\n{seen()}")


def _leave(*_: object) -> None:
    """Through every `finally`, which a second signal does not cut short."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.exit(143)


def arguments(about: str | None, real: str) -> argparse.ArgumentParser:
    """Of a test that trains the demo. real: what --real counts."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=int, default=0, help=real)
    parser.add_argument("--model", type=Path, help="a model's folder in the starter's place")
    parser.add_argument("--set", action="append", default=[], help="another value for a key of the recipe")
    parser.add_argument("--keep", action="store_true", help="leave the folder with all logs")
    return parser


def holders(folder: Path, secret: str) -> list[str]:
    """The files that hold it; those that others could read with their mode."""
    found = []
    for path in sorted(folder.rglob("*")):
        with contextlib.suppress(OSError):  # no file, or one that is gone
            if secret in path.read_bytes().decode(errors="replace"):
                mode = stat.S_IMODE(path.stat().st_mode)
                found.append(str(path.relative_to(folder)) + ("" if mode == 0o600 else f" ({mode:o})"))
    return found


def told_by_arguments(*secrets: str) -> list[str]:
    """Commands of this machine's processes that show one of them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().decode(errors="replace").replace("\0", " ")
            found += [line for secret in secrets if secret in line]
    return found
