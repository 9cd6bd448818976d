"""The reward server's grading without a server: its own application, in this process, over no socket.

The graders are the same killable processes with the same limits; nothing of a completion is evaluated here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from chorus.protocol.rewards import RewardSpec
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.reward_server.api.app import create_app
from chorus.reward_server.api.settings import Settings

_READY_S = 60.0
_BATCH = 256
_REAP_S = 0.2  # asyncio's watchers report the killed graders to this loop and complain where it is closed by then


class Grading:
    """Asks the application as a client would."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def grade(self, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The grades of `/v1/grade` items, in order. Raises CannotGoOn where none of them can be graded here.

        A single one that can't is an `error` with its reason: it has no accuracy, and is not wrong.
        """
        results: list[dict[str, Any]] = []
        for start in range(0, len(items), _BATCH):
            answer = await self._ask("/v1/grade/batch", {"items": list(items[start : start + _BATCH])})
            results += answer["results"]
        if results and all(result["refused"] for result in results):
            raise CannotGoOn(f"grading: {results[0]['reason']}; mend the rows or the template that it names")
        return results

    async def cluster(self, texts: Sequence[str], kind: str, mode: str) -> list[int | None]:
        """Completions to numbers of equal answers, by `/v1/cluster`; None for one without an answer."""
        found = await self._ask("/v1/cluster", {"completions": list(texts), "kind": kind, "mode": mode})
        pairs = zip(found["clusters"], found["extracted"], strict=True)
        return [None if answer is None else cluster for cluster, answer in pairs]

    async def explain(self, item: dict[str, Any]) -> dict[str, Any]:
        return await self._ask("/v1/explain", item)

    async def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = await self._http.post(path, json=body)
        if answer.status_code != 200:
            raise CannotGoOn(f"grading: {answer.json().get('detail', answer.text)}")
        return answer.json()


@asynccontextmanager
async def local_grading(
    workers: int = 1,
    timeout_s: float = 5.0,
    templates: Sequence[Path] = (),
    reward: RewardSpec | None = None,
    settings: Settings | None = None,
) -> AsyncIterator[Grading]:
    """Start the graders, wait until they are warm, stop them at the end; `settings` stand for all else.

    Raises CannotGoOn.
    """
    chosen = {"workers": workers, "timeout_s": timeout_s, "templates": tuple(templates)}
    try:
        app = create_app(settings or Settings(**chosen, reward=reward or RewardSpec()))
    except ValueError as error:
        raise CannotGoOn(str(error)) from None
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would tell every request
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://grading", timeout=None) as http,
    ):
        deadline = time.monotonic() + _READY_S
        while (state := await http.get("/readyz")).status_code != 200:
            if (failed := state.json()["failed"]) is not None:
                raise CannotGoOn(failed)
            if time.monotonic() > deadline:
                raise CannotGoOn(f"the graders were not ready after {_READY_S:g} s; see their messages above")
            await asyncio.sleep(0.05)
        yield Grading(http)
    await asyncio.sleep(_REAP_S)
