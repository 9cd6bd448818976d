"""Weights sent as what differs from the version before: who gets that, and who gets them whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from broadcasting import all_have, until, waiting
from replica import Replica, filled

from chorus.learner.training.distributed import Snapshot
from chorus.learner.weight_sync import former
from chorus.learner.weight_sync.broadcaster import Broadcaster
from chorus.learner.weight_sync.fan_out import Link, Way
from chorus.protocol.messages import Member, Version

SIZES = [("a", 700), ("b", 15), ("c", 900)]


def stepped(step: int) -> Snapshot:
    """Of the three tensors the first values of each are the step's number, the others stay."""
    made = filled(0, SIZES, 4096)
    for views in made.plan.views(made.buckets):
        for _, view in views:
            view[:3] = step
    return replace(made, version=Version(fence=1, step=step))


def publish(broadcaster: Broadcaster, replicas: list[Replica], *snapshots: Snapshot) -> list[list[str | None]]:
    """One after the other to all of them; returns of which versions each one's last offers were deltas."""
    for sent in snapshots:
        broadcaster.publish(sent)
        assert broadcaster.wait_synced(len(replicas), 20.0) == len(replicas)
        assert all_have(replicas, sent)
        waiting(broadcaster, len(replicas))
    return [[offer.delta and offer.delta.base for offer in r.offers] for r in replicas]


def test_after_whole_weights_what_differs_is_enough(
    opened: Callable[..., Broadcaster], replica: Callable[..., Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made once, for both replicas; the version before is kept until they have the newest."""
    made: list[str] = []
    real = former._parts
    monkeypatch.setattr(former, "_parts", lambda base, new: made.append(str(new.version)) or real(base, new))
    broadcaster = opened(delta=True)
    replicas = [replica(name=name) for name in "ab"]
    waiting(broadcaster, 2)
    bases = publish(broadcaster, replicas, *map(stepped, (1, 2, 3)))
    assert bases == [[None, "1.1", "1.2"]] * 2
    assert made == ["1.2", "1.3"]
    until(lambda: broadcaster._shared.former is None, 5.0)
    whole = stepped(1).plan.total_bytes
    assert 2 * whole < broadcaster._metrics.sent_bytes._value.get() < 2.2 * whole


def test_where_nearly_all_differs_weights_go_whole(
    opened: Callable[..., Broadcaster], replica: Callable[..., Replica]
) -> None:
    broadcaster = opened(delta=True)
    assert publish(broadcaster, [replica()], *(filled(step, SIZES, 4096) for step in (1, 2))) == [[None, None]]


@pytest.mark.parametrize("how", ["refused", "elsewhere", "damaged"])
def test_whose_base_is_lost_gets_whole_weights(
    opened: Callable[..., Broadcaster], replica: Callable[..., Replica], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A replica that is at another version or whose bytes are others says so, and takes nothing."""
    monkeypatch.setattr("chorus.learner.weight_sync.broadcaster._FAILED_PAUSE_S", 0.01)
    broadcaster = opened(delta=True)
    receiver = replica(verdicts=("ok", "refused", "ok") if how == "refused" else ("ok",))
    publish(broadcaster, [receiver], stepped(1))
    if how == "elsewhere":
        receiver.intake.held.version = "1.0"
    elif how == "damaged":
        receiver.intake.held.buckets[0][100] ^= 1
    [bases] = publish(broadcaster, [receiver], stepped(2), stepped(3))
    assert bases == [None, "1.1", None, "1.2"]
    assert len(receiver.groups) == 2


def test_a_new_engine_gets_whole_weights(opened: Callable[..., Broadcaster], replica: Callable[..., Replica]) -> None:
    broadcaster, receiver = opened(delta=True), replica()
    publish(broadcaster, [receiver], stepped(1), stepped(2))
    receiver.intake.leave()
    receiver.engine += 1
    until(lambda: len(receiver.offers) == 3, 10.0)
    waiting(broadcaster, 1)
    assert publish(broadcaster, [receiver], stepped(3)) == [[None, "1.1", None, "1.2"]]


def test_in_a_chain_weights_go_whole(opened: Callable[..., Broadcaster], replica: Callable[..., Replica]) -> None:
    broadcaster = opened(delta=True, fan_out="relay")
    replicas = [replica(name=name) for name in "ab"]
    waiting(broadcaster, 2)
    assert publish(broadcaster, replicas, *map(stepped, (1, 2))) == [[None, None]] * 2


def test_who_has_skipped_a_version_or_has_a_new_group_gets_whole_weights() -> None:
    member = Member(
        generator_id="g", state="ready", engine=1, world_size=1, version=None, in_flight=0, generated_tokens=0,
        busy_seconds=0.0, uptime_seconds=1.0, last_seen=0.0,
    )  # fmt: skip
    before, way = former.Former(stepped(2)), Way(stepped(3), "group", 1)
    found = [
        former.parts_for(before, Link(member, synced=Version(fence=1, step=step), group_name=group), way)
        for step, group in ((1, "group"), (2, "another"), (2, "group"))
    ]
    assert [parts and parts.delta.base for parts in found] == [None, None, "1.2"]
