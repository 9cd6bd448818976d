"""Taking new weights: one offer of the learner, from invitation to report.

    offer ─▶ join the group (once) ─▶ receive ─▶ put in place ─▶ weight check ─▶ verified, or quarantined
             └────── beside the sampling ─────┘ └ it stands still ┘

A version is *verified* once the engine's log-probabilities, through the very path that samples, agree with
the learner's own for the same weights; an adapter must also have moved what the learner says. Groups with tokens
of a version wait for its verdict before they are committed. A transfer that fails has touched nothing. Where putting in
place fails, the old weights are checked again, since some of them may be new ones by then: if they pass, work goes on
with them. A failed weight check quarantines the generator until a later sync passes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy as np

from chorus.generator.engine import Engine, EngineError
from chorus.protocol.messages import SyncOffer, SyncReport, Version
from chorus.protocol.metrics.processes import GeneratorMetrics
from chorus.protocol.runtime import logs
from chorus.protocol.runtime.adapters import Adapter, fault

_CONTROL_DEADLINE_S = 30.0


class WeightSync:
    """Which weights this generator samples with, and which versions may be committed.

    Before the first sync `version` is None and nothing may be sampled.
    """

    def __init__(self, engine: Engine, generator_id: str, keep_stale_kv: bool, metrics: GeneratorMetrics) -> None:
        self.engine = engine
        self.generator_id = generator_id
        self.version: Version | None = None
        self.offered_step = 0  # of the newest offer, taken or not: where the learner is
        self.quarantined = False
        self.offered: Version | None = None  # the newest, taken or not
        self.changed = asyncio.Condition()
        self._keep_stale_kv = keep_stale_kv
        self._metrics = metrics
        self._group = ""
        self._verified: set[tuple[int, int]] = set()
        self._refused: set[tuple[int, int]] = set()
        self._passed: SyncOffer | None = None  # whose weights the engine holds and was right about

    @property
    def behind(self) -> int:
        """Steps between the newest weights that were offered and those that sample; 0 before the first sync."""
        return max(0, self.offered.step - self.version.step) if self.offered and self.version else 0

    async def forget(self) -> None:
        """The engine is a new one: no group, no weights of ours, nothing verified."""
        async with self.changed:
            self._group = ""
            self.version = self._passed = None
            self.quarantined = False
            self._verified.clear()
            self._refused.clear()
            self.changed.notify_all()

    async def take(self, offer: SyncOffer) -> SyncReport:
        """Carry out one offer; never raises for what can go wrong on the way, reports it."""
        started = time.monotonic()
        version = Version.parse(offer.version)
        if version.newer_than(self.offered):
            self.offered = version
        if self.version is not None and self.version.newer_than(version):  # an old learner's, or written again
            self._metrics.syncs.labels("outdated").inc()
            return self._report(offer, started, error=f"{version} is older than {self.version}")
        self.offered_step = version.step
        try:
            pause_s, transfer_s = await self._transfer(offer)
        except EngineError as error:
            self._group = ""  # whatever happened, this group is spent
            self._metrics.syncs.labels("failed").inc()
            await self._look_again()
            return self._report(offer, started, error=str(error))
        try:
            gaps = await self.engine.logprob_gaps(offer)
            moved = await self._moved(offer)
        except EngineError as error:
            await self._judge(offer, ok=False)  # unknown is not verified
            return self._report(offer, started, error=f"weight check not answered: {error}")
        self._metrics.gap.set(float(gaps.mean()) if gaps.size else float("nan"))
        self._metrics.tolerance.set(offer.tolerance)
        error = _wrong(gaps, moved, offer)
        await self._judge(offer, ok=not error)
        return self._report(offer, started, pause_s, transfer_s, gaps, error, moved)

    async def _moved(self, offer: SyncOffer) -> list[Adapter]:
        return await self.engine.adapter_in_place(offer.timeout_s) if offer.adapter else []

    async def _transfer(self, offer: SyncOffer) -> tuple[float, float]:
        """Seconds that sampling stood still, and seconds that the bytes took."""
        if offer.group != self._group:
            await self.engine.join_group(offer)
            self._group = offer.group
        receiving = time.monotonic()
        await self.engine.receive(offer)
        received = time.monotonic()
        try:
            pause_s = await self.engine.put_in_place(offer, not self._keep_stale_kv, _CONTROL_DEADLINE_S)
        except EngineError:
            if self._passed is not None:
                self._verified.discard(_key(self._passed))  # until `_look_again` has asked
            raise
        return pause_s, received - receiving

    async def _look_again(self) -> None:
        """Whether what failed left the old weights as they were."""
        old = self._passed
        if old is None or _key(old) in self._verified:
            return
        try:
            ok = not _wrong(await self.engine.logprob_gaps(old), await self._moved(old), old)
        except EngineError:
            ok = False
        async with self.changed:
            if self._passed is old:  # the engine is still the same one
                self._decide(old, ok)

    async def _judge(self, offer: SyncOffer, ok: bool) -> None:
        async with self.changed:
            self.version = version = Version.parse(offer.version)
            self._decide(offer, ok)
        self._metrics.syncs.labels("ok" if ok else "canary_failed").inc()
        self._metrics.version.set(version.step)
        logs.tell(version=str(version))

    def _decide(self, offer: SyncOffer, ok: bool) -> None:
        """The newest verdict on a version is the one that holds: it may be checked more than once."""
        now, before = (self._verified, self._refused) if ok else (self._refused, self._verified)
        now.add(_key(offer))
        before.discard(_key(offer))
        self._passed = offer if ok else None
        self.quarantined = not ok
        self.changed.notify_all()

    async def may_commit(self, versions: set[tuple[int, int]], deadline_s: float) -> bool:
        """Wait for the verdict on all `versions`: True, all verified; False, one refused or none in time."""

        def decided() -> bool:
            return versions <= self._verified or bool(versions & self._refused)

        try:
            async with asyncio.timeout(deadline_s), self.changed:
                await self.changed.wait_for(decided)
        except TimeoutError:
            return False
        return versions <= self._verified

    async def wait_for_step(self, step: int, deadline_s: float) -> bool:
        """Wait until the weights have reached `step` and are verified; False: not in time."""

        def reached() -> bool:
            return self.version is not None and self.version.step >= step and not self.quarantined

        try:
            async with asyncio.timeout(deadline_s), self.changed:
                await self.changed.wait_for(reached)
        except TimeoutError:
            return False
        return True

    def _report(
        self,
        offer: SyncOffer,
        started: float,
        pause_s: float = 0.0,
        transfer_s: float = 0.0,
        gaps: np.ndarray | None = None,
        error: str = "",
        moved: Sequence[Adapter] = (),
    ) -> SyncReport:
        finite = gaps is not None and gaps.size and np.isfinite(gaps).all()
        mean, largest = (float(gaps.mean()), float(gaps.max())) if finite else (1e9, 1e9)  # type: ignore[union-attr]
        total_s = time.monotonic() - started
        if not error:
            self._metrics.synced(pause_s, transfer_s, total_s)
        return SyncReport(
            generator_id=self.generator_id,
            version=offer.version,
            group=offer.group,
            ok=not error,
            detail=error,
            pause_s=pause_s,
            transfer_s=transfer_s,
            total_s=total_s,
            gap_mean=mean,
            gap_max=largest,
            adapters=list(moved),
        )


def _key(offer: SyncOffer) -> tuple[int, int]:
    version = Version.parse(offer.version)
    return version.fence, version.step


def _wrong(gaps: np.ndarray, moved: Sequence[Adapter], offer: SyncOffer) -> str:
    """Why these are not the weights of the offer; empty: they are."""
    if offer.adapter and (why := fault(offer.adapter, moved)):
        return f"weight check failed: {why}"
    return "" if gaps.size and float(gaps.mean()) <= offer.tolerance else _gap_text(gaps, offer)


def _gap_text(gaps: np.ndarray, offer: SyncOffer) -> str:
    if not gaps.size:
        return "weight check failed: the offer has no points to compare at"
    return (
        f"weight check failed: log-probabilities are off by {gaps.mean():.3g} on average, "
        f"more than {offer.tolerance:.3g}: the engine does not compute what the learner trained"
    )
