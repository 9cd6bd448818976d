"""Links that are cut, throttled and delayed between the hosts of one run, each in a network namespace of its own.

The tests are steps of one story, in order; the last one reads the accounts. CHORUS_CUT_S is how long a cut lasts; the
default outlasts a lease (3 s) and a sync (4 s).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lan import Lan, small_network
from safetensors import safe_open
from spreadrun import HOSTS, SpreadRun

from chorus.protocol.messages import Version

pytestmark = pytest.mark.slow
CUT_S = float(os.environ.get("CHORUS_CUT_S", "5"))


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    with small_network(HOSTS) as lan:
        yield lan


@pytest.fixture(scope="module")
def story(lan: Lan, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[SpreadRun]:
    run = SpreadRun(lan, tmp_path_factory.mktemp("spread"), tiny_model)
    try:
        run.until(lambda: run.ready("near") and run.ready("far") and run.step() >= 2, "all at work", 120)
        yield run
    finally:
        run.close()


def tell(fault: str, recovery_s: float) -> None:
    print(f"{fault}: well again {recovery_s:.1f} s after its end")


def test_a_generator_that_is_cut_off_costs_its_leases_time_and_comes_back(story: SpreadRun) -> None:
    before = story.ready("far")
    assert before is not None
    story.lan.cut("far")
    steps, since = story.step(), time.time()
    time.sleep(CUT_S)
    story.until(lambda: story.step() > steps, "a step without it")
    story.lan.plug("far")
    back_s = story.until(lambda: (m := story.ready("far")) and m.last_seen > since + CUT_S, "the far one at work again")
    tell("generator cut off", back_s)
    member = story.ready("far")
    assert member is not None
    assert member.generator_id == before.generator_id, "the same process, which waited"
    trained = story.trained_by("far")
    story.until(lambda: story.trained_by("far") > trained, "its groups in a step")


@pytest.mark.parametrize("host", ["learner", "redis"])
def test_without_the_learner_or_redis_all_wait_and_then_go_on(story: SpreadRun, host: str) -> None:
    story.lan.cut(host)
    time.sleep(CUT_S)
    steps = story.step()
    story.lan.plug(host)
    # What was in hand when the link went may have ended in one step more.
    tell(f"{host} cut off", story.until(lambda: story.step() > steps + 1, "steps again"))
    story.until(lambda: story.ready("near") and story.ready("far"), "both generators at work")
    assert story.accounts().difference == 0


def test_a_generator_that_only_the_learner_can_t_reach_gets_the_newest_weights_afterwards(story: SpreadRun) -> None:
    """Redis is there for both: it goes on with the weights it has, and what grows too old is dropped."""
    member = story.ready("far")
    assert member is not None
    given_up = f"to {member.generator_id} failed"
    failures = story.log("learner").count(given_up)
    story.lan.separate("learner", "far")
    try:
        story.until(lambda: story.log("learner").count(given_up) > failures, "its sync given up")
        steps = story.step()
        story.until(lambda: story.step() > steps, "a step without it")
        assert story.ready("far"), "it still beats"
    finally:
        story.lan.join("learner", "far")
    steps = story.step()

    def caught_up() -> bool:
        member = story.ready("far")
        return member is not None and Version.parse(member.version or "0.0").step >= steps

    tell("weight link cut", story.until(caught_up, "the newest weights"))
    assert set(story.accounts().dropped) <= {"stale"}


def test_a_throttled_generator_gets_its_weights_at_the_link_s_pace(story: SpreadRun, tiny_model: Path) -> None:
    with safe_open(tiny_model / "model.safetensors", "pt") as file:
        bits = 8 * sum(file.get_tensor(name).nbytes for name in file.keys())  # noqa: SIM118
    least_s = 1.2  # that the weights alone need; a sync may last 4 s
    story.lan.throttle("far", round(bits / least_s / 1000))
    try:
        since, steps = time.time(), story.step()
        story.until(lambda: len(story.synced("far", since)) >= 3, "syncs over the thin link")
        story.until(lambda: story.step() > steps, "a step of the others")
    finally:
        story.lan.unthrottle("far")
    _, first, second, *_ = story.synced("far", since)
    print(f"weights of {bits // 8} bytes at {bits / least_s / 1000:.0f} kbit/s: a sync every {second - first:.1f} s")
    assert second - first > 0.8 * least_s, "else the link was not thin"


def test_a_generator_far_away_from_redis_still_serves(story: SpreadRun) -> None:
    story.proxy.delay_s = 0.1
    try:
        trained = story.trained_by("far")
        story.until(lambda: story.trained_by("far") >= trained + 4, "groups from far away")
    finally:
        story.proxy.restore()


def test_nothing_was_lost_and_nothing_trained_twice(story: SpreadRun) -> None:
    accounts = story.accounts()
    trained = story.trained()
    assert set(trained.values()) == {1}
    assert accounts.difference == 0
    assert set(accounts.dropped) <= {"stale"}, accounts.dropped
    print(f"{len(trained)} groups trained, dropped {accounts.dropped or 'none'}")
