"""Who gets a version from whom.

    direct    learner ─▶ a    learner ─▶ b    learner ─▶ c      the learner's link carries it once a replica
    relay     learner ─▶ a ─▶ b ─▶ c                            once: each passes on what has come of it

A chain is made of the links that wait when a version goes out; who comes later begins another one. Who failed last
stands at a chain's end, where nobody depends on it.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch

from chorus.learner.training.distributed import Snapshot
from chorus.protocol.messages import Member, Onward, SyncReport, Version

_PIECES = 64  # a chain of R takes (1 + (R - 1) / _PIECES) times as long as its first link
_LEAST_BYTES = 64 * 2**10


@dataclass
class Way:
    """How one version comes to one replica: over which group, after whom, and to whom it goes on from there."""

    snapshot: Snapshot
    group: str
    engine: int
    source: str = ""  # who sends: a generator and the start of its engine; empty: the learner
    before: Way | None = None
    onward: Onward | None = None
    piece_bytes: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    ok: bool = False  # once it is over


@dataclass
class Link:
    """The way to one replica. `synced`: the newest version whose weight check passed there."""

    member: Member
    synced: Version | None = None
    report: SyncReport | None = None  # of the last sync that went well
    group: torch.distributed.ProcessGroup | None = None  # where the learner is the sender
    group_name: str = ""  # empty: there is none that could be used again
    engine: int = 0  # the start for which the group was made,
    source: str = ""  # and who sends over it
    way: Way | None = None  # planned, and not begun
    waits: bool = False  # for something to send
    failed_at: float = 0.0  # by the learner's own clock: its last failure that was not that of who stood before it
    offered: tuple[str, str] | None = None  # group and version of the sync under way,
    answer: SyncReport | None = None  # and its report
    tried: Version | None = None  # the newest that was sent to this engine, whatever came of it
    held: bool = False  # on the version that is kept
    refusals: int = 0  # since the last sync that went well
    gone: bool = False
    thread: threading.Thread | None = None

    def lacks(self, newest: Snapshot | None) -> bool:
        """Whether there is something to send to it."""
        self._look_at_its_engine()
        return bool(newest and not self.gone and self.member.engine and newest.version.newer_than(self.synced))

    def is_beyond(self, version: Version) -> bool:
        """Whether it has newer weights, or may have: it would not take these."""
        self._look_at_its_engine()
        return self.tried is not None and self.tried.newer_than(version)

    def _look_at_its_engine(self) -> None:
        if self.engine != self.member.engine and self.member.engine:
            self.synced = self.tried = None  # a new engine has forgotten everything


class Planner:
    """Names groups. A name is never used twice, nor by a generator that returns."""

    def __init__(self) -> None:
        self._attempts = itertools.count(1)

    def plan(self, snapshot: Snapshot, links: Iterable[Link]) -> None:
        """Give each of these links its way, in the order in which the weights pass."""
        chain = sorted(links, key=lambda link: (link.failed_at, link.member.generator_id))
        piece_bytes = max(_LEAST_BYTES, -(-snapshot.plan.total_bytes // _PIECES)) if len(chain) > 1 else 0
        before: Way | None = None
        source = ""
        for link in chain:
            member, group = link.member, link.group_name
            if not group or (link.engine, link.source) != (member.engine, source):
                group = f"{snapshot.version.fence}:{member.generator_id}:{member.engine}:{next(self._attempts)}"
            if before is not None:
                before.onward = Onward(group=group, world_size=1 + member.world_size)
            before = link.way = Way(snapshot, group, member.engine, source, before, piece_bytes=piece_bytes)
            source = f"{member.generator_id}.{member.engine}"
