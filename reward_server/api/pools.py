"""The pools of one server: one for the graders that come with it, and one for each of a user's own.

A user's grader has processes of its own, so that neither its imports nor what it leaves behind meet another grader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from chorus.protocol.graders import GraderSpec
from chorus.reward_server.api.settings import Settings
from chorus.reward_server.graders.task import GradeTask, Reply
from chorus.reward_server.pool.grader_process import RestartReason
from chorus.reward_server.pool.pool import GraderPool


class Pools:
    """Sends each task where its grader lives. Start it on a running loop."""

    def __init__(self, settings: Settings, on_restart: Callable[[RestartReason], None]) -> None:
        def pool(workers: int, grader: GraderSpec | None = None) -> GraderPool:
            return GraderPool(
                workers=workers,
                timeout_s=settings.timeout_s,
                memory_bytes=settings.memory_bytes,
                max_queue=settings.max_queue,
                spares=settings.spares,
                on_restart=on_restart,
                grader=grader,
            )

        self._ours = pool(settings.workers)
        self._own = {spec.name: pool(spec.workers, spec) for spec in settings.graders}
        self._all = (self._ours, *self._own.values())

    def start(self) -> None:
        for pool in self._all:
            pool.start()

    async def close(self) -> None:
        for pool in self._all:
            await pool.close()

    async def run(self, tasks: Sequence[GradeTask]) -> list[Reply]:
        """The replies to `tasks`, in order. Raises QueueFullError and PoolFailedError, as a pool does."""
        places: dict[GraderPool, list[int]] = {}
        for place, task in enumerate(tasks):
            places.setdefault(self._own.get(task.kind, self._ours), []).append(place)
        if len(places) < 2:
            return await next(iter(places), self._ours).run(tasks)
        for pool, mine in places.items():
            pool.check_room(len(mine))  # before any of them takes a part
        parts = await asyncio.gather(*(pool.run([tasks[place] for place in mine]) for pool, mine in places.items()))
        found: dict[int, Reply] = {}
        for mine, part in zip(places.values(), parts, strict=True):
            found |= zip(mine, part, strict=True)
        return [found[place] for place in range(len(tasks))]

    @property
    def ready(self) -> bool:
        """Whether every worker of every pool is warm."""
        return all(pool.ready for pool in self._all)

    @property
    def workers(self) -> int:
        return sum(pool.workers for pool in self._all)

    @property
    def warm_workers(self) -> int:
        return sum(pool.warm_workers for pool in self._all)

    @property
    def unfinished(self) -> int:
        return sum(pool.unfinished for pool in self._all)

    @property
    def failed(self) -> str | None:
        return next((pool.failed for pool in self._all if pool.failed is not None), None)
