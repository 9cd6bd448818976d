"""The learner's memory, as it is seen: its peak, and what there is; and what is freed goes back to the machine."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

_CGROUP = Path("/sys/fs/cgroup/memory.max")
_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of glibc's malloc.h
_LARGE = 2**20


def peak_memory() -> tuple[int, int]:
    """(largest so far, limit) in bytes: on this rank's GPU, or of this process where there is none."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_reserved(), torch.cuda.mem_get_info()[1]
    return process_peak(), min(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), _cgroup_limit())


def process_peak() -> int:
    """Bytes of memory that this process has held at most, since its program began: `ru_maxrss` counts also what the
    process held that started it."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux


def _cgroup_limit() -> int:
    """What the container may take."""
    try:
        return int(_CGROUP.read_text())
    except (OSError, ValueError):  # none, or "max"
        return sys.maxsize


def give_back_what_is_freed() -> None:
    """Blocks of a MiB and more are mapped one by one from here on, so that each goes back as soon as it is freed.

    By itself glibc soon keeps freed blocks of up to 32 MiB, and a rank that gathers one layer after another grows with
    each of them.
    """
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE)
