"""A run's generators as an engine: real agents and a real Redis; only vLLM is scripted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import redis
from scripted import ScriptedEngine, ScriptedGrader, ScriptedTokenizer

from chorus.evaluation.fleet import open_fleet
from chorus.generator.agent import Agent
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Keys, LearnerLedger
from chorus.protocol.messages import Sampling, SyncOffer, Task, pack_ids
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.redis import connect_async

CONFIG = RunConfig.model_validate(
    {
        "model": {"path": "none", "dtype": "float32", "context": 64},
        "problems": {"train": ["none"], "max_prompt_tokens": 16},
        "templates": {"names": ["qwen-math"]},
        "sampling": {"group_size": 2, "max_tokens": 16},
        "generator": {"lease_s": 5.0, "group_deadline_s": 5.0},
    }
)
DEADLINE_S = 20.0


class World:
    """A learner that has broadcast, and one generator with its weights."""

    def __init__(self, url: str, client: redis.Redis) -> None:
        self.client = client
        self.engine = ScriptedEngine()
        self.learner = LearnerLedger(client, "run")
        LearnerLedger(client, "run", "eval", fence=self.learner.fence)
        agent = Agent(
            CONFIG, "run", "g", self.engine, ScriptedGrader(), ScriptedTokenizer(), connect_async(url)
        )  # fmt: skip
        self.running = asyncio.create_task(agent.run())

    async def sync(self, step: int) -> None:
        offer = SyncOffer(
            version=f"{self.learner.fence}.{step}", group="g", backend="gloo", store_host="127.0.0.1", store_port=1,
            world_size=2, timeout_s=2.0, bucket_bytes=4096, tensors=[], temperature=1.0, tolerance=1e-3, checks=[],
        )  # fmt: skip
        self.client.xadd(Keys("run").offers("g"), {"d": offer.encode()})
        end = time.monotonic() + DEADLINE_S
        while f"{self.learner.fence}.{step}".encode() not in (self.client.hget(Keys("run").members, "g") or b""):
            assert time.monotonic() < end, "no heartbeat with the new version"
            await asyncio.sleep(0.05)


@pytest.fixture
async def world(redis_url: str, client: redis.Redis) -> AsyncIterator[World]:
    world = World(redis_url, client)
    yield world
    world.running.cancel()
    await asyncio.wait([world.running], timeout=5)


async def test_generators_answer_on_their_eval_queue_and_the_training_accounts_stay_untouched(world: World) -> None:
    await world.sync(4)
    before = world.learner.accounts()
    async with open_fleet(world.client, "run", "qwen-math") as fleet:
        assert fleet.version.step == 4
        answers = await asyncio.gather(*(fleet.generate([1, 2], n, 0.0, 8, DEADLINE_S) for n in (1, 2, 3)))
    assert [len(a) for a in answers] == [1, 2, 3]
    assert answers[0][0].token_ids == [5, 6, 7]
    assert world.learner.accounts() == before
    assert LearnerLedger(world.client, "run", "eval", fence=world.learner.fence).accounts().difference == 0


async def test_the_generators_sample_as_the_evaluation_asks(world: World) -> None:
    await world.sync(4)
    async with open_fleet(world.client, "run", "qwen-math") as fleet:
        await fleet.generate([1, 2], 3, 0.7, 8, DEADLINE_S, top_p=0.95)
        await fleet.generate([1, 2], 1, 0.0, 8, DEADLINE_S)
    assert world.engine.asked == [(3, 0.7, 8, 0.95), (1, 0.0, 8, 1.0)]


async def test_weights_that_change_end_the_evaluation(world: World) -> None:
    await world.sync(4)
    async with open_fleet(world.client, "run", "qwen-math") as fleet:
        await fleet.generate([1, 2], 1, 0.0, 8, DEADLINE_S)
        await world.sync(5)
        with pytest.raises(CannotGoOn, match=r"the weights of 'run' went from step 4 to 5 during the evaluation"):
            await fleet.generate([1, 2], 1, 0.0, 8, DEADLINE_S)


def leave_a_question(world: World, problem_id: str) -> LearnerLedger:
    ledger = LearnerLedger(world.client, "run", "eval", fence=world.learner.fence)
    left = Task(
        run_id="run", index=0, epoch=0, problem_id=problem_id, kind="math", gold=["1"], template="qwen-math",
        prompt_ids=pack_ids([1]), group_size=1, sampling=Sampling(temperature=0.0, max_tokens=8), min_version=0,
        deadline_s=5.0, admitted_at=time.time(),
    )  # fmt: skip
    assert ledger.admit(0, [left.encode()], 10) == 1
    return ledger


async def test_what_a_killed_evaluation_left_behind_is_waited_for_and_dropped(world: World) -> None:
    ledger = leave_a_question(world, "chorus-eval/0")
    await world.sync(1)
    async with open_fleet(world.client, "run", "qwen-math") as fleet:
        await fleet.generate([1, 2], 1, 0.0, 8, DEADLINE_S)
    accounts = ledger.accounts()
    assert (accounts.admitted, accounts.durable, accounts.dropped) == (2, 1, {"abandoned": 1})


async def test_the_learners_own_evaluation_is_not_disturbed(world: World) -> None:
    ledger = leave_a_question(world, "math/1")
    await world.sync(1)
    with pytest.raises(CannotGoOn, match="the learner of 'run' is evaluating; wait until it has ended"):
        async with open_fleet(world.client, "run", "qwen-math"):
            pass
    (entry,) = ledger.read(10, 1.0)  # the learner still gets its answer
    assert entry.index == 0
    assert ledger.accounts().dropped == {}


async def test_a_learner_that_starts_meanwhile_ends_the_evaluation_not_the_other_way(world: World) -> None:
    await world.sync(1)
    async with open_fleet(world.client, "run", "qwen-math") as fleet:
        newer = LearnerLedger(world.client, "run")
        with pytest.raises(RuntimeError, match="fenced by learner start 2"):
            await fleet.generate([1, 2], 1, 0.0, 8, DEADLINE_S)
    assert newer.admit(0, [], 1) == 0


async def test_no_run_and_no_generator_are_said_so(redis_url: str, client: redis.Redis) -> None:
    with pytest.raises(CannotGoOn, match="run 'run' has no ledger on this Redis"):
        async with open_fleet(client, "run", "qwen-math"):
            pass
    LearnerLedger(client, "run")
    with pytest.raises(CannotGoOn, match="has no generator with weights; start some, or leave --running out"):
        async with open_fleet(client, "run", "qwen-math"):
            pass


async def test_a_fleet_that_gives_no_answer_ends_by_its_deadline(world: World) -> None:
    await world.sync(1)
    async with open_fleet(world.client, "run", "qwen-math") as fleet:
        world.running.cancel()
        await asyncio.wait([world.running], timeout=5)
        with pytest.raises(CannotGoOn, match=r"gave no answer for 0.5 s \(given up: none\)"):
            await fleet.generate([1, 2], 1, 0.0, 8, 0.5)
