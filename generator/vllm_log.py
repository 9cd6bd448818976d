"""Why vLLM did not start, from its log."""

from __future__ import annotations

import re
from pathlib import Path

_END_BYTES = 64 * 2**10
_MOST_CHARACTERS = 400
_LABEL = re.compile(r"^(\(\w+ pid=\d+\) ?)?([A-Z]+ [\d-]+ [\d:]+ \[[^]]*\] )?")  # process; level, time and place
_ERROR = re.compile(r"^([\w.]*(Error|Exception)|[\w.]+: error): \S")


def last_error(log: Path, begin: int = 0) -> str:
    """The log's last error from byte `begin` on, in one line, or "" where it has none.

    An engine with workers in processes of their own ends with an error that only points to theirs above: that one is
    meant. An error of pydantic says what it is about on its second line.
    """
    with log.open("rb") as file:
        file.seek(max(begin, log.stat().st_size - _END_BYTES))
        lines = [_LABEL.sub("", line) for line in file.read().decode(errors="replace").splitlines()]
    errors = [k for k, line in enumerate(lines) if _ERROR.match(line) and "root cause" not in line]
    if not errors:
        return ""
    first = errors[-1]
    last = first + 1 + ("validation error" in lines[first])
    return " ".join(line.strip() for line in lines[first:last])[:_MOST_CHARACTERS]
