"""The least that a weight sync can be: the same bytes from one process to another over gloo, nothing else.

The far side is this module run as a program, on the generator's cores; its buffers are allocated once.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.distributed import ProcessGroup

from chorus.protocol.runtime.processes import spawn_guarded
from chorus.protocol.weights import broadcast, host_store, join_store, open_group

_NAME = "raw"
_DEADLINE_S = 300.0  # the far side waits so long between two broadcasts


class RawPeer:
    """This side of the pair; `send` may be called as often as the far side was told."""

    def __init__(self, group: ProcessGroup) -> None:
        self._group = group

    def send(self, buckets: list[torch.Tensor]) -> float:
        """Seconds until the far side has all bytes."""
        started = time.monotonic()
        _exchange(self._group, buckets)
        return time.monotonic() - started


@contextmanager
def raw_peer(sizes: list[int], rounds: int, cores: set[int], log: Path) -> Iterator[RawPeer]:
    """A process that receives buckets of these sizes (bytes), `rounds` times."""
    store = host_store("127.0.0.1", 0, _DEADLINE_S)
    argv = [sys.executable, "-m", "chorus.benchmarks.raw_broadcast", str(store.port), str(rounds), *map(str, sizes)]
    process = spawn_guarded(argv, name="raw-peer", log=log, cpus=cores, grace_s=1.0)
    try:
        # The hosting connection waits inside the store's own server; a second one does the talking.
        talking = join_store("127.0.0.1", store.port, _DEADLINE_S)
        yield RawPeer(open_group("gloo", talking, _NAME, 0, 2, _DEADLINE_S))
    finally:
        process.stop(1.0)


def _exchange(group: ProcessGroup, buckets: list[torch.Tensor]) -> None:
    for bucket in buckets:
        broadcast(group, bucket, _DEADLINE_S)
    group.barrier().wait()  # a sender's call returns once the bytes are on their way


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("rounds", type=int)
    parser.add_argument("sizes", type=int, nargs="+")
    args = parser.parse_args()
    torch.set_num_threads(1)
    group = open_group("gloo", join_store("127.0.0.1", args.port, _DEADLINE_S), _NAME, 1, 2, _DEADLINE_S)
    buckets = [torch.empty(size, dtype=torch.uint8) for size in args.sizes]
    for _ in range(args.rounds):
        _exchange(group, buckets)


if __name__ == "__main__":
    main()
