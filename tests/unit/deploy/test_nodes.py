"""The nodes of a learner meet on Redis, whatever earlier starts have left there."""

from __future__ import annotations

import threading
import time

import pytest
import redis

from chorus.deploy.nodes import HERE_S, Meeting
from chorus.protocol.runtime.exits import CannotGoOn


def met(url: str, nodes: int, late_s: float = 0.0) -> list[tuple[int, str, bytes]]:
    """Of each node: its rank, the group, and what node 0 has written there."""
    found: dict[int, tuple[int, str, bytes]] = {}

    def run(rank: int) -> None:
        time.sleep(0.0 if rank else late_s)
        meeting = Meeting(url, "run", rank, nodes, 8.0)
        told = meeting.next_rendezvous()
        if rank == 0:
            told.store.set("word", "of node 0")
        found[rank] = (told.rank, meeting.get_run_id(), told.store.get("word"))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(nodes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return [found[rank] for rank in range(nodes)]


def test_all_nodes_get_one_group_with_a_name_of_its_own(client: redis.Redis, redis_url: str) -> None:
    first, second = met(redis_url, 3), met(redis_url, 3)
    for each in (first, second):
        assert [rank for rank, _, _ in each] == [0, 1, 2]
        assert {word for _, _, word in each} == {b"of node 0"}
        assert len({group for _, group, _ in each}) == 1
    assert first[0][1].startswith("chorus:run:ranks:")
    assert first[0][1] != second[0][1]


def test_a_node_that_died_while_it_waited_is_not_taken_for_one_that_is_here(
    client: redis.Redis, redis_url: str
) -> None:
    client.set("chorus:run:nodes:1", "dead", ex=HERE_S)
    [(_, group, _), (_, other, word)] = met(redis_url, 2, late_s=HERE_S + 0.2)
    assert (group, word) == (other, b"of node 0")
    assert client.get("chorus:run:nodes:dead") is None


@pytest.mark.parametrize(("rank", "who"), [(0, "node 1, 2 of 3"), (1, "node 0 of 3")])
def test_who_does_not_come_is_named(client: redis.Redis, redis_url: str, rank: int, who: str) -> None:
    with pytest.raises(CannotGoOn, match=f"learner: {who} did not come within 0.5 s"):
        Meeting(redis_url, "run", rank, 3, 0.5).next_rendezvous()
