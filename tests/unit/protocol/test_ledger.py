"""The ledger on a real Valkey: credits, leases, twins, crashes, and accounts that always balance."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis
import redis.asyncio
from samples import GROUP, SAMPLE

from chorus.protocol.ledger import (
    FencedError,
    GeneratorLedger,
    IndexTakenError,
    LearnerLedger,
    LedgerLostError,
    read_accounts,
)
from chorus.protocol.ledger.keys import Keys
from chorus.protocol.messages import RolloutGroup, pack_floats, pack_ids

LEASE_S = 0.2


@pytest.fixture
def learner(client: redis.Redis) -> LearnerLedger:
    return LearnerLedger(client, "run")


@pytest.fixture
async def a(redis_url: str, learner: LearnerLedger) -> AsyncIterator[GeneratorLedger]:
    async with redis.asyncio.Redis.from_url(redis_url) as connection:
        yield GeneratorLedger(connection, "run", "a", LEASE_S)


@pytest.fixture
async def b(redis_url: str, learner: LearnerLedger) -> AsyncIterator[GeneratorLedger]:
    async with redis.asyncio.Redis.from_url(redis_url) as connection:
        yield GeneratorLedger(connection, "run", "b", LEASE_S)


def balanced(learner: LearnerLedger) -> dict[str, int]:
    accounts = learner.accounts()
    assert accounts.difference == 0, accounts
    return {k: getattr(accounts, k) for k in ("admitted", "trained", "durable", "outstanding")}


async def test_a_group_walks_from_admitted_to_durable(learner: LearnerLedger, a: GeneratorLedger) -> None:
    assert learner.admit(0, [b"task"], capacity=4) == 1
    (lease,) = await a.lease(5, block_s=0.1)
    assert (lease.index, lease.payload, lease.attempt) == (0, b"task", 1)
    assert balanced(learner)["outstanding"] == 1
    assert await a.commit(lease, b"group")
    (entry,) = learner.read(5, 0.1)
    assert (entry.index, entry.payload) == (0, b"group")
    learner.record(1, [entry.id])
    learner.trained(1, [entry.id])
    assert balanced(learner) == {"admitted": 1, "trained": 1, "durable": 0, "outstanding": 0}
    assert learner.durable(1, [entry.id]) == 1
    assert learner.durable(1, [entry.id]) == 0, "acknowledging twice counts once"
    assert balanced(learner) == {"admitted": 1, "trained": 1, "durable": 1, "outstanding": 0}
    assert learner.recorded() == {}


async def test_a_group_of_16_samples_of_32k_tokens_passes_whole(learner: LearnerLedger, a: GeneratorLedger) -> None:
    n = 32_768
    long = SAMPLE.model_copy(
        update={"token_ids": pack_ids([7] * n), "logprobs": pack_floats([-0.5] * n), "versions": [(1, 0, n)]}
    )
    group = GROUP.model_copy(update={"samples": [long] * 16, "task": GROUP.task.model_copy(update={"group_size": 16})})
    learner.admit(0, [group.task.encode()], capacity=1)
    (lease,) = await a.lease(1, block_s=0.1)
    assert await a.commit(lease, group.encode())
    (entry,) = learner.read(1, 0.1)
    assert len(entry.payload) > 16 * 8 * n, "token ids and log-probabilities of all"
    assert RolloutGroup.decode(entry.payload) == group


async def test_admission_stops_at_capacity_and_a_trained_group_frees_its_slot(
    learner: LearnerLedger, a: GeneratorLedger
) -> None:
    assert learner.admit(0, [b"0", b"1", b"2"], capacity=2) == 2
    assert learner.admit(2, [b"2"], capacity=2) == 0
    (lease,) = await a.lease(1, block_s=0.1)
    await a.commit(lease, b"g")
    (entry,) = learner.read(1, 0.1)
    assert learner.admit(2, [b"2"], capacity=2) == 0
    learner.trained(1, [entry.id])
    assert learner.admit(2, [b"2"], capacity=2) == 1
    balanced(learner)


async def test_a_twin_s_commit_is_refused(learner: LearnerLedger, a: GeneratorLedger, b: GeneratorLedger) -> None:
    learner.admit(0, [b"task"], capacity=1)
    (slow,) = await a.lease(1, block_s=0.1)
    await asyncio.sleep(LEASE_S * 1.5)
    (claimed,) = await b.lease(1, block_s=0.1)
    assert claimed.attempt == 2
    assert await b.commit(claimed, b"b's")
    assert not await a.commit(slow, b"a's")
    assert [e.payload for e in learner.read(5, 0.1)] == [b"b's"]
    balanced(learner)


async def test_a_renewed_lease_is_not_claimed_and_a_lost_one_is_not_stolen_back(
    learner: LearnerLedger, a: GeneratorLedger, b: GeneratorLedger
) -> None:
    learner.admit(0, [b"task"], capacity=1)
    (lease,) = await a.lease(1, block_s=0.1)
    for _ in range(4):
        await asyncio.sleep(LEASE_S / 2)
        assert await a.renew([lease.id]) == {lease.id}
    assert await b.lease(1, block_s=0.0) == []
    await asyncio.sleep(LEASE_S * 1.5)
    assert [x.id for x in await b.lease(1, block_s=0.0)] == [lease.id]
    assert await a.renew([lease.id]) == set()
    assert await b.renew([lease.id]) == {lease.id}


async def test_a_released_task_is_claimable_at_once_and_only_failures_count_as_tries(
    learner: LearnerLedger, a: GeneratorLedger, b: GeneratorLedger
) -> None:
    learner.admit(0, [b"task"], capacity=1)
    (lease,) = await a.lease(1, block_s=0.1)
    await a.release([lease.id])
    (lease,) = await b.lease(1, block_s=0.0)
    assert lease.attempt == 1
    await b.release([lease.id], count_try=True)
    (lease,) = await a.lease(1, block_s=0.0)
    assert lease.attempt == 2


async def test_the_dead_are_counted_by_reason_and_foreign_entries_stay_outside_the_accounts(
    learner: LearnerLedger, a: GeneratorLedger, client: redis.Redis
) -> None:
    learner.admit(0, [b"task"], capacity=1)
    client.xadd(Keys("run").tasks, {"d": b"forged"})
    for lease in await a.lease(5, block_s=0.1):
        await a.bury(lease, "attempts" if lease.index is not None else "corrupt", "why")
    accounts = learner.accounts()
    assert (accounts.dropped, accounts.foreign, accounts.difference) == ({"attempts": 1}, 1, 0)
    reasons = [fields[b"reason"] for _, fields in client.xrange(Keys("run").dead)]
    assert reasons == [b"attempts", b"corrupt"]


async def test_a_resumed_learner_gets_its_steps_back_in_order_and_fences_the_old_one(
    learner: LearnerLedger, a: GeneratorLedger, client: redis.Redis
) -> None:
    learner.admit(0, [b"0", b"1", b"2"], capacity=3)
    for lease in await a.lease(3, block_s=0.1):
        await a.commit(lease, b"g")
    x, y, z = learner.read(3, 0.1)
    learner.record(1, [x.id])
    learner.trained(1, [x.id])
    learner.durable(1, [x.id])
    learner.record(2, [z.id, y.id])
    learner.trained(2, [z.id, y.id])

    resumed = LearnerLedger(client, "run")
    resumed.rewind(1)
    assert balanced(resumed) == {"admitted": 3, "trained": 1, "durable": 1, "outstanding": 2}
    assert resumed.recorded() == {2: [z.id, y.id]}
    assert {e.id for e in resumed.reread()} == {y.id, z.id}
    assert resumed.outstanding_indices() == {1, 2}
    with pytest.raises(FencedError):
        learner.trained(3, [y.id])
    with pytest.raises(FencedError):
        learner.admit(3, [b"3"], capacity=9)


async def test_trimming_forgets_only_what_is_done_with(learner: LearnerLedger, a: GeneratorLedger) -> None:
    learner.admit(0, [b"x"] * 10, capacity=10)
    leases = await a.lease(5, block_s=0.1)
    for lease in leases[:3]:
        await a.commit(lease, b"g")
    learner.trim()
    accounts = balanced(learner)
    assert accounts["outstanding"] == 10
    assert learner.client.xlen(learner.keys.tasks) == 7
    assert len(await a.lease(10, block_s=0.1)) == 5


async def test_a_wiped_redis_is_told_from_an_empty_one(
    learner: LearnerLedger, a: GeneratorLedger, client: redis.Redis
) -> None:
    learner.admit(0, [b"x"], capacity=1)
    client.flushall()
    with pytest.raises(LedgerLostError, match="gone from Redis"):
        learner.admit(1, [b"y"], capacity=2)
    with pytest.raises(LedgerLostError, match="gone from Redis"):
        learner.read(1, 0.01)
    with pytest.raises(LedgerLostError):
        await a.lease(1, block_s=0.01)
    with pytest.raises(LedgerLostError):
        read_accounts(client, Keys("run"))


def test_queues_do_not_touch_each_other_s_accounts(learner: LearnerLedger, client: redis.Redis) -> None:
    evaluation = LearnerLedger(client, "run", "eval", fence=learner.fence)
    evaluation.admit(0, [b"e"], capacity=99)
    assert balanced(learner)["admitted"] == 0
    assert balanced(evaluation)["admitted"] == 1


async def test_what_a_lost_reply_held_is_read_again(learner: LearnerLedger, a: GeneratorLedger) -> None:
    learner.admit(0, [b"0", b"1", b"2"], capacity=4)
    for lease in await a.lease(3, block_s=0.1):
        await a.commit(lease, lease.payload)
    (first,) = learner.read(1, 0.1)
    # Delivered, but the connection broke before the reply came through.
    learner.client.xreadgroup("learner", "learner", {learner.keys.rollouts: ">"}, count=1)
    assert [e.index for e in learner.read(5, 0.1)] == [1]
    assert [e.index for e in learner.read(5, 0.1)] == [2]
    assert learner.read(5, 0.01) == []
    learner.drop("x", [first.id])
    assert balanced(learner)["outstanding"] == 2


def test_an_admission_tried_again_after_a_lost_reply_admits_once(learner: LearnerLedger) -> None:
    assert learner.admit(0, [b"0", b"1"], capacity=4) == 2
    assert learner.admit(0, [b"0", b"1"], capacity=4) == 2
    assert balanced(learner)["admitted"] == 2
    assert learner.admit(2, [b"2", b"3", b"4"], capacity=3) == 1
    assert learner.admit(2, [b"2", b"3", b"4"], capacity=3) == 1
    assert balanced(learner)["outstanding"] == 3


async def test_a_wipe_is_told_by_every_call(client: redis.Redis, learner: LearnerLedger, a: GeneratorLedger) -> None:
    learner.admit(0, [b"0"], capacity=1)
    (lease,) = await a.lease(1, block_s=0.1)
    client.flushall()
    for call in (
        lambda: learner.admit(1, [b"1"], 9),
        lambda: learner.read(1, 0.01),
        lambda: learner.record(1, ["1-1"]),
        lambda: learner.trained(1, ["1-1"]),
        lambda: learner.durable(1, ["1-1"]),
        lambda: learner.drop("x", ["1-1"]),
        lambda: learner.refuse(["1-1"]),
        lambda: learner.trim(),
        lambda: learner.outstanding_indices(),
        lambda: learner.accounts(),
    ):
        with pytest.raises(LedgerLostError):
            call()
    for coroutine in (a.lease(1, 0.01), a.renew([lease.id]), a.release([lease.id])):
        with pytest.raises(LedgerLostError):
            await coroutine
    assert not await a.commit(lease, b"late"), "nothing is published into a run that is gone"


async def test_an_expired_lease_is_found_behind_many_that_are_alive(
    learner: LearnerLedger, a: GeneratorLedger, b: GeneratorLedger
) -> None:
    learner.admit(0, [b"x"] * 40, capacity=40)
    alive = [lease.id for lease in await a.lease(39, block_s=0.1)]
    (abandoned,) = await a.lease(1, block_s=0.1)
    for _ in range(3):
        await asyncio.sleep(LEASE_S / 2)
        await a.renew(alive)
    assert [lease.id for lease in await b.lease(1, block_s=0.0)] == [abandoned.id]


def test_an_entry_that_nobody_admitted_is_a_stray_until_it_is_refused(
    learner: LearnerLedger, client: redis.Redis
) -> None:
    learner.admit(0, [b"x"], capacity=4)
    client.xadd(learner.keys.tasks, {"d": b"forged"})
    client.xadd(learner.keys.rollouts, {"d": b"forged"})
    accounts = learner.accounts()
    assert (accounts.unknown, accounts.outstanding, accounts.difference) == (2, 1, 0)
    (entry,) = learner.read(5, 0.1)
    learner.drop("corrupt", [entry.id])
    accounts = learner.accounts()
    assert (accounts.unknown, accounts.foreign, accounts.difference) == (1, 1, 0)


async def test_what_was_acknowledged_is_not_counted_as_trained_and_what_is_trained_is_not_dropped(
    learner: LearnerLedger, a: GeneratorLedger
) -> None:
    learner.admit(0, [b"x", b"y"], capacity=4)
    for lease in await a.lease(2, block_s=0.1):
        await a.commit(lease, b"g")
    x, y = (entry.id for entry in learner.read(2, 0.1))
    learner.drop("stale", [x])
    assert learner.trained(1, [x, y]) == 1
    learner.drop("stale", [y])
    assert balanced(learner) == {"admitted": 2, "trained": 1, "durable": 0, "outstanding": 0}


def test_an_index_that_somebody_else_admitted_meanwhile_is_not_taken_for_a_repetition(learner: LearnerLedger) -> None:
    learner.admit(0, [b"theirs"], capacity=4)
    with pytest.raises(IndexTakenError, match="index taken 0 by another admission; the next is 1"):
        learner.admit(0, [b"mine", b"mine too"], capacity=4)
    assert learner.admit(1, [b"mine", b"mine too"], capacity=4) == 2
    assert balanced(learner)["admitted"] == 3
