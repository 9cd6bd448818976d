"""The reward server, asked over HTTP: one call a group, tried again while it may help."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Sequence
from typing import Any, Protocol

import aiohttp

from chorus.protocol.messages import Grade, Task
from chorus.protocol.runtime.addresses import shown
from chorus.protocol.runtime.exits import CannotGoOn

log = logging.getLogger("chorus.generator")
_UNREACHABLE = Grade(verdict="error", accuracy=None, reason="the reward server did not answer within its deadline")


class Grader(Protocol):
    """Grades the completions of one task, in order."""

    async def grade(self, task: Task, texts: list[str]) -> list[Grade]: ...


class RewardServer:
    """The verifier over HTTP: one call a group, retried until it answers or the deadline is over.

    `clusters`: a second call says which samples of a group give the same answer, where the objective needs that.
    `terms`: the users' own graders whose scores the learner adds up; the server is asked for each by its name.
    `mode`: how answers are read and compared.
    """

    def __init__(
        self, url: str, deadline_s: float, clusters: bool = False, terms: Sequence[str] = (), mode: str = "train"
    ) -> None:
        self._base = url.rstrip("/")
        self._url = self._base + "/v1/grade/batch"
        self._deadline_s = deadline_s
        self._clusters = clusters
        self._mode = {"mode": mode} if mode != "train" else {}  # a verifier of one's own need not know the word
        self._asked = ({"terms": list(terms)} if terms else {}) | self._mode
        token = os.environ.get("CHORUS_REWARD_TOKEN")
        self._http = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {token}"} if token else None,
            connector=aiohttp.TCPConnector(limit=64, keepalive_timeout=2.0),
        )

    async def wait_ready(self, deadline_s: float) -> None:
        """Return when the server answers. Raises CannotGoOn: without grades there is nothing to learn from."""
        deadline = time.monotonic() + deadline_s
        while True:
            try:
                async with self._http.get(self._base + "/healthz", timeout=aiohttp.ClientTimeout(5.0)) as answer:
                    status = answer.status
                problem = f"/healthz answers with status {status}"
            except aiohttp.ClientConnectionError:
                status, problem = 0, "no connection"
            except aiohttp.InvalidURL:  # its words repeat the address
                status, problem = 0, "not the address of a server, such as http://HOST:8100"
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                status, problem = 0, type(error).__name__
            if status == 200:
                return
            if time.monotonic() > deadline or not self._base or "not the address" in problem:
                where = shown(self._base) if self._base else "is empty"
                raise CannotGoOn(
                    f"reward.url {where}: {problem}, for {deadline_s:g} s; start "
                    "`chorus reward-server` and give its address, or let `chorus run` start one"
                )
            await asyncio.sleep(0.2)

    async def grade(self, task: Task, texts: list[str]) -> list[Grade]:
        items = [{"completion": text} | task.grading() | self._asked for text in texts]
        deadline = time.monotonic() + self._deadline_s
        pause = 0.1
        while (left := deadline - time.monotonic()) > 0:
            if (results := await self._ask({"items": items}, left)) is not None:
                return await self._clustered(task, texts, results, left) if self._clusters else results
            await asyncio.sleep(min(pause, max(0.0, deadline - time.monotonic())))
            pause = min(2 * pause, 5.0)
        return [_UNREACHABLE] * len(texts)

    async def _clustered(self, task: Task, texts: list[str], grades: list[Grade], left_s: float) -> list[Grade]:
        """The grades with their clusters; as they are where the server can't say, since the verdicts still hold.

        The server puts all samples without an answer into one cluster. They do not agree with each other, so each
        gets one of its own.
        """
        body, timeout = {"completions": texts, "kind": task.kind} | self._mode, aiohttp.ClientTimeout(left_s)
        try:
            async with self._http.post(self._base + "/v1/cluster", json=body, timeout=timeout) as answer:
                answer.raise_for_status()
                found = json.loads(await answer.text())
            pairs = list(zip(found["clusters"], found["extracted"], strict=True))
            numbers = [c if text is not None else len(texts) + k for k, (c, text) in enumerate(pairs)]
            return [g.model_copy(update={"cluster": int(n)}) for g, n in zip(grades, numbers, strict=True)]
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError) as error:
            log.warning("group %d has no clusters: %s", task.index, _words(error))
            return grades

    async def _ask(self, body: dict[str, Any], left_s: float) -> list[Grade] | None:
        try:
            async with self._http.post(self._url, json=body, timeout=aiohttp.ClientTimeout(left_s)) as answer:
                return read_grades(shown(self._url), answer.status, await answer.read(), len(body["items"]))
        except (aiohttp.ClientError, TimeoutError):
            return None  # gone or restarting: worth another try

    async def close(self) -> None:
        await self._http.close()


def _words(error: Exception) -> str:
    """A client's words repeat the address, which may hold a password: of them only the kind and the status."""
    if isinstance(error, aiohttp.ClientResponseError):
        return f"status {error.status}"
    return type(error).__name__ if isinstance(error, aiohttp.ClientError) else str(error) or type(error).__name__


class GradeRefused(RuntimeError):
    """The reward server answered that it can't grade such items."""


def read_grades(url: str, status: int, data: bytes, wanted: int) -> list[Grade] | None:
    """The grades in an answer; None where asking again may help. Raises GradeRefused."""
    if status in (429, 502, 503, 504):
        return None
    if status != 200:
        # Refused for good (unknown template, wrong kind): asking again would only repeat it.
        raise GradeRefused(f"{url}: status {status}: {data[:500].decode(errors='replace')}")
    try:
        results = json.loads(data)["results"]
        grades = [Grade.model_validate(result) for result in results]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise GradeRefused(f"{url}: not an answer of a reward server: {error}") from None
    if results and all(result.get("refused") for result in results):
        raise GradeRefused(f"{url}: {str(results[0].get('reason'))[:500]}")
    if len(grades) != wanted:
        raise GradeRefused(f"{url}: {len(grades)} grades for {wanted} completions")
    return grades
