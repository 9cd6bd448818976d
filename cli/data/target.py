"""A file that a command of data writes: a new one, since what is there may be what it reads."""

from __future__ import annotations

from pathlib import Path

from chorus.protocol.runtime.exits import CannotGoOn

PACKED = (".jsonl", ".jsonl.gz")


def check_new(path: Path | None, endings: tuple[str, ...] = PACKED) -> None:
    """What stands behind --write, before anything is read. Raises CannotGoOn."""
    if path is None:
        return
    if not path.name.endswith(endings):
        raise CannotGoOn(f"--write {path}: give a name that ends in {' or '.join(endings)}")
    if path.exists():
        raise CannotGoOn(
            f"--write {path}: it is there already, and is not written over; give another name, or remove it"
        )
