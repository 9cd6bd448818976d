"""Who is held on which version, as the learner last wrote it: those answer its questions, and the others sample on."""

from __future__ import annotations

import logging
from typing import Any

import redis.asyncio

from chorus.protocol.ledger.keys import Queue
from chorus.protocol.messages import Hold, MessageError, Version

log = logging.getLogger("chorus.generator")


class StandingHold:
    """As one generator sees it."""

    def __init__(self, client: redis.asyncio.Redis, key: str, generator_id: str) -> None:
        self._client = client
        self._key = key
        self._id = generator_id
        self._hold: Hold | None = None

    async def look(self) -> None:
        """Read it again. What can't be read holds nobody."""
        data: Any = await self._client.get(self._key)
        try:
            self._hold = Hold.decode(data) if data else None
        except MessageError as error:
            log.warning("who is held on which version can't be read, and is ignored: %s", error)
            self._hold = None

    def lets_lease(self, queue: Queue) -> bool:
        """Who is held takes questions alone, and while somebody is, nobody else takes them."""
        return self._hold is None or (self._id in self._hold.generators) == (queue == "eval")

    @property
    def step(self) -> int | None:
        """Of the version on which somebody is held."""
        return Version.parse(self._hold.version).step if self._hold else None
