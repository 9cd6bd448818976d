"""The broadcaster's watch over Redis: a wipe ends every wait, and what can't be read is put aside."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import redis
import torch

from learner.broadcast import Broadcaster
from protocol.config import RunConfig
from protocol.exits import CannotGoOn
from protocol.ledger import Keys, LearnerLedger, LedgerLostError
from protocol.messages import Member
from protocol.metrics import LearnerMetrics
from protocol.weights import host_store

CONFIG = RunConfig.model_validate(
    {"model": {"path": "any"}, "problems": {"train": ["any"]}, "templates": {"names": ["any"]}}
)


@pytest.fixture
def broadcaster(client: redis.Redis) -> Iterator[Broadcaster]:
    LearnerLedger(client, "run")
    broadcaster = Broadcaster(CONFIG, client, "run", "gloo", torch.device("cpu"), LearnerMetrics())
    yield broadcaster
    broadcaster.close()


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


def test_a_store_port_in_use_is_refused_by_name() -> None:
    taken = host_store("127.0.0.1", 0, 5.0)
    with pytest.raises(CannotGoOn, match=rf"learner.store_port {taken.port}: can't listen there"):
        host_store("127.0.0.1", taken.port, 5.0)
