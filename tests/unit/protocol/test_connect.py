"""A server that is away for a moment is waited for; one that stays away is an error after the patience."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
import redis
from flaky import FlakyRedis

from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.redis import _Retry, await_redis, connect, connect_async, leave


def test_a_command_waits_for_a_server_that_comes_back(flaky_redis: FlakyRedis) -> None:
    client = connect(flaky_redis.url, patience_s=20.0)
    client.set("book", "kept")
    flaky_redis.away_for(1.5)
    assert client.get("book") == b"kept"
    with client.pipeline() as pipe:
        assert pipe.get("book").execute() == [b"kept"]


async def test_a_coroutine_waits_as_well(flaky_redis: FlakyRedis) -> None:
    async with connect_async(flaky_redis.url, patience_s=20.0) as client:
        await client.set("book", "kept")
        flaky_redis.away_for(1.5)
        assert await client.get("book") == b"kept"


def test_a_server_that_stays_away_is_an_error_when_patience_ends(flaky_redis: FlakyRedis) -> None:
    client = connect(flaky_redis.url, patience_s=1.0)
    flaky_redis.stop()
    started = time.monotonic()
    with pytest.raises(redis.ConnectionError):
        client.get("book")
    assert 0.9 < time.monotonic() - started < 8


async def test_a_coroutine_gives_up_as_well(flaky_redis: FlakyRedis) -> None:
    async with connect_async(flaky_redis.url, patience_s=1.0) as client:
        await client.get("book")
        flaky_redis.stop()
        with pytest.raises(redis.ConnectionError):
            await asyncio.wait_for(client.get("book"), 8)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "redis.url is empty; give a server's address"),
        ("http://localhost", "redis.url http://localhost: .*write it as redis://HOST:PORT/0"),
        ("redis://:secret@127.0.0.1:9/0", "redis.url redis://127.0.0.1:9/0: .*is the server running and reachable"),
    ],
)
def test_an_address_where_nobody_answers_is_named_without_its_password(url: str, why: str) -> None:
    with pytest.raises(CannotGoOn, match=why):
        await_redis(url, deadline_s=0.2)


def test_a_server_that_stands_still_when_a_service_starts_is_waited_for(
    redis_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chorus.protocol.runtime.redis._SOCKET_TIMEOUT_S", 0.2)
    client.execute_command("CLIENT", "PAUSE", 1500, "ALL")
    started = time.monotonic()
    await_redis(redis_url, deadline_s=0.1)
    assert time.monotonic() - started > 1.0


def test_who_was_asked_to_stop_waits_no_longer_for_a_server_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chorus.protocol.runtime.redis.LEAVING_PATIENCE_S", 0.2)
    client = redis.Redis.from_url("redis://127.0.0.1:9/0", retry=_Retry(30.0))
    asked = threading.Timer(0.3, leave, [True])
    asked.start()
    began = time.monotonic()
    try:
        with pytest.raises(redis.ConnectionError):
            client.ping()
        assert time.monotonic() - began < 5.0
    finally:
        asked.join()
        leave(False)
