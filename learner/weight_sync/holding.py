"""Who stays on a version, while the others get newer ones: told to the fleet under one key on Redis."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import replace

import redis

from chorus.learner.training.distributed import Snapshot
from chorus.learner.weight_sync.fan_out import Link
from chorus.protocol.messages import Hold, Version


class Holding:
    """`kept`: the snapshot for those who are held. All calls but `tell` under `lock`, the broadcaster's."""

    def __init__(self, client: redis.Redis, key: str, lock: threading.Condition) -> None:
        self.kept: Snapshot | None = None
        self._most = 0
        self._word: bytes | None = None  # for the fleet; None: nobody is held
        self._told: bytes | None = None
        self._client = client
        self._key = key
        self._lock = lock
        self._telling = threading.Lock()
        client.delete(key)  # a learner's that ended

    def begin(self, links: Collection[Link], newest: Snapshot | None, most: int) -> int:
        """Keep up to `most` on the newest version, and one at least free of that. Returns how many."""
        able = [link for link in links if link.report and not link.gone]
        number = min(most, len(able) - 1)
        if number > 0:
            self.kept, self._most = newest, number
            self.choose(links)
        return max(0, number)

    def renew(self, links: Collection[Link], fence: int) -> None:
        """Where nobody is left who could have the kept version: under a newer fence everybody can."""
        if self.kept is not None:
            self.kept = replace(self.kept, version=Version(fence=fence, step=self.kept.version.step))
            self.choose(links)

    def end(self, links: Collection[Link]) -> None:
        """Everybody gets the newest version again."""
        self.kept, self._most = None, 0
        self.choose(links)

    def choose(self, links: Collection[Link]) -> None:
        """Whoever is gone, or whose engine starts anew, is replaced, as long as another one has no newer weights: those
        first who have the kept ones already, and last those who have never taken any."""
        kept = self.kept
        fit = [link for link in links if kept and _is_up(link) and not link.is_beyond(kept.version)]

        def rank(link: Link) -> tuple[bool, bool, bool, str]:
            has_them = kept is not None and link.synced == kept.version
            return not has_them, not link.held, link.report is None, link.member.generator_id

        chosen = sorted(fit, key=rank)[: self._most]
        for link in links:
            link.held = link in chosen
        names = [link.member.generator_id for link in chosen]
        self._word = Hold(version=str(kept.version), generators=names).encode() if kept else None

    def is_lost(self, links: Collection[Link]) -> bool:
        """Nobody is held any more, and under a newer fence somebody could be."""
        return self.kept is not None and not any(link.held for link in links) and any(map(_is_up, links))

    def tell(self) -> None:
        """Write to Redis who is held by now; without the lock, so that a slow Redis holds no sync up."""
        with self._telling:
            with self._lock:
                word = self._word
            if word == self._told:
                return
            self._told = b""  # no word at all: where the reply is lost, nobody knows what stands there
            if word is None:
                self._client.delete(self._key)
            else:
                self._client.set(self._key, word)
            self._told = word


def _is_up(link: Link) -> bool:
    """Its engine could take weights now: one that starts may take longer than a validation waits."""
    return not link.gone and link.member.engine > 0
