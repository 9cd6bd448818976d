"""What is freed goes back to the machine at once, where many ranks gather layer after layer."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path

from chorus.learner.training.memory import give_back_what_is_freed

MIB, BLOCKS = 2**20, 8


def resident() -> float:
    """MiB of this process."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def freed(gives_back: bool, told: Connection) -> None:
    """By how much a process has grown that freed all of its blocks but the last."""
    if gives_back:
        give_back_what_is_freed()
    del (first := [bytearray(31 * MIB)])[:]  # from here on the C library would keep blocks of this size
    before = resident()
    blocks = [bytearray(30 * MIB) for _ in range(BLOCKS)]
    del blocks[:-1]
    told.send(resident() - before)
    assert not first
    assert blocks


def growth(gives_back: bool) -> float:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=freed, args=(gives_back, theirs))
    process.start()
    process.join(60)
    assert ours.poll()
    return ours.recv()


def test_freed_blocks_do_not_stay() -> None:
    assert 20 < growth(gives_back=True) < 60
    assert growth(gives_back=False) > 100, "the C library gives them back by itself: the call is not needed here"
