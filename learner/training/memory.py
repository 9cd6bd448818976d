"""The learner's memory, as it is seen: its peak, and what there is."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import torch

_CGROUP = Path("/sys/fs/cgroup/memory.max")


def peak_memory() -> tuple[int, int]:
    """(largest so far, limit) in bytes: on this rank's GPU, or of this process where there is none."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_reserved(), torch.cuda.mem_get_info()[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux
    return peak, min(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), _cgroup_limit())


def _cgroup_limit() -> int:
    """What the container may take."""
    try:
        return int(_CGROUP.read_text())
    except (OSError, ValueError):  # none, or "max"
        return sys.maxsize
