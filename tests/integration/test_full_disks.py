"""Disks that fill, on small file systems in memory: what can be waited for is waited for, the rest says so."""

from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from flaky import FlakyRedis
from liverun import end_run
from scriptedlive import start_scripted_run

from chorus.cli.inspect.audit import audit_folder
from chorus.protocol.ledger import GeneratorLedger, LearnerLedger
from chorus.protocol.runtime.exits import CANNOT_GO_ON
from chorus.protocol.runtime.redis import connect, connect_async, is_full, lost


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """2 MiB of its own. Skips where file systems can't be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "chorus-test", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk can't be mounted here: {error}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True, timeout=20)


def fill(folder: Path) -> Path:
    file = folder / "filler"
    with file.open("wb", buffering=0) as out:
        try:
            while out.write(bytes(4096)):
                pass
        except OSError:
            return file
    raise AssertionError("the disk took it all")


@pytest.fixture
def server(small_disk: Path) -> Iterator[FlakyRedis]:
    server = FlakyRedis(small_disk)
    yield server
    server.close()


def until_it_refuses(url: str) -> None:
    """What is not yet on disk is accepted for up to a second."""
    client, end = redis.Redis.from_url(url), time.monotonic() + 10
    while not refuses(client):
        assert time.monotonic() < end, "it accepts whatever comes"
        time.sleep(0.05)


def refuses(client: redis.Redis) -> bool:
    try:
        client.set("noise", bytes(9000))
    except redis.ResponseError as error:
        return is_full(error)
    return False


def test_a_redis_whose_disk_is_full_is_waited_for_while_somebody_makes_room(
    server: FlakyRedis, small_disk: Path
) -> None:
    learner = LearnerLedger(connect(server.url), "run")
    learner.admit(0, [b"0"], capacity=9)
    filler = fill(small_disk)
    until_it_refuses(server.url)
    threading.Timer(1.0, filler.unlink).start()
    assert learner.admit(1, [b"1"], capacity=9) == 1

    async def work() -> None:
        async with connect_async(server.url) as client:
            ledger = GeneratorLedger(client, "run", "a", 5.0)
            for lease in await ledger.lease(2, block_s=0.5):
                assert await ledger.commit(lease, b"group")

    asyncio.run(work())
    assert [entry.index for entry in learner.read(9, 0.1)] == [0, 1]
    assert learner.accounts().difference == 0


def test_a_redis_whose_disk_stays_full_is_named_when_patience_ends(server: FlakyRedis, small_disk: Path) -> None:
    learner = LearnerLedger(connect(server.url, patience_s=0.5), "run")
    fill(small_disk)
    until_it_refuses(server.url)
    with pytest.raises(redis.ResponseError) as raised:
        learner.admit(0, [b"0"], capacity=9)
    assert "can't write its append-only file" in str(lost(server.url, raised.value))


@pytest.mark.slow
def test_a_run_whose_disk_fills_ends_with_one_line_and_goes_on_when_there_is_room(
    small_disk: Path, tmp_path: Path, tiny_model: Path, redis_url: str
) -> None:
    """Redis has another disk here; one that shares it waits a minute for room first, as in the tests above."""
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True, timeout=20)
    run = start_scripted_run(
        small_disk, tiny_model, steps=8, output=tmp_path / "first.log", overrides=[f"redis.url={redis_url}"]
    )
    try:
        run.wait_step(2, 120)
        filler = fill(small_disk)
        assert run.process.wait(100) == CANNOT_GO_ON
    finally:
        end_run(run)
    last_word = next(line for line in run.output.read_text().splitlines() if line.startswith("chorus run: "))
    assert "disk" in last_word
    assert "make room" in last_word
    filler.unlink()
    run = start_scripted_run(small_disk, tiny_model, output=tmp_path / "second.log", resume=run.folder)
    try:
        assert run.process.wait(120) == 0, run.tail()
    finally:
        end_run(run)
    assert audit_folder(run.folder) == 0
