"""A rendezvous on Redis is to torch what its own stores are, and tells nothing to who has no password."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
import redis
import torch
import torch.distributed as dist
from flaky import FlakyRedis
from torch.distributed import PrefixStore  # pyright: ignore[reportPrivateImportUsage]

from chorus.protocol.runtime.redis import RENDEZVOUS
from chorus.protocol.runtime.redis_store import KEPT_S, RedisStore
from chorus.protocol.weights import (
    MeetingStore,
    announce_group,
    broadcast,
    join_group,
    join_store,
    open_group,
    retract_group,
)


@pytest.fixture
def store(client: redis.Redis) -> RedisStore:
    return RedisStore(client, "group", 5.0)


@pytest.mark.parametrize("prefixed", [False, True], ids=["from Python", "from C++"])
def test_it_keeps_what_is_written(store: RedisStore, prefixed: bool, client: redis.Redis) -> None:
    one = PrefixStore("p", store) if prefixed else store
    one.set("a", "1")
    assert one.get("a") == b"1"
    assert (one.add("n", 2), one.add("n", 3), one.get("n")) == (2, 5, b"5")
    assert (one.check(["a", "n"]), one.check(["a", "b"])) == (True, False)
    assert one.compare_set("c", "", "x") == b"x"
    assert one.compare_set("c", "y", "z") == b"x"
    assert one.compare_set("c", "x", "z") == b"z"
    one.multi_set(["d", "e"], [b"\x00\xff", b""])  # type: ignore[attr-defined]
    assert one.multi_get(["d", "e"]) == [b"\x00\xff", b""]
    one.append("a", "2")  # type: ignore[attr-defined]
    assert one.get("a") == b"12"
    assert 0 < client.ttl("group") <= KEPT_S  # type: ignore[operator]


def test_a_key_that_does_not_come_in_time_is_an_error_that_names_it(store: RedisStore) -> None:
    started = time.monotonic()
    with pytest.raises(RuntimeError, match=r"rendezvous group: nobody wrote late within 0\.2 s"):
        store.wait(["late"], timedelta(seconds=0.2))
    assert time.monotonic() - started < 2


def test_a_key_is_waited_for(store: RedisStore) -> None:
    threading.Timer(0.2, store.set, ("late", "now")).start()
    assert store.get("late") == b"now"


def test_a_group_meets_there_and_no_port_but_gloo_s_own_is_open(
    client: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RENDEZVOUS, f"run {redis_url}")
    ours = MeetingStore(client, "run", "127.0.0.1", 10.0)
    announce_group(ours, "g")
    before = _listening()
    groups = _meet(ours, "g")
    assert len(_listening() - before) <= 2, "one of each side's own"
    del groups
    with pytest.raises(RuntimeError, match="was given up by the learner"):
        join_group("gloo", "127.0.0.1", 0, "another", 1, 2, 1.0)


def _meet(ours: MeetingStore, name: str) -> list[object]:
    """The learner and a worker in one group, over which something has come."""
    tensors = [torch.full([3], 7.0), torch.zeros(3)]
    groups: list[object] = [None, None]

    def run(rank: int) -> None:
        if rank == 0:
            here = open_group("gloo", ours, name, 0, 2, 10.0)
        else:
            here = join_group("gloo", "127.0.0.1", 0, name, 1, 2, 10.0)
        broadcast(here, tensors[rank], 10.0)
        groups[rank] = here

    threads = [threading.Thread(target=run, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert tensors[1].tolist() == [7.0, 7.0, 7.0]
    return groups


def test_fifty_groups_leave_no_connection_no_store_and_no_key(
    client: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine joins another one after each sync that failed, for as long as it lives."""
    monkeypatch.setenv(RENDEZVOUS, f"run {redis_url}")
    ours = MeetingStore(client, "run", "127.0.0.1", 10.0)

    def meet(name: str) -> tuple[int, int, int]:
        announce_group(ours, name)
        _meet(ours, name)
        retract_group(ours, name)
        return len(client.client_list()), len(RedisStore._kept), ours.num_keys()  # type: ignore[arg-type]

    announce_group(ours, "g-1.0")  # of another generator: it stays
    held = [meet(f"g-{number}") for number in range(50)]
    assert held[-1] == held[0]
    assert held[0][2] == 1
    assert ours.check(["g-1.0/announced"])


def test_torch_s_own_groups_are_made_of_it(store: RedisStore) -> None:
    dist.init_process_group("gloo", store=store, rank=0, world_size=1, timeout=timedelta(seconds=20))
    try:
        further = dist.new_group([0])
        total = torch.ones(2)
        dist.all_reduce(total, group=further)
        assert total.tolist() == [1.0, 1.0]
        dist.barrier()
    finally:
        dist.destroy_process_group()


def _listening() -> set[str]:
    rows = [line.split() for file in ("tcp", "tcp6") for line in Path("/proc/net", file).read_text().splitlines()]
    return {row[1] for row in rows if row[3] == "0A"}


def test_who_has_no_password_reads_no_key(flaky_redis: FlakyRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    redis.Redis.from_url(flaky_redis.url).config_set("requirepass", "secret")
    monkeypatch.setenv(RENDEZVOUS, f"run {flaky_redis.url.replace('//', '//:secret@')}")
    store = join_store("127.0.0.1", 0, 5.0)
    store.set("key", "value")
    assert store.get("key") == b"value"
    with redis.Redis.from_url(flaky_redis.url) as outsider, pytest.raises(redis.AuthenticationError):
        outsider.hgetall("chorus:run:weights")
