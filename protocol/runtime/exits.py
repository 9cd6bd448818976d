"""How a process says that trying again would not help."""

from __future__ import annotations

CANNOT_GO_ON = 3  # exit status: configuration or input is at fault; the supervisor does not restart


class CannotGoOn(RuntimeError):
    """Ends the process with `CANNOT_GO_ON` and this one line, which names what, where and the mend."""


def first_line(error: Exception) -> str:
    """Of a library's message, which may be pages, or nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)
