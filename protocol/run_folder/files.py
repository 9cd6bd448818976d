"""How a file of a run is written, so that a crash leaves the old one or the new one, and read, also while it grows."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def write_whole(path: Path, data: str | bytes, durable: bool = False, private: bool = False) -> None:
    """Write whole or not at all. `durable`: on the disk before it returns, also after a power cut. `private`: nobody
    but its owner can read it at any time."""
    partial = path.with_name(path.name + ".partial")
    if private:
        partial.unlink(missing_ok=True)
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if private else 0o666), "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    partial.replace(path)
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_json(path: Path, value: Any, durable: bool = False) -> None:
    write_whole(path, json.dumps(value, indent=2) + "\n", durable)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty where there is no such file, or none that holds an object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def append_line(path: Path, row: Any) -> None:
    """One JSON line more. Raises ValueError for NaN and infinities, for which JSON has no word."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, allow_nan=False) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines, in order; a line that is being written, or that a crash cut, is skipped."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def write_lines(path: Path, rows: Iterable[Any]) -> None:
    """All lines anew, whole or not at all."""
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows))


def keep_lines(path: Path, kept: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Forget the lines that are not `kept`, and those that a crash cut; returns the others. No file is left none."""
    rows = [row for row in read_lines(path) if kept(row)]
    if path.is_file():
        write_lines(path, rows)
    return rows
