"""Connections to Redis that sit out a short absence of the server, and say clearly when it stays away.

A call that finds no server, or a full one, tries again with growing pauses until PATIENCE_S after it began, then
raises. A command whose reply was lost may so be carried out twice; the ledger's scripts and readers allow for that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, OutOfMemoryError, ResponseError

from chorus.protocol.runtime.addresses import is_plain, shown
from chorus.protocol.runtime.exits import CannotGoOn

# Of a generator's environment, which its engine's workers have, too: the run's name on Redis, a space, Redis' address.
RENDEZVOUS = "CHORUS_RENDEZVOUS"
PATIENCE_S = 60.0
LEAVING_PATIENCE_S = 2.0  # of a process that was asked to stop
START_DEADLINE_S = 5.0
_SOCKET_TIMEOUT_S = 10.0  # longer than any blocking read; a server that hangs is as good as gone
_HOPELESS = (AuthenticationError, AuthorizationError)


def is_full(error: Exception) -> bool:
    """The server answers, but can take nothing more: its memory or the disk of its append-only file is full."""
    return isinstance(error, OutOfMemoryError) or "MISCONF" in str(error)


_leaving_since = float("inf")


def leave(asked: bool) -> None:
    """This process was asked to stop: from now on it waits LEAVING_PATIENCE_S at most for a server that is away."""
    global _leaving_since
    _leaving_since = time.monotonic() if asked else float("inf")


class _Patient:
    """Counted tries would multiply, since redis-py retries a connect within a retried command: a time does not."""

    def __init__(self, patience_s: float) -> None:
        super().__init__(ExponentialBackoff(cap=2.0, base=0.1), -1)  # type: ignore[call-arg]
        self.update_supported_errors([ResponseError])  # type: ignore[attr-defined]
        self._patience_s = patience_s

    def call_with_retry(self, do: Callable[[], Any], fail: Callable[..., Any], *_: Any, **options: Any) -> Any:
        end = time.monotonic() + self._patience_s

        def worth_it(error: Exception) -> bool:
            if isinstance(error, _HOPELESS) or (isinstance(error, ResponseError) and not is_full(error)):
                return False
            return time.monotonic() < min(end, _leaving_since + LEAVING_PATIENCE_S)

        options["is_retryable"] = worth_it
        return super().call_with_retry(do, fail, **options)  # type: ignore[misc]


class _Retry(_Patient, redis.retry.Retry):
    pass


class _AsyncRetry(_Patient, redis.asyncio.retry.Retry):
    pass


def connect(url: str, patience_s: float = PATIENCE_S, named: str = "redis.url") -> redis.Redis:
    """A client of a server that answers now. Raises CannotGoOn; `named` is where the address was given."""
    await_redis(url, min(patience_s, START_DEADLINE_S), named)
    return redis.Redis.from_url(url, retry=_Retry(patience_s), **_options())


def connect_async(url: str, patience_s: float = PATIENCE_S) -> redis.asyncio.Redis:
    """The same for coroutines; nothing is asked of the server yet."""
    return redis.asyncio.Redis.from_url(url, retry=_AsyncRetry(patience_s), **_options())


def server_time(client: redis.Redis) -> float:
    """Redis' clock, in unix seconds: the one that all processes of a run can compare."""
    return _seconds(client.time())


async def server_time_async(client: redis.asyncio.Redis) -> float:
    return _seconds(await client.time())


def _seconds(told: Any) -> float:
    seconds, microseconds = told
    return seconds + microseconds / 1e6


def glance(url: str, timeout_s: float = 2.0) -> redis.Redis:
    """A client for what can do without an answer: it waits for `timeout_s` at most and never tries again."""
    return redis.Redis.from_url(url, retry=_Retry(0.0), socket_connect_timeout=timeout_s, socket_timeout=timeout_s)


def await_redis(url: str, deadline_s: float = START_DEADLINE_S, named: str = "redis.url") -> None:
    """Return when the server answers. Raises CannotGoOn. One that is there and stands still is given PATIENCE_S, as by
    those that have met it before: a service may be started again just then."""
    if not url:
        raise CannotGoOn(
            f"{named} is empty; give a server's address, such as redis://127.0.0.1:6379/0 "
            "(`chorus run` alone starts one of its own)"
        )
    began = time.monotonic()
    while True:
        try:
            with redis.Redis.from_url(url, retry=_Retry(0.0), **_options()) as client:
                client.ping()
            return
        except redis.BusyLoadingError:
            problem = "it is still loading its data; wait for it"
        except redis.RedisError as error:
            mend = "is its disk full? make room" if is_full(error) else "is the server running and reachable?"
            problem = f"{_words(error, url)}; {mend}" + ("" if is_plain(url) else " In a password, write /?#@ as %XX.")
        except (ValueError, TypeError) as error:
            # Its words quote what it takes for a port, which may be a part of a password.
            why = str(error) if str(error).startswith("Redis URL must") else "it can't be read as an address"
            raise CannotGoOn(
                f"{named} {shown(url)}: {why}; write it as redis://HOST:PORT/0, rediss:// with TLS, special characters "
                "of a password as %XX"
            ) from None
        limit_s = max(deadline_s, PATIENCE_S) if "Timeout reading" in problem else deadline_s
        if time.monotonic() - began > limit_s:
            raise CannotGoOn(f"{named} {shown(url)}: {problem}")
        time.sleep(0.1)


def lost(url: str, error: redis.RedisError) -> CannotGoOn:
    """What a process says that has lost its server for good."""
    if isinstance(error, OutOfMemoryError):
        return CannotGoOn(
            f"redis.url {shown(url)}: it has reached its maxmemory, and still after {PATIENCE_S:g} s; raise that "
            "(`chorus run --dry-run` says what a recipe needs), then go on with --resume"
        )
    if is_full(error):
        return CannotGoOn(
            f"redis.url {shown(url)}: it can't write its append-only file, and still after {PATIENCE_S:g} s (is its "
            "disk full?); make room, then go on with --resume"
        )
    return CannotGoOn(
        f"redis.url {shown(url)}: {_words(error, url)}, and again after {PATIENCE_S:g} s of trying; bring "
        "the server back with its data, then go on with --resume"
    )


def _options() -> dict[str, Any]:
    return {"socket_connect_timeout": 5, "socket_timeout": _SOCKET_TIMEOUT_S, "health_check_interval": 15}


def _words(error: redis.RedisError, url: str) -> str:
    """The client's words, which name the host that it found in the address: where that may be a part of a password,
    only what kind of error it is."""
    return str(error).rstrip(".") if is_plain(url) else type(error).__name__
