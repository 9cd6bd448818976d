"""Whatever stands in a stream or hash of Redis, its reader goes on: it takes it, or refuses and counts it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import redis
import redis.asyncio
import torch
from forge import forged_bytes, inputs
from hypothesis import example, given
from samples import GROUP, MEMBER, OFFER, REPORT, TASK
from scripted import ScriptedEngine, ScriptedGrader, ScriptedTokenizer
from tinymodel import TEMPLATE

from chorus.generator.agent import Agent
from chorus.learner.rollouts.admission import Admission
from chorus.learner.rollouts.collector import Collector
from chorus.learner.weight_sync.broadcaster import Broadcaster
from chorus.learner.weight_sync.fan_out import Link
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Entry, Keys, LearnerLedger, Lease, digest_of
from chorus.protocol.ledger.keys import admission_index
from chorus.protocol.messages import Member, SyncOffer, Version
from chorus.protocol.metrics.processes import LearnerMetrics


def config(model: str) -> RunConfig:
    return RunConfig.model_validate(
        {
            "model": {"path": model, "dtype": "float32", "context": 200},
            "problems": {"train": ["arithmetic:chain?max=3&split=train"], "max_prompt_tokens": 150},
            "templates": {"names": [TEMPLATE]},
            "sampling": {"group_size": 2, "max_tokens": 8},
            "generator": {"group_deadline_s": 0.02},
        }
    )


class RecordingLedger:
    """What became of a lease."""

    def __init__(self) -> None:
        self.ends: Counter[str] = Counter()

    async def commit(self, lease: Lease, payload: bytes) -> bool:
        self.ends["committed"] += 1
        return True

    async def bury(self, lease: Lease, reason: str, detail: str) -> None:
        self.ends["buried"] += 1

    async def release(self, ids: list[str], count_try: bool = False) -> None:
        self.ends["released"] += 1

    def drop(self, reason: str, ids: list[str]) -> None:
        self.ends["dropped"] += len(ids)

    def refuse(self, ids: list[str]) -> None:
        self.ends["refused"] += len(ids)


@pytest.fixture
def agent() -> Agent:
    engine = ScriptedEngine()
    engine.version = Version(fence=1, step=0)
    agent = Agent(
        config("none"), "run", "g", engine, ScriptedGrader(), ScriptedTokenizer(), redis.asyncio.Redis()
    )  # nothing is asked of Redis: the ledger is a recording one
    agent.sync.version = engine.version
    agent.sync._verified.add((1, 0))
    return agent


def test_every_forged_task_comes_to_one_end(agent: Agent) -> None:
    ledger = RecordingLedger()
    loop = asyncio.new_event_loop()
    n = 0

    @inputs()
    @example(TASK.encode(), 0, 1)
    @given(forged_bytes(TASK.encode()), st.sampled_from([0, 0, 0, 7, None]), st.integers(1, 5))
    def check(payload: bytes, index: int | None, attempt: int) -> None:
        nonlocal n
        n += 1
        handling = agent._handle("train", Lease("1-1", index, payload, attempt))
        loop.run_until_complete(asyncio.wait_for(handling, 10))
        assert ledger.ends.total() == n

    agent._ledgers["train"] = ledger  # type: ignore[assignment]
    check()
    loop.close()
    assert set(ledger.ends) >= {"committed", "buried"}


def test_a_forged_offer_hides_no_readable_one(agent: Agent) -> None:
    @inputs()
    @given(st.lists(forged_bytes(OFFER.encode()), max_size=3))
    def check(forged: list[bytes]) -> None:
        entries = [(b"1-1", {b"d": OFFER.encode()}), *((b"1-2", {b"d": data}) for data in forged)]
        assert isinstance(agent._newest_readable(entries), SyncOffer)

    check()


@inputs()
@given(st.dictionaries(st.sampled_from([b"i", b"d", b"x"]), st.one_of(st.binary(max_size=30), st.just(b"9" * 20))))
def test_an_admission_index_is_a_number_that_fits_or_none(fields: dict[bytes, bytes]) -> None:
    index = admission_index(fields)
    assert index is None or 0 <= index < 10**15


def test_every_forged_rollout_is_taken_or_refused_with_a_reason(client: redis.Redis, tiny_model: Path) -> None:
    chosen = config(str(tiny_model))
    ledger = LearnerLedger(client, "run")
    collector = Collector(chosen, ledger, Admission(chosen, "run"), LearnerMetrics())
    recording = RecordingLedger()
    collector.ledger = recording  # type: ignore[assignment]
    taken = n = 0

    @inputs()
    @example(GROUP.encode(), 0)
    @given(forged_bytes(GROUP.encode()), st.sampled_from([0, 0, 0, 5, None]))
    def check(payload: bytes, index: int | None) -> None:
        nonlocal taken, n
        n += 1
        collector.window.outstanding = {0: 0}
        entry = Entry("1-1", index, payload, digest_of(TASK.encode()))
        ready = collector._check(entry, collector._judge(entry))
        taken += ready is not None
        assert taken + recording.ends.total() == n
        if ready is not None:
            assert len(ready.group.samples) == 2
            assert ready.group.task == TASK, "what was admitted, and nothing else"

    check()
    assert taken


class QuietBroadcaster(Broadcaster):
    """Its watcher is called by the test, and links are only noted."""

    def _watch(self) -> None:
        self.begun: list[Member] = []

    def _start(self, member: Member) -> None:
        self.begun.append(member)


@pytest.fixture
def broadcaster(client: redis.Redis) -> Iterator[QuietBroadcaster]:
    LearnerLedger(client, "run")
    broadcaster = QuietBroadcaster(config("any"), client, "run", "gloo", torch.device("cpu"), LearnerMetrics())
    yield broadcaster
    broadcaster.close()


def refused(broadcaster: Broadcaster, what: str) -> float:
    return broadcaster._metrics.refused.labels(what)._value.get()


def test_every_forged_member_is_greeted_or_put_aside_and_counted(
    broadcaster: QuietBroadcaster, client: redis.Redis
) -> None:
    members = Keys("run").members
    alive = MEMBER.model_copy(update={"last_seen": time.time() + 3600})

    @inputs()
    @given(forged_bytes(alive.encode()))
    def check(data: bytes) -> None:
        before = refused(broadcaster, "member"), len(broadcaster.begun)
        client.hset(members, "g", data)
        broadcaster._read_members()
        unreadable = not client.hexists(members, "g")
        assert refused(broadcaster, "member") - before[0] <= unreadable
        assert unreadable or len(broadcaster.begun) - before[1] <= 1
        client.hdel(members, "g")

    check()
    assert refused(broadcaster, "member") > 0


def test_every_forged_report_is_read_or_refused_and_counted(broadcaster: QuietBroadcaster, client: redis.Redis) -> None:
    link = Link(MEMBER, offered=("g", "1.0"))
    broadcaster.links["g"] = link
    seen = 0

    @inputs()
    @example(REPORT.encode(), b"d")
    @given(forged_bytes(REPORT.encode()), st.sampled_from([b"d", b"d", b"d", b"x"]))
    def check(data: bytes, field: bytes) -> None:
        nonlocal seen
        before = refused(broadcaster, "report")
        client.xadd(Keys("run").reports, {field: data})
        broadcaster._read_reports()
        answer, link.answer = link.answer, None
        seen += answer is not None
        assert (answer is not None) + refused(broadcaster, "report") - before == 1
        assert answer is None or (answer.generator_id, answer.group, answer.version) == ("g", "g", "1.0")

    check()
    assert seen
    assert refused(broadcaster, "report") > 0
    broadcaster.links.clear()


def test_a_replayed_offer_of_older_weights_is_refused_and_changes_nothing(agent: Agent) -> None:
    """The newest version wins: an old offer that somebody writes again must not bring old weights back."""

    async def replay() -> tuple[Any, Any]:
        new, old = (OFFER.model_copy(update={"version": v, "group": v}) for v in ("1.5", "1.4"))
        return await agent.sync.take(new), await agent.sync.take(old)

    first, second = asyncio.run(replay())
    assert (first.ok, second.ok) == (True, False)
    assert "is older than 1.5" in second.detail
    assert str(agent.sync.version) == "1.5"
    assert agent.state != "quarantined"
