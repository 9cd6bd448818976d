"""What a power cut of Redis's machine takes: the end of the append-only file. Here it is cut off by hand."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
import redis
from flaky import FlakyRedis

from chorus.protocol.ledger import GeneratorLedger, LearnerLedger, Lease, LedgerLostError
from chorus.protocol.runtime.redis import connect, connect_async

LEASE_S = 1.0


def log_file(folder: Path) -> Path:
    """The part of the append-only file that is being written."""
    return max(folder.rglob("*.incr.aof"), key=lambda p: p.stat().st_mtime)


def power_cut(server: FlakyRedis, folder: Path, size: int) -> None:
    """What was written beyond `size` never reached the disk."""
    server.stop()
    with log_file(folder).open("r+b") as file:
        assert size < file.seek(0, 2), "else nothing was lost"
        file.truncate(size)
    server.start()


def written_size(server: FlakyRedis, folder: Path) -> int:
    """Of the log with all in it that was answered: a slow fsync holds up the writes of the moments after it."""
    client, end = redis.Redis.from_url(server.url), time.monotonic() + 10
    while client.info("persistence")["aof_buffer_length"]:  # type: ignore[index]
        assert time.monotonic() < end, "the log is not written"
        time.sleep(0.02)
    return log_file(folder).stat().st_size


async def lease_and_commit(url: str, count: int, wait_s: float = 0.1) -> list[Lease]:
    async with connect_async(url) as client:
        ledger = GeneratorLedger(client, "run", "a", LEASE_S)
        leases = await ledger.lease(count, block_s=wait_s)
        for lease in leases:
            assert await ledger.commit(lease, b"group")
        return leases


def test_commits_that_redis_forgot_are_leased_and_sampled_again(flaky_redis: FlakyRedis, tmp_path: Path) -> None:
    learner = LearnerLedger(connect(flaky_redis.url), "run")
    learner.admit(0, [b"0", b"1", b"2", b"3"], capacity=4)
    assert len(asyncio.run(lease_and_commit(flaky_redis.url, 2))) == 2
    size = written_size(flaky_redis, tmp_path)
    forgotten = asyncio.run(lease_and_commit(flaky_redis.url, 2))
    power_cut(flaky_redis, tmp_path, size)

    accounts = learner.accounts()
    assert (accounts.unread, accounts.queued + accounts.leased, accounts.difference) == (2, 2, 0)
    again = asyncio.run(lease_and_commit(flaky_redis.url, 4, wait_s=2 * LEASE_S))
    assert {lease.index for lease in again} == {lease.index for lease in forgotten}
    assert [entry.index for entry in learner.read(9, 0.1)] == [0, 1, 2, 3]
    assert learner.accounts().difference == 0


def test_admissions_that_redis_forgot_end_this_learner_and_the_next_one_goes_on_from_the_count(
    flaky_redis: FlakyRedis, tmp_path: Path
) -> None:
    learner = LearnerLedger(connect(flaky_redis.url), "run")
    learner.admit(0, [b"0", b"1"], capacity=9)
    size = written_size(flaky_redis, tmp_path)
    learner.admit(2, [b"2", b"3"], capacity=9)
    power_cut(flaky_redis, tmp_path, size)

    with pytest.raises(LedgerLostError, match="2 admitted where 4 were expected"):
        learner.admit(4, [b"4"], capacity=9)
    resumed = LearnerLedger(connect(flaky_redis.url), "run")
    assert resumed.admitted() == 2
    assert resumed.admit(2, [b"2", b"3"], capacity=9) == 2
    assert resumed.accounts().difference == 0


def test_a_log_whose_end_is_half_a_command_is_read_up_to_there(flaky_redis: FlakyRedis, tmp_path: Path) -> None:
    learner = LearnerLedger(connect(flaky_redis.url), "run")
    learner.admit(0, [b"0"], capacity=9)
    size = written_size(flaky_redis, tmp_path)
    learner.admit(1, [b"1"], capacity=9)
    power_cut(flaky_redis, tmp_path, size + 20)
    assert learner.admitted() == 1
    assert learner.accounts().difference == 0
