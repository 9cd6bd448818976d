"""Which version may be committed, and by which verdict: the sync by itself, with a scripted engine."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from scripted import ScriptedEngine

from chorus.generator.engine import EngineError
from chorus.generator.weight_sync import WeightSync
from chorus.protocol.messages import SyncOffer, Version
from chorus.protocol.metrics.processes import GeneratorMetrics

TOLERANCE = 0.01


class Checked(ScriptedEngine):
    """Answers the weight check with `gaps`, or not at all."""

    gaps: tuple[float, ...] | None = (0.0,)

    async def logprob_gaps(self, offer: SyncOffer) -> np.ndarray:
        if self.gaps is None:
            raise EngineError("no answer")
        return np.array(self.gaps)


def offer(version: str) -> SyncOffer:
    return SyncOffer(
        version=version, group="g", backend="gloo", store_host="127.0.0.1", store_port=1, world_size=2, timeout_s=2.0,
        bucket_bytes=4096, tensors=[], temperature=1.0, tolerance=TOLERANCE, checks=[],
    )  # fmt: skip


@pytest.fixture
def engine() -> Checked:
    return Checked()


@pytest.fixture
def sync(engine: Checked) -> WeightSync:
    return WeightSync(engine, "g", False, GeneratorMetrics())


@pytest.mark.parametrize(
    ("gaps", "ok"),
    [
        ((0.0, 0.015, 0.01), True),  # the mean decides
        ((0.0, 0.0, 0.06), False),
        ((0.0, float("nan")), False),
        ((), False),  # nothing was compared
        (None, False),  # nobody answered
    ],
)
async def test_weights_are_verified_where_the_mean_gap_is_within_the_tolerance(
    sync: WeightSync, engine: Checked, gaps: tuple[float, ...] | None, ok: bool
) -> None:
    engine.gaps = gaps
    assert (await sync.take(offer("1.0"))).ok == ok
    assert sync.quarantined != ok
    assert await sync.may_commit({(1, 0)}, 0.01) == ok


async def test_a_commit_waits_for_the_verdict_on_all_its_versions(sync: WeightSync) -> None:
    await sync.take(offer("1.0"))
    waiting = asyncio.create_task(sync.may_commit({(1, 0), (1, 1)}, 5.0))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await sync.take(offer("1.1"))
    assert await waiting
    assert not await sync.may_commit({(1, 1), (1, 2)}, 0.01), "no verdict in time is no good one"


async def test_a_quarantined_generator_waits_for_weights_that_pass(sync: WeightSync, engine: Checked) -> None:
    await sync.take(offer("1.0"))
    assert await sync.wait_for_step(0, 0.01)
    engine.gaps = (1.0,)
    await sync.take(offer("1.1"))
    assert not await sync.wait_for_step(0, 0.01)
    engine.gaps = (0.0,)
    await sync.take(offer("1.2"))
    assert await sync.wait_for_step(2, 0.01)


@pytest.mark.parametrize(("first", "second"), [(0.0, 1.0), (1.0, 0.0)])
async def test_of_two_verdicts_on_one_version_the_second_holds(
    sync: WeightSync, engine: Checked, first: float, second: float
) -> None:
    for gap in (first, second):
        engine.gaps = (gap,)
        await sync.take(offer("1.0"))
    engine.gaps = (0.0,)
    await sync.take(offer("1.1"))
    assert await sync.may_commit({(1, 0)}, 0.01) == (second == 0.0)
    assert await sync.may_commit({(1, 0), (1, 1)}, 0.01) == (second == 0.0)


async def test_what_a_former_engine_refused_a_new_one_may_pass(sync: WeightSync, engine: Checked) -> None:
    engine.gaps = (1.0,)
    await sync.take(offer("1.0"))
    await sync.forget()
    waiting = asyncio.create_task(sync.may_commit({(1, 0)}, 5.0))
    await asyncio.sleep(0.01)
    assert not waiting.done(), "the new engine has not been asked"
    engine.gaps = (0.0,)
    await sync.take(offer("1.0"))
    assert await waiting


async def test_an_offer_of_an_earlier_learner_is_refused_though_its_step_is_later(
    sync: WeightSync, engine: Checked
) -> None:
    assert Version.parse("2.3").newer_than(Version.parse("1.9"))
    await sync.take(offer("2.3"))
    late = await sync.take(offer("1.9"))
    assert (late.ok, late.detail) == (False, "1.9 is older than 2.3")
    assert str(sync.version) == "2.3"
    assert engine.calls.count("receive") == 1
