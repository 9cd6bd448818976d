"""Who carries a run out holds its folder.

    the lock       the system drops it with the process, however that ends; all processes of one kernel see it
    owner.json     who has it, and a count that goes up while it lives: for file systems without locks, and for other
                   hosts. It is gone after a start that came to its end

An owner that is here is asked for at the kernel (runtime/owner.py). One from elsewhere is watched: it is gone when its
count has stood still for as long as WATCH_S, whatever the clocks say.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chorus.protocol.run_folder.files import read_json, write_json
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.heartbeat import beating
from chorus.protocol.runtime.owner import Owner

OWNER = "owner.json"
BEAT_S = 5.0
WATCH_S = 20.0
_PATIENCE_S = 1.0  # whoever only asks holds it for a moment
_POLL_S = 0.2


@contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """While the block runs, the run is going on. Raises CannotGoOn where it is going on already."""
    folder = os.open(run_dir, os.O_RDONLY)
    end = time.monotonic() + _PATIENCE_S
    try:
        while (locked := _lock(folder, fcntl.LOCK_EX)) is False:
            if time.monotonic() > end:
                raise _going_on(run_dir, Owner.read(read_json(run_dir / OWNER)))
            time.sleep(0.05)
        _await_gone(run_dir, bool(locked))
        with _owned(run_dir):
            yield
    finally:
        os.close(folder)


def is_held(run_dir: Path) -> bool:
    """A `chorus run` carries this run out now."""
    folder = os.open(run_dir, os.O_RDONLY)
    try:
        if _lock(folder, fcntl.LOCK_SH) is False:
            return True
    finally:
        os.close(folder)
    owner = Owner.read(read_json(run_dir / OWNER))
    return owner is not None and owner.is_here and owner.lives


def _lock(folder: int, kind: int) -> bool | None:
    """None: the file system knows no locks, and owner.json alone tells."""
    try:
        fcntl.flock(folder, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _await_gone(run_dir: Path, locked: bool) -> None:
    """Return when nobody has the folder. Raises CannotGoOn."""
    first, me = read_json(run_dir / OWNER), Owner.me()
    owner = Owner.read(first)
    if owner is None or owner == me or (locked and owner.boot == me.boot):
        return
    if owner.is_here:
        if owner.lives:
            raise _going_on(run_dir, owner)
        return
    end = time.monotonic() + WATCH_S
    while time.monotonic() < end:
        time.sleep(_POLL_S)
        if read_json(run_dir / OWNER) not in (first, {}):
            raise _going_on(run_dir, owner)


@contextmanager
def _owned(run_dir: Path) -> Iterator[None]:
    path, me, counts = run_dir / OWNER, Owner.me().as_dict(), itertools.count()

    def beat() -> None:
        with contextlib.suppress(OSError):  # a full disk, a folder that was renamed meanwhile
            write_json(path, me | {"beats": next(counts)})

    beat()
    try:
        with beating("owner", BEAT_S, beat):
            yield
    finally:
        path.unlink(missing_ok=True)


def _going_on(run_dir: Path, owner: Owner | None) -> CannotGoOn:
    by = f", by {owner}" if owner else ""
    return CannotGoOn(f"{run_dir}: this run is going on already{by}; stop the other `chorus run` first")
