"""The reward server's application in this process: its routes, settings and errors without a socket or a grader."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import patch

import httpx

from chorus.reward_server.api.app import create_app
from chorus.reward_server.api.settings import Settings
from chorus.reward_server.graders.registry import run
from chorus.reward_server.graders.task import GradeTask, Reply
from chorus.reward_server.pool.pool import QueueFullError


class InlinePool:
    """What the pool of grader processes does, without processes: grades at once, where it is asked."""

    ready = True
    failed = None
    unfinished = 0

    def __init__(self, workers: int, max_queue: int, **_: Any) -> None:
        self.workers = self.warm_workers = workers
        self._max_queue = max_queue

    def start(self) -> None: ...

    async def close(self) -> None: ...

    async def run(self, tasks: Sequence[GradeTask]) -> list[Reply]:
        if len(tasks) > self._max_queue:
            raise QueueFullError(2)
        return [run(task) for task in tasks]


@asynccontextmanager
async def inline_server(**settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application with these settings."""
    with patch("chorus.reward_server.api.pools.GraderPool", InlinePool):
        app = create_app(Settings(**settings))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://reward") as client,
    ):
        yield client
