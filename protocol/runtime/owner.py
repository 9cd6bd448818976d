"""Who holds a run: one process, told from every other.

same place   same boot of the kernel, same namespace of processes: whether it lives can be seen, by its pid and by
             when that process was started (a pid comes again)
elsewhere    another host, a container made anew: its pid means nothing here, only its signs of life count
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True)
class Owner:
    """`started`: clock ticks from the boot to the process's start."""

    host: str
    boot: str
    namespace: str
    pid: int
    started: int

    @classmethod
    def me(cls) -> Self:
        boot, namespace = "", ""
        with contextlib.suppress(OSError):
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            namespace = os.readlink("/proc/self/ns/pid")
        return cls(socket.gethostname(), boot, namespace, os.getpid(), _started(os.getpid()) or 0)

    @classmethod
    def read(cls, fields: Any) -> Self | None:
        """What `as_dict` gave; None for anything else."""
        try:
            return cls(*(kind(fields[name]) for name, kind in _FIELDS.items()))
        except (KeyError, TypeError, ValueError):
            return None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def text(self) -> str:
        return json.dumps(self.as_dict(), sort_keys=True)

    @property
    def is_here(self) -> bool:
        """In the same place, so that `lives` can tell."""
        me = self.me()
        return bool(self.boot) and (self.boot, self.namespace) == (me.boot, me.namespace)

    @property
    def lives(self) -> bool:
        """Of an owner that is here."""
        return self.started > 0 and _started(self.pid) == self.started

    def __str__(self) -> str:
        return f"process {self.pid} on host {self.host}"


_FIELDS = {"host": str, "boot": str, "namespace": str, "pid": int, "started": int}


def _started(pid: int) -> int | None:
    """None where there is no such process, or one that has ended and was not buried yet."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
