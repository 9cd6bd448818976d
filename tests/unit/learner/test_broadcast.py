"""The broadcaster's watch over Redis: a wipe ends every wait, and what can't be read is put aside."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
import torch
from broadcasting import CONFIG, all_have, until, waiting
from replica import Replica, filled

from chorus.generator.relay import Relay
from chorus.learner.main import _backend
from chorus.learner.training.distributed import Snapshot
from chorus.learner.weight_sync.broadcaster import Broadcaster
from chorus.learner.weight_sync.fan_out import Link, Way
from chorus.learner.weight_sync.holding import Holding
from chorus.protocol.ledger import Keys, LedgerLostError, entries_of
from chorus.protocol.messages import Hold, Member, SyncOffer, SyncReport, Version
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.weights import host_store, join_group


@pytest.fixture
def broadcaster(opened: Callable[..., Broadcaster]) -> Broadcaster:
    return opened()


def test_over_gloo_a_learner_listens_nowhere(broadcaster: Broadcaster) -> None:
    """A store of torch's own tells its keys to whoever asks; the run's Redis asks for a password."""
    assert (type(broadcaster._sender._store).__name__, broadcaster._sender._store.port) == ("MeetingStore", 0)


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


def snapshot(step: int) -> Snapshot:
    """Three tensors of two sizes in buckets of 4 KiB, filled with the step's number."""
    return filled(step, [("a", 700), ("b", 15), ("c", 900)], 4096)


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
    receiver = replica(verdicts=("dies", "ok"))
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
    Replica(redis_url)  # a member that never comes
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


def test_what_was_offered_to_a_generator_that_never_returns_is_forgotten(
    broadcaster: Broadcaster, client: redis.Redis, replica: Callable[..., Replica]
) -> None:
    """In a cluster each pod has another name, and offers of a large model are large."""
    replica()
    broadcaster.publish(snapshot(1))
    assert broadcaster.wait_synced(1, 20.0) == 1
    assert 0 < client.ttl(Keys("run").offers("g")) <= 24 * 3600  # type: ignore[operator]


def test_who_is_held_stays_on_its_version_until_it_is_released(
    broadcaster: Broadcaster, client: redis.Redis, replica: Callable[..., Replica]
) -> None:
    held, free = replica(name="a"), replica(name="b")
    waiting(broadcaster, 2)
    broadcaster.publish(snapshot(1))
    assert broadcaster.wait_synced(2, 20.0) == 2
    assert broadcaster.hold(5) == 1, "one is left to train"
    told: Any = client.get(Keys("run").hold)
    assert Hold.decode(told) == Hold(version="1.1", generators=["a"])
    for step in (2, 3):
        broadcaster.publish(snapshot(step))
        assert broadcaster.wait_synced(1, 20.0) == 1
    assert all_have([held], snapshot(1))
    assert all_have([free], snapshot(3))
    broadcaster.release()
    assert client.get(Keys("run").hold) is None
    assert broadcaster.wait_synced(2, 20.0) == 2
    assert all_have([held, free], snapshot(3))


