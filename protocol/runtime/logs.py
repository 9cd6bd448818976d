"""How every process logs: lines for people, or with CHORUS_LOG=json one JSON object a line for machines.

    CHORUS_LOG=DEBUG         a level (default INFO)
    CHORUS_LOG=json          objects
    CHORUS_LOG=json,DEBUG    both

An object has `time` (UTC), `level`, `logger`, `role`, `message`, and where they are known `process` (a generator's
id), `run` and `version` (of the weights, `fence.step`); after an error also `exception`. Warnings of libraries and the
traceback of an error that nobody caught become objects too. What C++ code writes to stderr past Python stays as it is.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType

from chorus.protocol.runtime.exits import CannotGoOn

VARIABLE = "CHORUS_LOG"
_HUMAN = "%(asctime)s %(name)s %(levelname)s %(message)s"
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_context: dict[str, str] = {}


def set_up(role: str) -> None:
    """Call it once, first of all. Raises CannotGoOn for a CHORUS_LOG that says nothing known."""
    level = "INFO"
    as_json = False
    for word in os.environ.get(VARIABLE, "").replace(",", " ").split():
        if word.lower() == "json":
            as_json = True
        elif word.upper() in _LEVELS:
            level = word.upper()
        else:
            raise CannotGoOn(f"{VARIABLE}={word}: unknown; give json, a level ({', '.join(_LEVELS)}), or both")
    tell(role=role)
    logging.basicConfig(level=level, format=_HUMAN)
    if as_json:
        _write_json()


def tell(**fields: str) -> None:
    """From now on every JSON line says this too (`run`, `process`, `version`). Any thread may call it."""
    global _context
    _context = {**_context, **fields}


def last_word(text: str) -> None:
    """The one line on stderr with which a process ends that can't go on.

    Where not even that can be written, since it goes to a log on a full disk, the exit code says it alone.
    """
    if _is_json():
        logging.getLogger("chorus").critical(text)
        return
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # or the interpreter would fail at its end, and change the code


def announce(text: str) -> None:
    """What a server says once when it starts; on stdout, where people and scripts wait for it."""
    if _is_json():
        logging.getLogger("chorus").info(text)
    else:
        print(text, flush=True)


def message_of(line: str) -> str:
    """What a line of a log says, whichever form it has."""
    try:
        fields = json.loads(line)
    except ValueError:
        return line
    return str(fields.get("message", line)) if isinstance(fields, dict) else line


class JsonFormatter(logging.Formatter):
    """One object a line; never a line break, whatever was logged."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            **_context,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


def _is_json() -> bool:
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers)


def _write_json() -> None:
    for handler in logging.getLogger().handlers:
        handler.setFormatter(JsonFormatter())
    logging.captureWarnings(True)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # transformers' bars obey it, too
    sys.excepthook = _uncaught
    threading.excepthook = lambda e: _uncaught(e.exc_type, e.exc_value, e.exc_traceback)


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt | SystemExit):
        logging.getLogger("chorus").critical("uncaught %s: %s", kind.__name__, error, exc_info=(kind, error, trace))  # type: ignore[arg-type]
