"""Who carries a run out holds its folder: a lock that the system drops with the process, however that ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chorus.protocol.runtime.exits import CannotGoOn

_PATIENCE_S = 1.0  # whoever only asks holds it for a moment


@contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """While the block runs, the run is going on. Raises CannotGoOn where it is going on already."""
    folder = os.open(run_dir, os.O_RDONLY)
    end = time.monotonic() + _PATIENCE_S
    try:
        while not _lock(folder, fcntl.LOCK_EX):
            if time.monotonic() > end:
                raise CannotGoOn(f"{run_dir}: this run is going on already; stop the other `chorus run` first")
            time.sleep(0.05)
        yield
    finally:
        os.close(folder)


def is_held(run_dir: Path) -> bool:
    """A `chorus run` carries this run out now."""
    folder = os.open(run_dir, os.O_RDONLY)
    try:
        return not _lock(folder, fcntl.LOCK_SH)
    finally:
        os.close(folder)


def _lock(folder: int, kind: int) -> bool:
    try:
        fcntl.flock(folder, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system that knows no locks: then nobody is seen to hold it
        return True
    return True
