"""The broadcaster's watch over Redis: a wipe ends every wait, and what can't be read is put aside."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import torch

from chorus.learner.training.distributed import Snapshot
from chorus.learner.weight_sync import Broadcaster
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Keys, LearnerLedger, LedgerLostError, entries_of
from chorus.protocol.messages import Member, SyncOffer, SyncReport, Version
from chorus.protocol.metrics.processes import LearnerMetrics
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.redis import RENDEZVOUS
from chorus.protocol.weights import broadcast, describe, host_store, join_group, new_buckets, plan_buckets

CONFIG = RunConfig.model_validate(
    {
        "model": {"path": "any"},
        "problems": {"train": ["any"]},
        "templates": {"names": ["any"]},
        "learner": {"sync_deadline_s": 3.0, "bucket_bytes": 4096},
    }
)


@pytest.fixture
def broadcaster(client: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broadcaster]:
    monkeypatch.setenv(RENDEZVOUS, f"run {redis_url}")
    LearnerLedger(client, "run")
    broadcaster = Broadcaster(CONFIG, client, "run", "gloo", torch.device("cpu"), LearnerMetrics())
    yield broadcaster
    broadcaster.close()


def test_over_gloo_a_learner_listens_nowhere(broadcaster: Broadcaster) -> None:
    """A store of torch's own tells its keys to whoever asks; the run's Redis asks for a password."""
    assert (type(broadcaster._store).__name__, broadcaster._store.port) == ("MeetingStore", 0)


def test_a_wipe_ends_the_wait_for_the_first_generator(broadcaster: Broadcaster, client: redis.Redis) -> None:
    threading.Timer(0.3, client.flushall).start()
    started = time.monotonic()
    with pytest.raises(LedgerLostError, match="was the server flushed or replaced"):
        broadcaster.wait_synced(1, 60.0)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("name", ["g", "another"])
def test_a_member_that_can_not_be_read_is_put_aside(broadcaster: Broadcaster, client: redis.Redis, name: str) -> None:
    member = Member(
        generator_id="g", state="ready", engine=0, world_size=1, version=None, in_flight=0, generated_tokens=0,
        busy_seconds=0.0, uptime_seconds=1.0, last_seen=time.time(),
    )  # fmt: skip
    members = Keys("run").members
    client.hset(members, name, member.encode()[:-2] if name == "g" else member.encode())
    client.xadd(Keys("run").reports, {"d": b"junk"})
    end = time.monotonic() + 5
    while client.hexists(members, name):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert broadcaster.links == {}
    assert broadcaster.wait_synced(1, 0.5) == 0, "it goes on"


@pytest.mark.parametrize("shift_s", [-3600.0, 3600.0])
def test_a_member_is_alive_by_redis_clock_whatever_the_learner_s_own_says(
    broadcaster: Broadcaster, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, shift_s: float
) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + shift_s)
    told: Any = client.time()
    for name, seen in (("present", told[0]), ("long gone", told[0] - 60)):
        member = Member(
            generator_id=name, state="joining", engine=0, world_size=1, version=None, in_flight=0, generated_tokens=0,
            busy_seconds=0.0, uptime_seconds=1.0, last_seen=float(seen),
        )  # fmt: skip
        client.hset(Keys("run").members, name, member.encode())
    end = time.monotonic() + 5
    while not broadcaster.links:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert list(broadcaster.links) == ["present"]
    assert not broadcaster.links["present"].gone


def test_a_store_port_in_use_is_refused_by_name() -> None:
    taken = host_store("127.0.0.1", 0, 5.0)
    with pytest.raises(CannotGoOn, match=rf"learner.store_port {taken.port}: can't listen there"):
        host_store("127.0.0.1", taken.port, 5.0)


class Replica(threading.Thread):
    """A generator's side of the broadcast: real process groups, real bytes, scripted verdicts (the last one stays).

    "late": the report is written only when the next offer is there.
    """

    def __init__(
        self, client: redis.Redis, url: str, verdicts: tuple[str, ...] = ("ok",), dies_once: bool = False
    ) -> None:
        super().__init__(daemon=True)
        self.client, self.verdicts, self.dies_once = redis.Redis.from_url(url), [*verdicts], dies_once
        self.late: SyncReport | None = None
        self.received: dict[str, torch.Tensor] = {}
        self.groups: list[str] = []
        self.ending = threading.Event()
        self.beat(engine=1)

    def beat(self, engine: int) -> None:
        member = Member(
            generator_id="g", state="ready", engine=engine, world_size=1, version=None, in_flight=0,
            generated_tokens=0, busy_seconds=0.0, uptime_seconds=1.0, last_seen=time.time(),
        )  # fmt: skip
        self.client.hset(Keys("run").members, "g", member.encode())

    def run(self) -> None:
        keys, last, group = Keys("run"), "0", None
        while not self.ending.is_set():
            entries = entries_of(self.client.xread({keys.offers("g"): last}, block=100))
            for id, fields in entries:
                last = id.decode()
                offer = SyncOffer.decode(fields[b"d"])
                if self.late is not None:
                    self.client.xadd(keys.reports, {"d": self.late.encode()})
                    self.late = None
                if offer.group not in self.groups:
                    self.groups.append(offer.group)
                    where = offer.store_host, offer.store_port
                    group = join_group("gloo", *where, offer.group, 1, 2, offer.timeout_s)
                if self.dies_once:
                    self.dies_once, group = False, None  # drops its end of the group, as a killed worker would
                    self.beat(engine=2)
                    continue
                plan = plan_buckets(offer.tensors, offer.bucket_bytes)
                buckets = new_buckets(plan)
                for bucket in buckets:
                    broadcast(group, bucket, offer.timeout_s)
                self.received = {name: t for views in plan.views(buckets) for name, t in views}
                verdict = self.verdicts.pop(0) if len(self.verdicts) > 1 else self.verdicts[0]
                ok, detail = (False, "weight check failed") if verdict == "refused" else (True, "")
                report = SyncReport(generator_id="g", version=offer.version, group=offer.group, ok=ok, detail=detail)
                if verdict == "late":
                    self.late = report
                else:
                    self.client.xadd(keys.reports, {"d": report.encode()})


@pytest.fixture
def replica(client: redis.Redis, redis_url: str) -> Iterator[Callable[..., Replica]]:
    started: list[Replica] = []

    def start(**how: Any) -> Replica:
        started.append(Replica(client, redis_url, **how))
        started[-1].start()
        return started[-1]

    yield start
    for thread in started:
        thread.ending.set()
        thread.join(5)


def snapshot(step: int) -> Snapshot:
    """Three tensors of two sizes in buckets of 4 KiB, filled with the step's number."""
    named = [("a", torch.empty(700)), ("b", torch.empty(3, 5)), ("c", torch.empty(900))]
    plan = plan_buckets(describe(named, "float32"), 4096)
    buckets = new_buckets(plan)
    for views in plan.views(buckets):
        for k, (_, view) in enumerate(views):
            view.fill_(step + k / 10)
    return Snapshot(Version(fence=1, step=step), plan, buckets, [])


