"""What is freed goes back to the machine at once, where many ranks gather layer after layer."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

from chorus.learner.training.memory import give_back_what_is_freed

MIB, BLOCKS = 2**20, 8


def resident() -> float:
    """MiB of this process."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def grown() -> float:
    """By how much a process has grown that freed all of its blocks but the last."""
    del (first := [bytearray(31 * MIB)])[:]  # from here on the C library keeps blocks of this size by itself
    before = resident()
    blocks = [bytearray(30 * MIB) for _ in range(BLOCKS)]
    del blocks[:-1]
    growth = resident() - before
    assert not first
    assert blocks
    return growth


def measure(told: Connection) -> None:
    by_itself = grown()
    give_back_what_is_freed()
    told.send((by_itself, grown()))


def test_freed_blocks_do_not_stay() -> None:
    """In a process of its own, whose memory nobody has had a say in."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=measure, args=(theirs,))
    process.start()
    process.join(60)
    assert ours.poll()
    by_itself, given_back = ours.recv()
    assert by_itself > 100, "the C library gives them back by itself: the call is not needed here"
    assert 20 < given_back < 60


def test_a_process_s_peak_is_its_own_and_not_that_of_who_started_it() -> None:
    ballast = b"x" * 2**30
    peak = "from chorus.learner.training.memory import process_peak; print(process_peak())"
    told = subprocess.run([sys.executable, "-c", peak], check=True, capture_output=True, text=True, timeout=60).stdout
    assert 2**20 < int(told) < len(ballast)
