"""The few calls that Python's `os` does not have. Each raises OSError when the kernel refuses."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CAPABILITY_VERSION_3 = 0x20080522
_C = ctypes.CDLL(None, use_errno=True)


def _done(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags: int, refusal_allowed: bool = False) -> bool:
    """New namespaces. Returns whether they were made, where a refusal (EPERM) is allowed."""
    result = _C.unshare(flags)
    if result < 0 and refusal_allowed and ctypes.get_errno() == errno.EPERM:
        return False
    return _done(result, "unshare") == 0


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    texts = [None if text is None else text.encode() for text in (source, target, kind, options)]
    _done(_C.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3]), f"mount {target}")


def unmount(target: str, flags: int) -> None:
    _done(_C.umount2(target.encode(), flags), f"unmount {target}")


def pivot_root(new: str, old: str) -> None:
    _done(_C.pivot_root(new.encode(), old.encode()), "pivot_root")


def syscall(number: int, *arguments: int | bytes) -> int:
    """A system call that the C library may not know yet."""
    return _done(_C.syscall(ctypes.c_long(number), *map(_word, arguments)), f"system call {number}")


def die_with_parent() -> None:
    """SIGKILL when the thread that started this process ends, however it ends."""
    _done(_C.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")


def set_dumpable() -> None:
    _done(_C.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0), "prctl")


def no_new_privileges() -> None:
    """From here on no exec can gain privileges."""
    _done(_C.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")


def drop_capabilities() -> None:
    """Give up every capability, also those of root in a user namespace."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _done(_C.capset(header, struct.pack("=6I", 0, 0, 0, 0, 0, 0)), "capset")


def _word(argument: int | bytes) -> ctypes.c_long | bytes:
    return ctypes.c_long(argument) if isinstance(argument, int) else argument
