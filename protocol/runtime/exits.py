"""How a process says that trying again would not help."""

from __future__ import annotations

import re

CANNOT_GO_ON = 3  # exit status: configuration or input is at fault; the supervisor does not restart


class CannotGoOn(RuntimeError):
    """Ends the process with `CANNOT_GO_ON` and this one line, which names what, where and the mend."""


def first_line(error: BaseException) -> str:
    """Of a library's message, which may be pages, or nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def likeness(words: str) -> str:
    """What two messages of one cause have in common: all but numbers, addresses, ids and times."""
    return re.sub(r"0x[0-9a-fA-F]+|[0-9a-fA-F]*\d[0-9a-fA-F]*", "#", words.strip())
