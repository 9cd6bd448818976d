"""Readers of what a process prints may leave (`chorus run | head -3`): a run goes on, a listing ends.

with readers_may_leave(goes_on=True):
    print("...")      # never raises because nobody reads
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any, TextIO

ENDED = 128 + signal.SIGPIPE  # exit status, as a shell has it for a program that the signal ended


@contextlib.contextmanager
def readers_may_leave(goes_on: bool, name: str = "chorus") -> Iterator[None]:
    """While the block runs, output that nobody reads is dropped; unless the work `goes_on` without, it ends with ENDED.

    One word on the other stream says that the work goes on. Neither way leaves a traceback, at the end included.
    """
    before = sys.stdout, sys.stderr
    errors: Any = _Outlet(before[1], goes_on=True)  # what nobody reads there ends nothing
    sys.stderr = errors
    sys.stdout = _Outlet(before[0], goes_on, f"{name}: nobody reads its output any more; it goes on")  # type: ignore[assignment]
    try:
        yield
        sys.stdout.flush()
    finally:
        with contextlib.suppress(SystemExit):  # the block may end by an error of its own
            sys.stdout.flush()
        sys.stdout, sys.stderr = before


class _Outlet:
    """A text stream, whose reader may leave."""

    def __init__(self, stream: TextIO, goes_on: bool, word: str = "") -> None:
        self._stream, self._goes_on, self._word = stream, goes_on, word

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._left()
            return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._left()

    def _left(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # a stream that is no file has none to replace
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # what is still buffered goes there
            os.close(nowhere)
        if not self._goes_on:
            raise SystemExit(ENDED)
        if self._word:
            print(self._word, file=sys.stderr, flush=True)
            self._word = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
