"""The ledger against a model of itself: any interleaving of what may happen to it keeps the accounts.

Hypothesis draws the interleavings, a real Valkey carries them out, and after each step the accounts and every
group's place are compared with a plain Python model. Time passes on command: `expire` makes one lease as idle
as if nobody had renewed it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import Counter
from unittest.mock import patch

import hypothesis.strategies as st
import pytest
import redis
import redis.asyncio
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from chorus.protocol.ledger import (
    Entry,
    FencedError,
    GeneratorLedger,
    Keys,
    LearnerLedger,
    Lease,
    digest_of,
    entries_of,
)
from chorus.protocol.ledger.keys import ROLLOUT_GROUP, TASK_GROUP

EXAMPLES = int(os.environ.get("CHORUS_LEDGER_EXAMPLES", "0"))  # 0: the same few every time, for `make test`
CAPACITY = 6
LEASE_S = 1000.0  # leases end on command only
CONSUMERS = ("a", "b")
names = st.sampled_from(CONSUMERS)
runs = itertools.count()


class LedgerModel(RuleBasedStateMachine):
    """One run's ledger, its generators, and a learner that trains, checkpoints, crashes and resumes."""

    url = ""

    @initialize()
    def start(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.client = redis.Redis.from_url(self.url)
        self.keys = Keys(f"model-{next(runs)}")
        self.learner = LearnerLedger(self.client, self.keys.run)
        self.connection = redis.asyncio.Redis.from_url(self.url)
        self.ledgers = {c: GeneratorLedger(self.connection, self.keys.run, c, LEASE_S) for c in CONSUMERS}
        self.deposed: list[LearnerLedger] = []
        self.place: dict[int, str] = {}  # index -> queued leased unread read trained durable dropped
        self.holder: dict[int, str] = {}  # of the leased
        self.tries: Counter[int] = Counter()
        self.expired: set[int] = set()
        self.handles: list[tuple[str, Lease]] = []  # every lease ever handed out: holders, losers, zombies
        self.entry_of: dict[int, str] = {}
        self.unread: list[int] = []  # in stream order
        self.undelivered: list[int] = []  # delivered in a reply that was lost
        self.read: list[str] = []  # entry ids that the learner holds, as it got them
        self.trained_at: dict[str, int] = {}
        self.recorded: dict[int, list[str]] = {}
        self.step = self.durable_step = 0
        self.manifest: list[str] = []  # of the newest checkpoint
        self.drops: Counter[str] = Counter()
        self.unknown = {self.keys.tasks: 0, self.keys.rollouts: 0}
        self.foreign = 0

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.loop.run_until_complete(self.connection.aclose())
            self.loop.close()
            self.client.close()

    def at(self, *places: str) -> list[int]:
        return [index for index, place in self.place.items() if place in places]

    def index_of(self, id: str) -> int:
        return next(index for index, entry in self.entry_of.items() if entry == id)

    # -- admission ------------------------------------------------------------------------------------

    @rule(n=st.integers(1, 4), reply_lost=st.booleans())
    def admit(self, n: int, reply_lost: bool) -> None:
        first = len(self.place)
        room = max(0, min(n, CAPACITY - len(self.at("queued", "leased", "unread", "read"))))
        for _ in range(1 + (reply_lost and room > 0)):  # after a lost reply the same call is made again
            assert self.learner.admit(first, [b"t"] * n, CAPACITY) == room
        self.place |= dict.fromkeys(range(first, first + room), "queued")

    @rule(into=st.sampled_from(["tasks", "rollouts"]))
    def forge(self, into: str) -> None:
        stream = getattr(self.keys, into)
        self.client.xadd(stream, {"d": b"forged"})
        self.unknown[stream] += 1

    # -- generators -----------------------------------------------------------------------------------

    @rule(who=names, count=st.integers(1, 3))
    def lease(self, who: str, count: int) -> None:
        leases = self.loop.run_until_complete(self.ledgers[who].lease(count, block_s=0.0))
        ours = [lease for lease in leases if lease.index is not None]
        for lease in ours:
            assert lease.index is not None
            if self.expired:
                assert lease.index in self.expired, "what others let expire comes first"
            else:
                assert self.place[lease.index] == "queued", "a live lease was taken away"
        for lease in ours:
            assert lease.index is not None
            self.expired.discard(lease.index)
            self.tries[lease.index] += 1
            assert lease.attempt == self.tries[lease.index]
            self.place[lease.index], self.holder[lease.index] = "leased", who
            self.handles.append((who, lease))
        for stray in (lease for lease in leases if lease.index is None):
            self.loop.run_until_complete(self.ledgers[who].bury(stray, "corrupt", "nobody admitted it"))
            self.unknown[self.keys.tasks] -= 1
            self.foreign += 1
        if not leases:
            assert not self.at("queued")
            assert not self.expired

    @rule(who=names)
    def renew(self, who: str) -> None:
        ids = {lease.id: lease.index for holder, lease in self.handles if holder == who}
        held = self.loop.run_until_complete(self.ledgers[who].renew(list(ids)))
        mine = {id for id, index in ids.items() if self.place[index] == "leased" and self.holder[index] == who}
        assert held == mine
        self.expired -= {ids[id] for id in held}

    @precondition(lambda self: self.at("leased"))
    @rule(data=st.data(), claimed_by=st.sampled_from([None, *CONSUMERS]))
    def expire(self, data: st.DataObject, claimed_by: str | None) -> None:
        index = data.draw(st.sampled_from(self.at("leased")))
        id = next(lease.id for _, lease in self.handles if lease.index == index)
        idle = int(LEASE_S * 2000)
        self.client.xclaim(self.keys.tasks, TASK_GROUP, self.holder[index], 0, [id], idle=idle, justid=True)
        self.expired.add(index)
        if claimed_by:
            self.lease(claimed_by, 1)

    @precondition(lambda self: self.handles)
    @rule(data=st.data(), reply_lost=st.booleans())
    def commit(self, data: st.DataObject, reply_lost: bool) -> None:
        """By any process that ever held the lease: its holder, one that lost it, one that died meanwhile."""
        who, lease = data.draw(st.sampled_from(self.handles))
        assert lease.index is not None
        first = self.place[lease.index] == "leased"
        assert self.loop.run_until_complete(self.ledgers[who].commit(lease, b"g")) is first
        if first:
            self.leave_tasks(lease.index)
            ((id, _),) = self.client.xrevrange(self.keys.rollouts, count=1)
            self.entry_of[lease.index] = id.decode()
            self.place[lease.index] = "unread"
            self.unread.append(lease.index)
        if reply_lost:
            assert not self.loop.run_until_complete(self.ledgers[who].commit(lease, b"again"))

    @precondition(lambda self: self.handles)
    @rule(data=st.data(), failed=st.booleans())
    def release(self, data: st.DataObject, failed: bool) -> None:
        who, lease = data.draw(st.sampled_from(self.handles))
        self.loop.run_until_complete(self.ledgers[who].release([lease.id], count_try=failed))
        assert lease.index is not None
        if self.place[lease.index] == "leased" and self.holder[lease.index] == who:
            self.expired.add(lease.index)
            self.tries[lease.index] -= 0 if failed else min(1, self.tries[lease.index])

    @precondition(lambda self: self.handles)
    @rule(data=st.data())
    def bury(self, data: st.DataObject) -> None:
        who, lease = data.draw(st.sampled_from(self.handles))
        self.loop.run_until_complete(self.ledgers[who].bury(lease, "attempts", "why"))
        assert lease.index is not None
        if self.place[lease.index] == "leased":
            self.leave_tasks(lease.index)
            self.place[lease.index] = "dropped"
            self.drops["attempts"] += 1

    def leave_tasks(self, index: int) -> None:
        self.expired.discard(index)
        self.holder.pop(index)

    # -- the learner ----------------------------------------------------------------------------------

    @rule(count=st.integers(1, 4))
    def read_rollouts(self, count: int) -> None:
        entries = self.learner.read(count, block_s=0.001)
        self.take_in(entries)

    @rule()
    def read_but_lose_the_reply(self) -> None:
        reply = self.client.xreadgroup(ROLLOUT_GROUP, "learner", {self.keys.rollouts: ">"}, count=1)
        for _, fields in entries_of(reply):
            if b"i" in fields:
                index = self.unread.pop(0)
                self.place[index] = "read"
                self.undelivered.append(index)

    def take_in(self, entries: list[Entry]) -> None:
        unknown = [e.id for e in entries if e.index is None]
        ours = [e.index for e in entries if e.index is not None]
        assert ours == (self.undelivered or self.unread)[: len(ours)], "oldest first, lost replies before all"
        assert {e.digest for e in entries if e.index is not None} <= {digest_of(b"t")}
        for index in ours:
            (self.undelivered if index in self.undelivered else self.unread).remove(index)
            self.place[index] = "read"
            self.read.append(self.entry_of[index])
        self.learner.drop("corrupt", unknown)
        self.unknown[self.keys.rollouts] -= len(unknown)
        self.foreign += len(unknown)

    @precondition(lambda self: self.read)
    @rule(data=st.data(), dies=st.booleans(), reply_lost=st.booleans())
    def train(self, data: st.DataObject, dies: bool, reply_lost: bool) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self.read), min_size=1, max_size=3, unique=True))
        self.learner.record(self.step + 1, chosen)
        self.recorded[self.step + 1] = chosen
        if dies:  # between the record and the optimizer's step
            return
        self.step += 1
        for _ in range(1 + reply_lost):
            assert self.learner.trained(self.step, chosen) == len(chosen)
        for id in chosen:
            assert self.place[self.index_of(id)] == "read"
            self.place[self.index_of(id)] = "trained"
            self.trained_at[id] = self.step
            self.read.remove(id)

    @precondition(lambda self: self.step > self.durable_step)
    @rule(dies=st.booleans(), reply_lost=st.booleans())
    def checkpoint(self, dies: bool, reply_lost: bool) -> None:
        self.manifest = [id for id, step in self.trained_at.items() if self.durable_step < step <= self.step]
        self.durable_step = self.step
        if dies:  # after the manifest, before the acknowledgements
            self.crash_and_resume()
            return
        self.acknowledge(self.learner, reply_lost)
        self.learner.trim()

    def acknowledge(self, learner: LearnerLedger, again: bool = False) -> None:
        fresh = [id for id in self.manifest if self.place[self.index_of(id)] == "trained"]
        assert learner.durable(self.durable_step, self.manifest) == len(fresh)
        if again:
            assert learner.durable(self.durable_step, self.manifest) == 0
        for id in fresh:
            self.place[self.index_of(id)] = "durable"
        self.recorded = {s: ids for s, ids in self.recorded.items() if s > self.durable_step}

    @precondition(lambda self: self.read)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(self.read))
        for _ in range(2):  # the second time it changes nothing
            self.learner.drop("stale", [id])
        self.read.remove(id)
        self.place[self.index_of(id)] = "dropped"
        self.drops["stale"] += 1

    @rule(data=st.data())
    def a_confused_learner_counts_nothing_twice(self, data: st.DataObject) -> None:
        """What is trained can't be dropped, and what is durable or dropped can't be trained."""
        if trained := self.at("trained"):
            self.learner.drop("stale", [self.entry_of[data.draw(st.sampled_from(trained))]])
        if gone := [i for i in self.at("durable", "dropped") if i in self.entry_of]:
            assert self.learner.trained(self.step + 1, [self.entry_of[data.draw(st.sampled_from(gone))]]) == 0

    @rule(reply_lost=st.booleans())
    def advance(self, reply_lost: bool) -> None:
        """A new lineage of weights. After a lost reply the script is sent again as it was."""
        self.deposed.append(LearnerLedger(self.client, self.keys.run, fence=self.learner.fence))
        send = self.learner._scripts["ADVANCE"]
        again = {"ADVANCE": lambda **sent: (send(**sent), send(**sent))[1]} if reply_lost else {}
        with patch.dict(self.learner._scripts, again):
            assert self.learner.advance() == self.deposed[-1].fence + 1

    @rule()
    def trim(self) -> None:
        self.learner.trim()

    @rule()
    def crash_and_resume(self) -> None:
        self.deposed.append(self.learner)
        self.learner = LearnerLedger(self.client, self.keys.run)
        self.acknowledge(self.learner)
        self.learner.rewind(self.durable_step)
        for id in [id for id, step in self.trained_at.items() if step > self.durable_step]:
            del self.trained_at[id]
            self.place[self.index_of(id)] = "read"
        self.step = self.durable_step
        self.undelivered = []
        entries = self.learner.reread()
        unknown = [e.id for e in entries if e.index is None]
        self.learner.drop("corrupt", unknown)
        self.unknown[self.keys.rollouts] -= len(unknown)
        self.foreign += len(unknown)
        self.read = [e.id for e in entries if e.index is not None]
        assert {self.index_of(id) for id in self.read} == set(self.at("read")), "nothing is lost by the crash"
        assert self.learner.recorded() == self.recorded

    @precondition(lambda self: self.deposed)
    @rule(data=st.data())
    def a_deposed_learner_changes_nothing(self, data: st.DataObject) -> None:
        old = data.draw(st.sampled_from(self.deposed))
        ids = list(self.entry_of.values())[:2] or ["1-1"]
        calls = [
            lambda: old.admit(len(self.place), [b"t"], 99),
            lambda: old.record(1, ids),
            lambda: old.trained(1, ids),
            lambda: old.durable(99, ids),
            lambda: old.drop("x", ids),
            lambda: old.rewind(0),
            old.advance,
        ]
        with pytest.raises(FencedError):
            data.draw(st.sampled_from(calls))()

    # -- what must always hold ------------------------------------------------------------------------

    @invariant()
    def the_accounts_balance_and_say_what_the_model_says(self) -> None:
        if not hasattr(self, "place"):
            return
        accounts = self.learner.accounts()
        assert accounts.difference == 0, accounts
        counts = Counter(self.place.values())
        assert (accounts.admitted, accounts.outstanding) == (
            len(self.place),
            sum(counts[p] for p in ("queued", "leased", "unread", "read")),
        )
        assert (accounts.trained, accounts.durable) == (counts["trained"] + counts["durable"], counts["durable"])
        assert (Counter(accounts.dropped), accounts.foreign) == (self.drops, self.foreign)
        assert self.learner.outstanding_indices() == set(self.at("queued", "leased", "unread", "read"))

    @invariant()
    def nothing_is_trained_twice_in_one_lineage(self) -> None:
        if hasattr(self, "place"):
            indices = [self.index_of(id) for id in self.trained_at]
            assert len(indices) == len(set(indices))

    @invariant()
    def the_trained_hash_holds_what_is_not_durable(self) -> None:
        if not hasattr(self, "place"):
            return
        assert self.client.hlen(self.keys.trained) == len(self.at("trained"))

    @invariant()
    def a_task_s_digest_is_kept_as_long_as_a_rollout_of_it_may_be_read(self) -> None:
        if not hasattr(self, "place"):
            return
        kept = {int(index) for index in self.client.hkeys(self.keys.digests)}  # type: ignore[union-attr]
        assert kept == set(self.at("queued", "leased", "unread", "read", "trained"))


@pytest.fixture
def model(redis_url: str) -> type[LedgerModel]:
    LedgerModel.url = redis_url
    return LedgerModel


def test_any_interleaving_keeps_the_accounts_balanced_and_trains_nothing_twice(model: type[LedgerModel]) -> None:
    run_state_machine_as_test(
        model,
        settings=settings(
            max_examples=EXAMPLES or 40,
            derandomize=not EXAMPLES,
            stateful_step_count=40,
            phases=set(Phase) - {Phase.explain},
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