def test_weights_arrive_bit_for_bit_over_one_group(broadcaster: Broadcaster, replica: Callable[..., Replica]) -> None:
    receiver = replica()
    for step in (1, 2, 3):
        broadcaster.publish(snapshot(step))
        assert broadcaster.wait_synced(1, 20.0) == 1
        sent = snapshot(step)
        for views in sent.plan.views(sent.buckets):
            for name, tensor in views:
                assert torch.equal(receiver.received[name], tensor)
    assert len(receiver.groups) == 1


def test_a_replica_that_dies_in_a_sync_is_synced_again_over_a_new_group(
    broadcaster: Broadcaster, replica: Callable[..., Replica]
) -> None:
    receiver = replica(dies_once=True)
    broadcaster.publish(snapshot(1))
    assert broadcaster.wait_synced(1, 60.0) == 1
    assert len(receiver.groups) == 2


def test_a_report_that_comes_too_late_is_not_taken_for_that_of_the_sync_after_it(
    broadcaster: Broadcaster, replica: Callable[..., Replica]
) -> None:
    """The first sync is given up, the second refused; what the first one reports meanwhile must not hide that."""
    receiver = replica(verdicts=("late", "refused", "ok"))
    broadcaster.publish(snapshot(1))
    assert broadcaster.wait_synced(1, 60.0) == 1
    assert len(receiver.groups) == 3
    assert broadcaster._metrics.refused.labels("report")._value.get() == 1


def test_a_worker_that_comes_for_a_group_that_was_given_up_is_told_so_at_once(
    broadcaster: Broadcaster, client: redis.Redis, redis_url: str
) -> None:
    """Else an engine that stood still would spend a deadline on each invitation that it has missed."""
    Replica(client, redis_url)  # a member that never comes
    broadcaster.publish(snapshot(1))
    assert broadcaster.wait_synced(1, CONFIG.learner.sync_deadline_s + 1.5) == 0
    first, *_ = entries_of(client.xread({Keys("run").offers("g"): "0"}))
    offer = SyncOffer.decode(first[1][b"d"])
    started = time.monotonic()
    with pytest.raises(RuntimeError, match="was given up by the learner"):
        join_group("gloo", offer.store_host, offer.store_port, offer.group, 1, 2, offer.timeout_s)
    assert time.monotonic() - started < 1.5


def test_weights_that_every_generator_refuses_end_the_run_with_the_reason(
    broadcaster: Broadcaster, replica: Callable[..., Replica]
) -> None:
    replica(verdicts=("refused",))
    broadcaster.publish(snapshot(1))
    with pytest.raises(CannotGoOn, match="refused the weights 5 times; g says: weight check failed"):
        broadcaster.wait_synced(1, 60.0)
