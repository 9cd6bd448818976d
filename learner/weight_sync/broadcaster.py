"""Weight broadcast: one link, one thread and one process group per generator replica.

    publish(snapshot) ─▶ every link: newest version not yet sent?
    link:   way (fan_out.py) ─▶ offer on Redis ─▶ group (once) ─▶ buckets, or by relay ─▶ report ─▶ newest version? ...
    watch:  members come (a link is made), restart their engine (a new group), go (the link ends)
    hold:   some replicas stay on a version, whose snapshot is kept for them, until they are released

A snapshot is a copy in host memory, so training goes on while links send it. Each link sends the newest
snapshot there is, or what differs from the one before (former.py): a slow replica skips versions. A link that
fails closes its group and offers again under a new name; nobody else notices. Threads share nothing but the newest
snapshot, the one before and the reports.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis
import torch

from chorus.learner.training.distributed import Snapshot
from chorus.learner.weight_sync.fan_out import Link, Planner, Way
from chorus.learner.weight_sync.former import Former, parts_for
from chorus.learner.weight_sync.holding import Holding
from chorus.learner.weight_sync.sender import Sender
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Keys, LedgerLostError, entries_of, lost
from chorus.protocol.messages import GONE_AFTER_S, Member, MessageError, SyncReport
from chorus.protocol.metrics.processes import LearnerMetrics
from chorus.protocol.runtime.adapters import fault
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.redis import server_time

log = logging.getLogger("chorus.learner")
_WATCH_S = 0.2
_TELL_S = 1.0
_FAILED_PAUSE_S = 0.5
_LOOK_S = 0.5
_REFUSALS = 5
_OFFERS_KEPT_S = 24 * 3600  # after the last one: who is gone for good, as a cluster's pod is, reads them no more
_CLOSE_S = 5.0  # for all threads together; they are daemons


@dataclass
class _Shared:
    newest: Snapshot | None = None
    former: Former | None = None  # the one before, with learner.delta and while somebody has not got the newest
    closing: bool = False
    failure: Exception | None = None  # of the watcher: the next caller gets it


class Broadcaster:
    """Keeps every member on the newest weights. Thread-safe; `close` ends all threads and groups."""

    def __init__(
        self,
        config: RunConfig,
        client: redis.Redis,
        run_id: str,
        backend: str,
        device: torch.device,
        metrics: LearnerMetrics,
    ) -> None:
        self.config = config
        self.keys = Keys(run_id)
        self.links: dict[str, Link] = {}
        self._client = client
        self._metrics = metrics
        self._deadline_s = config.learner.sync_deadline_s
        self._sender = Sender(config, client, run_id, backend, device, metrics)
        self._shared = _Shared()
        self._changed = threading.Condition()
        self._planner = Planner()
        self._told = 0.0
        self._holding = Holding(client, self.keys.hold, self._changed)
        last = client.xrevrange(self.keys.reports, count=1)
        self._last_report = last[0][0] if last else b"0"
        self._watcher = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._watcher.start()

    def publish(self, snapshot: Snapshot) -> None:
        """From now on this is the version that everybody should have. Returns at once.

        Raises LedgerLostError or redis.RedisError where the watcher met one.
        """
        with self._changed:
            self.check()
            if self.config.learner.delta and self._shared.newest is not None:
                self._shared.former = Former(self._shared.newest)
            self._shared.newest = snapshot
            self._changed.notify_all()

    def wait_synced(self, at_least: int, deadline_s: float, check: Callable[[], None] = lambda: None) -> int:
        """Until `at_least` replicas have the newest version. Returns how many do; fewer at the deadline.

        Raises as `publish` does, and what `check`, asked a few times a second, raises.
        """

        def count() -> int:
            newest = self._shared.newest
            return sum(
                newest is not None and not link.gone and link.synced == newest.version for link in self.links.values()
            )

        with self._metrics.waits.on("weights taken", "generators", deadline_s), self._changed:
            deadline = time.monotonic() + deadline_s
            while not (self._shared.failure or count() >= at_least) and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(min(left, _LOOK_S))
                check()
            self.check()
            return count()

    def check(self) -> None:
        """Raise what makes further syncs pointless: the ledger is gone, or everybody refuses the weights."""
        if self._shared.failure is not None:
            raise self._shared.failure

    def hold(self, most: int) -> int:
        """Keep up to `most` replicas on the newest version, and one at least free of that. Returns how many; they are
        told before this returns."""
        with self._changed:
            number = self._holding.begin(self.links.values(), self._shared.newest, most)
            self._changed.notify_all()
        self._holding.tell()
        return number

    def hold_again(self, fence: int) -> None:
        """Where `hold_is_lost`: who has newer weights takes the kept ones under a newer fence."""
        with self._changed:
            self._holding.renew(self.links.values(), fence)
            self._changed.notify_all()
        self._holding.tell()

    def hold_is_lost(self) -> bool:
        """Nobody has the kept version any more or can get it, and somebody could under a newer fence."""
        with self._changed:
            return self._holding.is_lost(self.links.values())

    def release(self) -> None:
        """Everybody gets the newest version again."""
        with self._changed:
            self._holding.end(self.links.values())
            self._changed.notify_all()
        self._holding.tell()

    def members(self) -> list[Member]:
        """The newest heartbeat of every generator that is there."""
        return [link.member for link in list(self.links.values())]

    def close(self) -> None:
        with self._changed:
            self._shared.closing = True
            self._changed.notify_all()
        end = time.monotonic() + _CLOSE_S
        for thread in [self._watcher, *(link.thread for link in self.links.values())]:
            if thread is not None:
                thread.join(timeout=max(0.0, end - time.monotonic()))

    # -- the watcher's thread -------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._shared.closing:
            try:
                self._read_members()
                self._read_reports()
                self._tell_waits()
            except (redis.RedisError, LedgerLostError) as error:
                with self._changed:
                    self._shared.failure = error
                    self._changed.notify_all()
                return

    def _tell_waits(self) -> None:
        if time.monotonic() - self._told > _TELL_S:
            self._told = time.monotonic()
            self._client.hset(
                self.keys.waits, "learner", self._metrics.waits.report("learner", server_time(self._client)).encode()
            )

    def _read_members(self) -> None:
        if not self._client.exists(self.keys.fence):
            raise lost(self.keys.run, f"no {self.keys.fence}")
        now = server_time(self._client)
        members: dict[bytes, bytes] = self._client.hgetall(self.keys.members)  # type: ignore[assignment]
        with self._changed:
            for name, data in members.items():
                try:
                    member = Member.decode(data)
                    if member.generator_id.encode() != name:
                        raise MessageError(f"it calls itself {member.generator_id!r}")
                except MessageError as error:
                    log.warning("member %r is unreadable and ignored: %s", name, error)
                    self._metrics.refused.labels("member").inc()
                    self._client.hdel(self.keys.members, name)
                    continue
                alive = member.alive(now)
                if member.generator_id not in self.links and alive:
                    self._start(member)
                elif member.generator_id in self.links:
                    link = self.links[member.generator_id]
                    link.member = member
                    link.gone = not alive
                if now - member.last_seen > 20 * GONE_AFTER_S:
                    self._client.hdel(self.keys.members, name)
                    self._client.hdel(self.keys.waits, name)
            for id in [id for id in self.links if id.encode() not in members]:
                self.links.pop(id).gone = True
            if self._holding.kept is not None:
                self._holding.choose(self.links.values())
            newest = self._shared.newest
            if newest and all(link.gone or link.synced == newest.version for link in self.links.values()):
                self._shared.former = None
            self._changed.notify_all()
        self._holding.tell()

    def _start(self, member: Member) -> None:
        link = Link(member)
        self.links[member.generator_id] = link
        link.thread = threading.Thread(target=self._serve, args=(link,), name=member.generator_id, daemon=True)
        link.thread.start()

    def _read_reports(self) -> None:
        streams: Any = {self.keys.reports: self._last_report}
        entries = entries_of(self._client.xread(streams, block=int(_WATCH_S * 1000)))
        with self._changed:
            for id, fields in entries:
                self._last_report = id
                try:
                    report = SyncReport.decode(fields.get(b"d", b""))
                except MessageError as error:
                    log.warning("sync report %r is unreadable and ignored: %s", id, error)
                    self._metrics.refused.labels("report").inc()
                    continue
                link = self.links.get(report.generator_id)
                if link is None or (report.group, report.version) != link.offered:
                    # Of a sync that was given up, or sent again: it says nothing about the one under way.
                    log.info("sync report %r is ignored: %s of %s was not asked for", id, report.group, report.version)
                    self._metrics.refused.labels("report").inc()
                    continue
                link.answer = report
            self._changed.notify_all()

    # -- each link's thread -----------------------------------------------------------------------------

    def _serve(self, link: Link) -> None:
        while (way := self._next(link)) is not None:
            try:
                self._carry(link, way)
            finally:
                way.over.set()  # who comes after it in a chain waits for this
            if not way.ok:
                self._sender.close(link)
                time.sleep(_FAILED_PAUSE_S)
        self._sender.close(link)

    def _carry(self, link: Link, way: Way) -> None:
        """One version to one replica, and what becomes of it."""
        id, version = link.member.generator_id, way.snapshot.version
        started = time.monotonic()
        try:
            with self._metrics.waits.on("sync", id, 2 * self._deadline_s, f"version {version}"):
                report = self._send(link, way)
        except (RuntimeError, redis.RedisError, TimeoutError) as error:
            report = None
            log.warning("sync of %s to %s failed: %s", version, id, error)
        with self._changed:
            way.ok = report is not None and report.ok
            if report is not None and report.ok:
                link.synced = version
                link.report = report
                link.refusals = 0
                self._metrics.transfer_s.observe(time.monotonic() - started)
            else:
                if way.before is None or way.before.ok:
                    link.failed_at = time.monotonic()
                self._metrics.sync_failures.inc()
                if report is not None:
                    self._count_refusal(link, report)
            self._changed.notify_all()

    def _count_refusal(self, link: Link, report: SyncReport) -> None:
        """Weights that every generator refuses time and again will not be taken at the next try either."""
        link.refusals += 1
        if all(other.refusals >= _REFUSALS for other in self.links.values() if not other.gone):
            self._shared.failure = CannotGoOn(
                f"every generator has refused the weights {_REFUSALS} times; {link.member.generator_id} says: "
                f"{report.detail}; see the generators' logs"
            )

    def _next(self, link: Link) -> Way | None:
        """Wait for something to send; None when the link is to end."""

        def ends() -> bool:
            return self._shared.closing or link.member.generator_id not in self.links

        with self._changed:
            link.waits = True
            self._changed.wait_for(lambda: ends() or link.way or link.lacks(self._due(link)))
            link.waits = False
            if link.way is None and not ends() and (due := self._due(link)) is not None:
                self._planner.plan(due, [link, *self._companions(link)])
                self._changed.notify_all()
            way, link.way = link.way, None
            if ends():
                if way is not None:
                    way.over.set()
                return None
            if way is not None:
                link.tried = way.snapshot.version
            return way

    def _due(self, link: Link) -> Snapshot | None:
        """What a replica should have."""
        return self._holding.kept if link.held else self._shared.newest

    def _companions(self, link: Link) -> list[Link]:
        """Who may pass the newest weights on, or get them from another generator, at the same time as this one."""
        if self.config.learner.fan_out == "direct" or link.held:
            return []
        newest = self._shared.newest
        return [
            other
            for other in self.links.values()
            if other is not link and other.waits and not other.held and other.way is None and other.lacks(newest)
        ]

    def _send(self, link: Link, way: Way) -> SyncReport:
        """Offer, meet, send, hear how it went. Raises RuntimeError or TimeoutError on any failure."""
        parts = parts_for(self._shared.former, link, way)
        offer = self._sender.offer(link, way, parts)
        with self._changed:
            link.offered, link.answer = (offer.group, offer.version), None
        offers = self.keys.offers(link.member.generator_id)
        with self._client.pipeline() as pipe:
            pipe.xadd(offers, {"d": offer.encode()}, maxlen=4)
            pipe.expire(offers, _OFFERS_KEPT_S)
            pipe.execute()
        if way.before is None:
            self._sender.send(link, way, offer.world_size, parts)
        elif not way.before.over.wait(2 * self._deadline_s):
            raise TimeoutError("the generator that passes them on is not done")
        report = self._await_report(link)
        if report.ok and way.snapshot.adapter and (why := fault(way.snapshot.adapter, report.adapters)):
            return report.model_copy(update={"ok": False, "detail": why})
        return report

    def _await_report(self, link: Link) -> SyncReport:
        with self._changed:
            self._changed.wait_for(lambda: link.answer is not None, timeout=self._deadline_s)
            link.offered = None  # what comes now comes too late, or twice
            if link.answer is None:
                raise TimeoutError(f"no report within learner.sync_deadline_s = {self._deadline_s:g} s")
            return link.answer