def test_a_redis_that_is_slow_to_hear_who_is_held_keeps_nobody_from_publishing(
    broadcaster: Broadcaster, client: redis.Redis, replica: Callable[..., Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        replica(name=name)
    waiting(broadcaster, 2)
    broadcaster.publish(snapshot(1))
    assert broadcaster.wait_synced(2, 20.0) == 2
    asked, answers = threading.Event(), threading.Event()

    class Slow:
        def set(self, key: str, word: bytes) -> None:
            asked.set()
            assert answers.wait(20.0)
            client.set(key, word)

    monkeypatch.setattr(broadcaster._holding, "_client", Slow())
    holder = threading.Thread(target=broadcaster.hold, args=(1,))
    holder.start()
    assert asked.wait(5.0)
    broadcaster.publish(snapshot(2))
    answers.set()
    holder.join(5.0)
    told: Any = client.get(Keys("run").hold)
    assert Hold.decode(told) == Hold(version="1.1", generators=["a"])


def test_a_hold_that_was_written_and_whose_reply_was_lost_is_taken_back(client: redis.Redis) -> None:
    class Lossy:
        delete = client.delete

        def set(self, key: str, word: bytes) -> None:
            client.set(key, word)
            raise redis.ConnectionError

    lossy: Any = Lossy()
    holding = Holding(lossy, "hold", threading.Condition())
    holding._word = b"a"
    with pytest.raises(redis.ConnectionError):
        holding.tell()
    holding.end([])
    holding.tell()
    assert client.get("hold") is None


def test_where_one_generator_is_there_none_is_held(
    broadcaster: Broadcaster, client: redis.Redis, replica: Callable[..., Replica]
) -> None:
    replica(name="a")
    broadcaster.publish(snapshot(1))
    assert broadcaster.wait_synced(1, 20.0) == 1
    assert (broadcaster.hold(1), broadcaster.hold_is_lost()) == (0, False)
    assert client.get(Keys("run").hold) is None


def left_without_the_held_one(
    broadcaster: Broadcaster, client: redis.Redis, replica: Callable[..., Replica]
) -> Replica:
    """Of two the one that was held on version 1 has gone; the other, returned, has version 2."""
    held, free = replica(name="a"), replica(name="b")
    waiting(broadcaster, 2)
    broadcaster.publish(snapshot(1))
    assert broadcaster.wait_synced(2, 20.0) == 2
    assert broadcaster.hold(1) == 1
    broadcaster.publish(snapshot(2))
    assert broadcaster.wait_synced(1, 20.0) == 1
    held.ending.set()
    held.join(5)
    client.hdel(Keys("run").members, "a")
    until(broadcaster.hold_is_lost, 5.0)
    return free


def test_who_was_held_and_goes_is_replaced_by_one_without_newer_weights_and_else_the_old_ones_come_again(
    broadcaster: Broadcaster, client: redis.Redis, replica: Callable[..., Replica]
) -> None:
    free = left_without_the_held_one(broadcaster, client, replica)
    broadcaster.hold_again(fence=2)
    until(lambda: all_have([free], snapshot(1)), 20.0)
    assert free.offers[-1].version == "2.1"
    late = replica(name="c")
    broadcaster.release()
    broadcaster.publish(filled(3, [("a", 700), ("b", 15), ("c", 900)], 4096, fence=2))
    assert broadcaster.wait_synced(2, 20.0) == 2
    assert all_have([free, late], snapshot(3))


def linked(id: str, engine: int = 1, synced: Version | None = None) -> Link:
    member = Member(
        generator_id=id, state="ready", engine=engine, world_size=1, version=None, in_flight=0, generated_tokens=0,
        busy_seconds=0.0, uptime_seconds=1.0, last_seen=0.0,
    )  # fmt: skip
    report = SyncReport(generator_id=id, version=str(synced), group="", ok=True) if synced else None
    return Link(member, engine=engine, synced=synced, tried=synced, report=report)


def test_who_has_the_kept_weights_is_held_before_who_must_take_them_and_who_is_starting_never(
    client: redis.Redis,
) -> None:
    """Named first is not ready first: a validation would wait for an engine that starts until the run ends."""
    starting, fresh, behind = linked("a", engine=0), linked("b"), linked("c", synced=Version(fence=1, step=1))
    able = linked("d", synced=Version(fence=1, step=2))
    links = [starting, fresh, behind, able]
    holding = Holding(client, "hold", threading.Condition())
    assert holding.begin(links, snapshot(2), 1) == 1
    held = []
    for _ in range(4):
        held += [link.member.generator_id for link in links if link.held]
        for link in links:
            link.gone = link.gone or link.held
        holding.choose(links)
    assert held == ["d", "c", "b"]


def test_a_hold_is_lost_where_somebody_else_could_have_it_and_not_while_all_engines_start(client: redis.Redis) -> None:
    """Else the fence would rise several times a second for as long as they do."""
    able, other = (linked(id, synced=Version(fence=1, step=2)) for id in "ab")
    links = [able, other]
    holding = Holding(client, "hold", threading.Condition())
    holding.begin(links, snapshot(2), 1)
    assert not holding.is_lost(links)
    other.tried = Version(fence=1, step=3)
    able.member = able.member.model_copy(update={"engine": 0})
    holding.choose(links)
    assert holding.is_lost(links)
    other.gone = True
    assert not holding.is_lost(links)


def test_who_comes_while_the_held_one_is_gone_gets_the_version_that_is_kept(
    broadcaster: Broadcaster, client: redis.Redis, replica: Callable[..., Replica]
) -> None:
    left_without_the_held_one(broadcaster, client, replica)
    late = replica(name="c")
    until(lambda: not broadcaster.hold_is_lost(), 5.0)
    until(lambda: all_have([late], snapshot(1)), 20.0)
    assert [offer.version for offer in late.offers] == ["1.1"]


@pytest.fixture
def relaying(opened: Callable[..., Broadcaster]) -> Broadcaster:
    return opened(fan_out="relay", sync_deadline_s=1.5)


def large(step: int) -> Snapshot:
    """Three pieces of 64 KiB each in two buckets."""
    return filled(step, [("a", 2**15), ("b", 2**14)], 4096)


def test_in_a_relay_each_passes_on_what_it_gets_over_groups_that_stay(
    relaying: Broadcaster, replica: Callable[..., Replica]
) -> None:
    replicas = [replica(name=name) for name in "abc"]
    waiting(relaying, 3)
    for step in (1, 2, 3):
        relaying.publish(large(step))
        assert relaying.wait_synced(3, 20.0) == 3
        assert all_have(replicas, large(step))
        waiting(relaying, 3)
    onward = [r.offers[-1].onward for r in replicas]
    assert [o and o.group for o in onward] == [replicas[1].groups[0], replicas[2].groups[0], None]
    assert [len(r.groups) for r in replicas] == [1, 1, 1]
    assert [link.group is not None for link in relaying.links.values()] == [True, False, False]


@pytest.mark.parametrize(("who", "how"), [("a", "dies"), ("b", "dies"), ("b", "hangs")])
def test_who_fails_in_a_relay_costs_one_sync_its_deadline_and_nobody_else_the_weights(
    relaying: Broadcaster, replica: Callable[..., Replica], who: str, how: str
) -> None:
    """Those behind him begin another chain; afterwards he stands at the chain's end."""
    replicas = [replica(name=name, verdicts=("ok", how, "ok") if name == who else ("ok",)) for name in "abc"]
    faulty = replicas["abc".index(who)]
    others = [r for r in replicas if r is not faulty]
    waiting(relaying, 3)
    relaying.publish(large(1))
    assert relaying.wait_synced(3, 20.0) == 3
    waiting(relaying, 3)
    relaying.publish(large(2))
    until(lambda: all_have(others, large(2)), 4 * relaying.config.learner.sync_deadline_s)
    faulty.go_on.set()
    assert relaying.wait_synced(3, 30.0) == 3
    waiting(relaying, 3)
    relaying.publish(large(3))
    assert relaying.wait_synced(3, 20.0) == 3
    assert all_have(replicas, large(3))
    assert [r.offers[-1].onward is not None for r in others] == [True, True]
    assert faulty.offers[-1].onward is None


def test_who_comes_later_or_is_at_another_version_gets_the_weights_from_the_learner(
    relaying: Broadcaster, replica: Callable[..., Replica]
) -> None:
    first = replica(name="a")
    waiting(relaying, 1)
    relaying.publish(large(1))
    assert relaying.wait_synced(1, 20.0) == 1
    late = replica(name="b")
    assert relaying.wait_synced(2, 20.0) == 2
    assert all_have([first, late], large(1))
    assert late.offers[-1].piece_bytes == 0
    waiting(relaying, 2)
    relaying.publish(large(2))
    assert relaying.wait_synced(2, 20.0) == 2
    assert [r.offers[-1].onward is None for r in (first, late)] == [False, True]
    assert len(late.groups) == 2


@pytest.mark.parametrize(
    "lost", [redis.ConnectionError("away"), RuntimeError("closed by peer"), CannotGoOn("no Redis")]
)
def test_a_relay_that_can_not_meet_keeps_nothing_of_what_it_was_given(lost: Exception) -> None:
    """Neither pieces of the version that it failed at nor of those after it."""

    def meet() -> None:
        raise lost

    relay = Relay("group", meet, 1.0)
    for _ in range(2):
        relay.pass_on(torch.zeros(1))
        until(lambda: not relay.busy, 5.0)
    relay.close()


def test_nobody_waits_for_a_link_whose_sync_ended_with_an_error_of_its_own(
    relaying: Broadcaster, replica: Callable[..., Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = relaying._send

    def send(link: Link, way: Way) -> SyncReport:
        if link.member.generator_id == "a":
            raise KeyError("nobody has thought of this")
        return real(link, way)

    monkeypatch.setattr(relaying, "_send", send)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    replicas = [replica(name=name) for name in "ab"]
    waiting(relaying, 2)
    relaying.publish(large(1))
    until(lambda: all_have(replicas[1:], large(1)), 10.0)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"fan_out": "relay"}, r"learner.fan_out is relay, .+ leave it out"),
        ({"delta": True}, r"learner.delta is true, .+"),
    ],
)
def test_weights_are_passed_on_and_deltas_sent_over_gloo_alone(keys: dict[str, Any], said: str) -> None:
    cuda, asked = torch.device("cuda"), CONFIG.learner.model_copy(update=keys)
    config = CONFIG.model_copy(update={"learner": asked})
    assert [_backend(CONFIG, cuda), _backend(config, torch.device("cpu"))] == ["nccl", "gloo"]
    with pytest.raises(CannotGoOn, match=said):
        _backend(config, cuda)
