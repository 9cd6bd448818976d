"""The agent on a real Redis, with a scripted engine: leases, the weight check's gate, deaths, draining."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgpack
import pytest
import redis
import redis.asyncio
from flaky import FlakyRedis
from samples import MEMBER
from scripted import ScriptedEngine, ScriptedGrader, ScriptedTokenizer

from chorus.generator.agent import Agent
from chorus.generator.engine import EngineError, EngineGone
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Keys, LearnerLedger
from chorus.protocol.messages import Hold, Member, RolloutGroup, Sampling, SyncOffer, SyncReport, Task, pack_ids
from chorus.protocol.runtime.redis import connect, connect_async

CONFIG = RunConfig.model_validate(
    {
        "model": {"path": "none", "dtype": "float32", "context": 64},
        "problems": {"train": ["none"], "max_prompt_tokens": 16},
        "templates": {"names": ["qwen-math"]},
        "sampling": {"group_size": 2, "max_tokens": 16},
        "generator": {"lease_s": 0.6, "group_deadline_s": 5.0},
    }
)


def task(index: int, min_version: int = 0, exact: bool = False) -> bytes:
    return Task(
        run_id="run", index=index, epoch=0, problem_id=f"p{index}", kind="math", gold=["1"],
        template="qwen-math",
        prompt_ids=pack_ids([1, 2]), group_size=2, sampling=Sampling(temperature=1.0, max_tokens=16),
        min_version=min_version, deadline_s=5.0, admitted_at=time.time(), exact=exact,
    ).encode()  # fmt: skip


def offer(version: str, group: str = "g") -> bytes:
    return SyncOffer(
        version=version, group=group, backend="gloo", store_host="127.0.0.1", store_port=1, world_size=2,
        timeout_s=2.0, bucket_bytes=4096, tensors=[], temperature=1.0, tolerance=1e-3, checks=[],
    ).encode()  # fmt: skip


class Fleet:
    """Agents under test, and the learner's side of their world."""

    def __init__(self, url: str, client: redis.Redis) -> None:
        self.client = client
        self.learner = LearnerLedger(client, "run")
        LearnerLedger(client, "run", "eval", fence=self.learner.fence)
        self.keys = Keys("run")
        self._url = url
        self.agents_wait_s = 20.0
        self._running: list[tuple[Agent, asyncio.Task[None]]] = []

    def start(self, name: str, engine: ScriptedEngine) -> tuple[Agent, asyncio.Task[None]]:
        connection = connect_async(self._url, patience_s=self.agents_wait_s)
        agent = Agent(CONFIG, "run", name, engine, ScriptedGrader(), ScriptedTokenizer(), connection)
        self._running.append((agent, asyncio.create_task(agent.run())))
        return self._running[-1]

    def sync(self, name: str, version: str) -> None:
        self.client.xadd(self.keys.offers(name), {"d": offer(version)})

    def reports(self) -> list[SyncReport]:
        return [SyncReport.decode(f[b"d"]) for _, f in self.client.xrange(self.keys.reports)]

    def groups(self) -> list[RolloutGroup]:
        return [RolloutGroup.decode(e.payload) for e in self.learner.read(100, 0.01)]

    async def close(self) -> None:
        for _, running in self._running:
            running.cancel()
        await asyncio.wait([running for _, running in self._running], timeout=5)


@pytest.fixture
async def fleet(redis_url: str, client: redis.Redis) -> AsyncIterator[Fleet]:
    fleet = Fleet(redis_url, client)
    yield fleet
    await fleet.close()


async def until(condition: Callable[[], object], deadline_s: float = 5.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "condition never came true"
        await asyncio.sleep(0.02)


async def test_groups_are_sampled_graded_and_committed_with_their_versions(fleet: Fleet) -> None:
    fleet.learner.admit(0, [task(0), task(1)], capacity=9)
    fleet.start("a", ScriptedEngine())
    fleet.sync("a", "1.0")
    await until(lambda: fleet.learner.accounts().unread == 2)
    for group in fleet.groups():
        assert group.samples[0].versions == [(1, 0, 3)]
        assert group.samples[0].grade.verdict == "correct"
    assert fleet.learner.accounts().difference == 0


async def test_nothing_is_sampled_before_the_first_sync(fleet: Fleet) -> None:
    fleet.learner.admit(0, [task(0)], capacity=9)
    fleet.start("a", ScriptedEngine())
    await asyncio.sleep(0.5)
    assert fleet.learner.accounts().queued == 1


async def test_a_task_waits_for_its_version(fleet: Fleet) -> None:
    fleet.learner.admit(0, [task(0, min_version=3)], capacity=9)
    fleet.start("a", ScriptedEngine())
    fleet.sync("a", "1.2")
    await until(lambda: fleet.learner.accounts().leased == 1)
    await asyncio.sleep(0.2)
    assert fleet.learner.accounts().unread == 0
    fleet.sync("a", "1.3")
    await until(lambda: fleet.learner.accounts().unread == 1)


@pytest.mark.parametrize(
    ("others", "held"),
    [
        ([{"state": "ready"}], CONFIG.capacity // 2),
        ([{"state": "quarantined"}, {"state": "ready", "last_seen": 0.0}], CONFIG.capacity),
    ],
    ids=["another one at work", "others that can't work"],
)
async def test_a_generator_takes_no_more_than_its_share_of_what_is_outstanding(
    fleet: Fleet, others: list[dict[str, Any]], held: int
) -> None:
    for name, other in zip("bc", others, strict=False):
        member = MEMBER.model_copy(update={"generator_id": name, "last_seen": time.time() + 60} | other)
        fleet.client.hset(fleet.keys.members, name, member.encode())
    fleet.client.hset(fleet.keys.members, "forged", b"not a member at all")
    fleet.learner.admit(0, [task(k) for k in range(CONFIG.capacity)], capacity=CONFIG.capacity)
    agent, _ = fleet.start("a", ScriptedEngine(delay_s=3.0))
    await until(lambda: fleet.client.hexists(fleet.keys.members, agent.id))
    fleet.sync("a", "1.0")
    await until(lambda: fleet.learner.accounts().leased)
    await asyncio.sleep(0.3)
    assert fleet.learner.accounts().leased == held


def hold(fleet: Fleet, version: str, *generators: str) -> None:
    fleet.client.set(fleet.keys.hold, Hold(version=version, generators=[*generators]).encode())


async def test_who_is_held_answers_questions_alone_and_the_others_train(fleet: Fleet) -> None:
    asked = LearnerLedger(fleet.client, "run", "eval", fence=fleet.learner.fence)
    hold(fleet, "1.3", "a")
    agents = [fleet.start(name, ScriptedEngine())[0] for name in "ab"]
    await until(lambda: all(agent._hold.step == 3 for agent in agents))
    fleet.learner.admit(0, [task(0)], capacity=9)
    asked.admit(0, [task(0, 3, exact=True)], 9)
    fleet.sync("a", "1.3")
    await until(lambda: asked.accounts().unread == 1)
    assert fleet.learner.accounts().unread == 0, "it takes nothing to train on"
    asked.admit(1, [task(1, 3, exact=True)], 9)
    fleet.sync("b", "1.4")
    await until(lambda: asked.accounts().unread == 2)
    await until(lambda: fleet.learner.accounts().unread == 1)
    assert [RolloutGroup.decode(e.payload).generator_id for e in asked.read(9, 0.01)] == ["a", "a"]
    assert [group.generator_id for group in fleet.groups()] == ["b"]
    fleet.client.delete(fleet.keys.hold)
    fleet.learner.admit(1, [task(1), task(2)], capacity=9)
    await until(lambda: fleet.learner.accounts().unread == 2)


async def test_an_answer_that_new_weights_came_into_is_none_to_an_exact_question(fleet: Fleet) -> None:
    """It is asked again, of those who are held."""
    asked = LearnerLedger(fleet.client, "run", "eval", fence=fleet.learner.fence)
    engine = ScriptedEngine(delay_s=0.4)
    agent, _ = fleet.start("a", engine)
    fleet.sync("a", "1.3")
    await until(lambda: agent.state == "ready")
    asked.admit(0, [task(0, 3, exact=True)], 9)
    await until(lambda: len(engine.asked) == 1)
    hold(fleet, "1.3", "b")
    fleet.sync("a", "1.4")
    await until(lambda: str(agent.sync.version) == "1.4")
    await asyncio.sleep(0.6)
    assert (asked.accounts().unread, asked.accounts().leased) == (0, 1)
    fleet.start("b", ScriptedEngine())
    fleet.sync("b", "1.3")
    await until(lambda: asked.accounts().unread == 1)
    [entry] = asked.read(9, 0.01)
    assert RolloutGroup.decode(entry.payload).samples[0].versions == [(1, 3, 3)]


async def test_an_exact_question_of_a_learner_that_has_ended_is_put_aside(fleet: Fleet) -> None:
    asked = LearnerLedger(fleet.client, "run", "eval", fence=fleet.learner.fence)
    fleet.client.set(fleet.keys.hold, b"junk")
    fleet.start("a", ScriptedEngine())
    fleet.sync("a", "1.4")
    asked.admit(0, [task(0, 3, exact=True)], 9)
    await until(lambda: asked.accounts().dropped == {"abandoned": 1})
    assert (asked.accounts().outstanding, asked.accounts().difference) == (0, 0)


async def test_a_failed_weight_check_commits_nothing_until_a_later_one_passes(fleet: Fleet) -> None:
    engine = ScriptedEngine(delay_s=0.05, gap=0.5)
    agent, _ = fleet.start("a", engine)
    fleet.learner.admit(0, [task(0)], capacity=9)
    fleet.sync("a", "1.0")
    await until(lambda: [r.ok for r in fleet.reports()] == [False])
    assert agent.state == "quarantined"
    await asyncio.sleep(0.3)
    assert fleet.learner.accounts().unread == 0
    engine.gap = 0.0
    fleet.sync("a", "1.1")
    await until(lambda: fleet.learner.accounts().unread == 1)
    assert fleet.groups()[0].samples[0].versions == [(1, 1, 3)]


async def test_a_quarantined_generator_gives_back_what_it_holds(fleet: Fleet) -> None:
    engine = ScriptedEngine(delay_s=30.0)
    agent, _ = fleet.start("a", engine)
    fleet.sync("a", "1.0")
    await until(lambda: agent.state == "ready")
    fleet.learner.admit(0, [task(0)], capacity=9)
    await until(lambda: len(agent._work) == 1)
    engine.gap = 0.5
    fleet.sync("a", "1.1")
    await until(lambda: agent.state == "quarantined" and not agent._work)
    fleet.start("b", ScriptedEngine())
    fleet.sync("b", "1.1")
    await until(lambda: fleet.learner.accounts().unread == 1)
    (group,) = fleet.groups()
    assert (group.generator_id, group.attempt) == ("b", 1)


async def test_an_engine_that_is_gone_while_it_samples_is_no_failed_attempt(fleet: Fleet) -> None:
    """It refuses the connection first, and is seen dead later."""

    class Unreachable(ScriptedEngine):
        async def generate(self, *args: Any) -> Any:
            if self.starts == 1:
                raise EngineGone("connection refused")
            return await super().generate(*args)

    engine = Unreachable()
    fleet.start("a", engine)
    fleet.sync("a", "1.0")
    fleet.learner.admit(0, [task(0)], capacity=9)
    await until(lambda: engine.starts == 2)
    fleet.sync("a", "1.1")
    await until(lambda: fleet.learner.accounts().unread == 1)
    assert fleet.groups()[0].attempt == 1


async def test_a_failed_transfer_leaves_the_old_weights_at_work(fleet: Fleet) -> None:
    engine = ScriptedEngine()
    agent, _ = fleet.start("a", engine)
    fleet.sync("a", "1.0")
    await until(lambda: len(fleet.reports()) == 1)
    engine.fail_receive = True
    fleet.sync("a", "1.1")
    await until(lambda: len(fleet.reports()) == 2)
    assert not fleet.reports()[1].ok
    assert engine.calls[-1] == "receive", "what did not come whole is not put in place"
    assert str(agent.sync.version) == "1.0"
    fleet.learner.admit(0, [task(0)], capacity=9)
    await until(lambda: fleet.learner.accounts().unread == 1)


async def test_weights_that_are_put_in_place_by_half_commit_nothing_until_a_sync_passes(
    fleet: Fleet,
) -> None:
    engine = ScriptedEngine(delay_s=0.3)
    agent, _ = fleet.start("a", engine)
    fleet.sync("a", "1.0")
    await until(lambda: len(fleet.reports()) == 1)
    fleet.learner.admit(0, [task(0)], capacity=9)
    await until(lambda: fleet.learner.accounts().leased == 1)
    engine.fail_put, engine.gap = True, 0.5  # the weight check of 1.0 sees weights that are 1.0's no more
    fleet.sync("a", "1.1")
    await until(lambda: agent.state == "quarantined")
    await asyncio.sleep(0.6)
    assert fleet.learner.accounts().unread == 0
    engine.fail_put, engine.gap = False, 0.0
    fleet.sync("a", "1.2")
    await until(lambda: fleet.learner.accounts().unread == 1)
    assert fleet.groups()[0].samples[0].versions == [(1, 2, 3)]


async def test_with_weights_that_are_too_old_for_any_step_nothing_is_leased_until_a_sync_passes(fleet: Fleet) -> None:
    engine = ScriptedEngine()
    fleet.start("a", engine)
    fleet.sync("a", "1.0")
    await until(lambda: len(fleet.reports()) == 1)
    engine.fail_receive = True
    fleet.sync("a", f"1.{CONFIG.staleness.max + 1}")
    await until(lambda: len(fleet.reports()) == 2)
    await asyncio.sleep(0.6)  # a lease call that was under way ends
    fleet.learner.admit(0, [task(0)], capacity=9)
    await asyncio.sleep(1.2)
    assert fleet.learner.accounts().queued == 1
    engine.fail_receive = False
    fleet.sync("a", f"1.{CONFIG.staleness.max + 2}")
    await until(lambda: fleet.learner.accounts().unread == 1)


async def test_a_dead_engine_gives_its_work_back_and_is_started_again(fleet: Fleet) -> None:
    engine = ScriptedEngine(delay_s=30)
    agent, _ = fleet.start("a", engine)
    fleet.sync("a", "1.0")
    fleet.learner.admit(0, [task(0)], capacity=9)
    await until(lambda: fleet.learner.accounts().leased == 1 and len(agent._work) == 1)
    engine.die()
    await until(lambda: engine.starts == 2)
    assert agent.sync.version is None, "a new engine has none of our weights"
    fleet.start("b", ScriptedEngine())
    fleet.sync("b", "1.0")
    await until(lambda: fleet.learner.accounts().unread == 1)
    assert fleet.groups()[0].attempt == 1, "an engine's death is not the task's fault"


async def test_a_long_group_keeps_its_lease_by_renewal(fleet: Fleet) -> None:
    fleet.learner.admit(0, [task(0)], capacity=9)
    fleet.start("a", ScriptedEngine(delay_s=2.5))
    fleet.sync("a", "1.0")
    await until(lambda: fleet.learner.accounts().leased == 1)
    fleet.start("b", ScriptedEngine())
    fleet.sync("b", "1.0")
    await asyncio.sleep(1.8)  # three leases long
    (held,) = fleet.client.xpending_range(fleet.keys.tasks, "generators", "-", "+", 9)
    assert (held["consumer"], held["times_delivered"]) == (b"a", 1), "renewed, not claimed anew by anybody"
    await until(lambda: fleet.learner.accounts().unread == 1)
    assert fleet.groups()[0].generator_id == "a"


async def test_an_unreadable_task_is_refused_and_the_rest_goes_on(fleet: Fleet) -> None:
    fleet.client.xadd(fleet.keys.tasks, {"d": b"\xffjunk"})
    fleet.learner.admit(0, [b"\x00", task(1)], capacity=9)
    fleet.start("a", ScriptedEngine())
    fleet.sync("a", "1.0")
    await until(lambda: fleet.learner.accounts().unread == 1)
    await until(lambda: fleet.learner.accounts().leased == 0)
    accounts = fleet.learner.accounts()
    assert (accounts.dropped, accounts.foreign, accounts.difference) == ({"corrupt": 1}, 1, 0)


async def test_draining_finishes_what_is_held_and_leaves(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    fleet.learner.admit(0, [task(0)], capacity=9)
    agent, running = fleet.start("a", ScriptedEngine(delay_s=0.5))
    fleet.sync("a", "1.0")
    await until(lambda: len(agent._work) == 1)
    agent.drain()
    await asyncio.wait_for(running, 5)
    assert fleet.learner.accounts().unread == 1
    assert fleet.client.hgetall(fleet.keys.members) == {}
    told = [line for line in caplog.messages if line.startswith("drain")]
    assert told[0] == "draining: nothing new is leased, 1 groups are under way"
    assert told[1].startswith("drained")


async def test_the_heartbeat_tells_state_and_version(fleet: Fleet) -> None:
    fleet.start("a", ScriptedEngine())
    fleet.sync("a", "1.4")

    def member() -> Member | None:
        data = fleet.client.hget(fleet.keys.members, "a")
        return Member.decode(data) if data else None  # type: ignore[arg-type]

    await until(lambda: (m := member()) is not None and m.state == "ready" and m.version == "1.4")


async def test_a_wiped_redis_ends_the_agent_with_a_clear_error(fleet: Fleet) -> None:
    _, running = fleet.start("a", ScriptedEngine())
    fleet.sync("a", "1.0")
    await until(lambda: len(fleet.reports()) == 1)
    fleet.client.flushall()
    with pytest.raises(RuntimeError, match="the ledger of run 'run' is gone from Redis"):
        await asyncio.wait_for(running, 5)


async def test_a_wipe_is_noticed_before_the_first_weights_and_while_nothing_is_leased(fleet: Fleet) -> None:
    _, running = fleet.start("a", ScriptedEngine())
    await until(lambda: fleet.client.hexists(fleet.keys.members, "a"))
    await asyncio.sleep(1.2)  # the agent has seen the fence
    fleet.client.flushall()
    with pytest.raises(RuntimeError, match="was the server flushed or replaced"):
        await asyncio.wait_for(running, 5)


async def test_a_wipe_under_a_group_in_work_ends_the_agent(fleet: Fleet) -> None:
    fleet.learner.admit(0, [task(0)], capacity=9)
    agent, running = fleet.start("a", ScriptedEngine(delay_s=0.5))
    fleet.sync("a", "1.0")
    await until(lambda: len(agent._work) == 1)
    fleet.client.flushall()
    with pytest.raises(RuntimeError, match="the ledger of run 'run' is gone"):
        await asyncio.wait_for(running, 5)


def forged(**fields: object) -> bytes:
    return msgpack.packb({**msgpack.unpackb(task(0)), **fields})


@pytest.mark.parametrize(
    "payload",
    [b"", task(0)[:-3], task(7), forged(run_id="other"), forged(group_size=0), forged(schema="chorus.task/9")],
    ids=["empty", "truncated", "another index", "another run", "no samples", "another schema"],
)
async def test_a_task_that_is_not_what_was_admitted_is_buried_and_counted(fleet: Fleet, payload: bytes) -> None:
    fleet.learner.admit(0, [payload, task(1)], capacity=9)
    fleet.start("a", ScriptedEngine())
    fleet.sync("a", "1.0")
    await until(lambda: fleet.learner.accounts().unread == 1 and fleet.learner.accounts().leased == 0)
    accounts = fleet.learner.accounts()
    assert (accounts.dropped, accounts.difference) == ({"corrupt": 1}, 0)
    ((_, letter),) = fleet.client.xrange(fleet.keys.dead)  # type: ignore[misc]
    assert letter[b"reason"] == b"corrupt"
    assert b"chorus.task/1" in letter[b"detail"] or b"task " in letter[b"detail"]


@pytest.mark.parametrize("index", [b"", b"abc", b"-1", b"9" * 40, None])
async def test_a_task_that_nobody_admitted_is_counted_as_foreign(fleet: Fleet, index: bytes | None) -> None:
    fleet.client.xadd(fleet.keys.tasks, {"d": task(0)} | ({} if index is None else {"i": index}))
    fleet.learner.admit(0, [task(0)], capacity=9)
    fleet.start("a", ScriptedEngine())
    fleet.sync("a", "1.0")
    await until(lambda: fleet.learner.accounts().unread == 1 and fleet.learner.accounts().leased == 0)
    assert fleet.learner.accounts().foreign + fleet.learner.accounts().dropped.get("corrupt", 0) == 1


@pytest.mark.parametrize("data", [b"", b"junk", offer("1.0")[:-4], offer("1.0").replace(b"\xa31.0", b"\xa3new")])
async def test_an_unreadable_offer_is_ignored_and_hides_no_other(fleet: Fleet, data: bytes) -> None:
    fleet.sync("a", "1.0")
    fleet.client.xadd(fleet.keys.offers("a"), {"d": data})
    agent, _ = fleet.start("a", ScriptedEngine())
    await until(lambda: [r.ok for r in fleet.reports()] == [True])
    assert str(agent.sync.version) == "1.0"


async def test_reports_of_long_ago_leave_redis(fleet: Fleet) -> None:
    """With an adapter of many layers they are 13 kB each, and a run of many steps and generators makes a million."""
    with fleet.client.pipeline() as pipe:
        for _ in range(6000):
            pipe.xadd(fleet.keys.reports, {"d": b"x"})
        pipe.execute()
    fleet.sync("a", "1.0")
    fleet.start("a", ScriptedEngine())
    await until(lambda: fleet.client.xlen(fleet.keys.reports) <= 5100)  # type: ignore[operator]


async def test_an_offer_that_was_written_twice_is_taken_once(fleet: Fleet) -> None:
    engine = ScriptedEngine()
    fleet.start("a", engine)
    fleet.sync("a", "1.0")
    await until(lambda: len(fleet.reports()) == 1)
    fleet.sync("a", "1.0")
    fleet.sync("a", "1.1")
    await until(lambda: fleet.reports()[-1].version == "1.1")
    assert engine.calls.count("receive") == 2


async def test_a_redis_that_is_away_for_a_moment_costs_nothing(flaky_redis: FlakyRedis) -> None:
    fleet = Fleet(flaky_redis.url, connect(flaky_redis.url, patience_s=20.0))
    fleet.learner.admit(0, [task(0)], capacity=9)
    agent, running = fleet.start("a", ScriptedEngine(delay_s=1.0))
    fleet.sync("a", "1.0")
    await until(lambda: len(agent._work) == 1)
    await asyncio.to_thread(flaky_redis.away_for, 1.5)  # longer than a lease: it expires meanwhile
    await until(lambda: fleet.learner.accounts().unread == 1, deadline_s=20.0)
    fleet.learner.admit(1, [task(1)], capacity=9)
    await until(lambda: fleet.learner.accounts().unread == 2, deadline_s=20.0)
    assert not running.done()
    assert fleet.learner.accounts().difference == 0
    await fleet.close()


async def test_a_redis_that_stays_away_ends_the_agent(flaky_redis: FlakyRedis) -> None:
    fleet = Fleet(flaky_redis.url, connect(flaky_redis.url, patience_s=20.0))
    fleet.agents_wait_s = 1.0
    _, running = fleet.start("a", ScriptedEngine())
    fleet.sync("a", "1.0")
    await until(lambda: len(fleet.reports()) == 1)
    flaky_redis.stop()
    with pytest.raises(redis.ConnectionError):
        await asyncio.wait_for(running, 15)


async def test_a_task_whose_version_does_not_come_is_given_back_in_time(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = CONFIG.generator.model_copy(update={"group_deadline_s": 0.3})
    monkeypatch.setattr(sys.modules[__name__], "CONFIG", CONFIG.model_copy(update={"generator": soon}))
    agent, _ = fleet.start("behind", ScriptedEngine())
    fleet.sync("behind", "1.0")
    fleet.learner.admit(0, [task(0, min_version=5)], capacity=9)
    await until(lambda: len(agent._work) == 1)
    await until(lambda: agent.metrics.groups.labels("no_weights")._value.get() >= 1)
    fleet.start("fresh", ScriptedEngine())
    fleet.sync("fresh", "1.5")
    await until(lambda: fleet.learner.accounts().unread == 1)
    (group,) = fleet.groups()
    assert (group.generator_id, group.attempt) == ("fresh", 1), "waiting for weights is no failed attempt"


async def test_what_was_sampled_since_the_last_good_check_is_never_committed_when_the_weight_check_fails(
    fleet: Fleet,
) -> None:
    engine = ScriptedEngine(delay_s=0.6)
    agent, _ = fleet.start("a", engine)
    fleet.sync("a", "1.0")
    await until(lambda: agent.state == "ready")
    fleet.learner.admit(0, [task(k) for k in range(4)], capacity=9)
    await until(lambda: len(agent._work) == 4)
    engine.gap = 0.5
    fleet.sync("a", "1.1")  # while four groups are being sampled
    await until(lambda: agent.state == "quarantined")
    await asyncio.sleep(1.0)  # longer than they would have taken
    assert fleet.learner.accounts().unread == 0
    fleet.start("b", ScriptedEngine())
    fleet.sync("b", "1.1")
    await until(lambda: fleet.learner.accounts().unread == 4)
    groups = fleet.groups()
    assert {(g.generator_id, g.attempt) for g in groups} == {("b", 1)}, "the tasks went back, untried"
    assert fleet.learner.accounts().difference == 0


@pytest.mark.parametrize("shift_s", [-20.0, 3600.0])
async def test_a_heartbeat_is_told_by_redis_clock_whatever_the_host_s_own_says(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, shift_s: float
) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + shift_s)
    fleet.start("a", ScriptedEngine())
    await until(lambda: fleet.client.hexists(fleet.keys.members, "a"))
    data: Any = fleet.client.hget(fleet.keys.members, "a")
    told: Any = fleet.client.time()
    assert abs(Member.decode(data).last_seen - told[0]) < 5
    assert Member.decode(data).alive(told[0])


class Failing(ScriptedEngine):
    """An engine whose every start fails, for the reasons given in turn."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__()
        self.reasons = reasons
        self.tries = 0

    async def start(self) -> None:
        self.tries += 1
        reason = self.reasons[(self.tries - 1) % len(self.reasons)]
        raise EngineError(f"vLLM ended with status 1 while starting ({reason})", reason)


@pytest.mark.parametrize(
    ("reasons", "tries"),
    [
        (["ValueError: max_model_len 4096, pid 17", "ValueError: max_model_len 4096, pid 23"], 2),
        (["no room", "no route"], 3),
        ([""], 3),
    ],
)
async def test_an_engine_that_fails_twice_for_one_reason_is_not_started_again(
    fleet: Fleet, reasons: list[str], tries: int
) -> None:
    engine = Failing(reasons)
    _, running = fleet.start("a", engine)
    with pytest.raises(EngineError, match="while starting"):
        await asyncio.wait_for(running, 10)
    assert engine.tries == tries
