"""From another host: which ports of the weights can be reached there. Whole runs: test_elastic.py, test_kill.py."""

from __future__ import annotations

import threading

import psutil
from otherhost import HOST, OtherHost, listening

from chorus.protocol.weights import host_store, join_store, open_group


def test_another_host_reaches_what_is_meant_for_it(other_host: OtherHost) -> None:
    """Else the refusals below would prove nothing."""
    store = host_store(HOST, 0, 5.0)
    assert other_host.reaches({store.port}) == {store.port}
    assert join_store(HOST, store.port, 5.0).port == store.port, "and so does this one, over the same address"


def test_the_weight_store_on_loopback_is_for_this_host_alone(other_host: OtherHost) -> None:
    store = host_store("127.0.0.1", 0, 5.0)
    assert other_host.reaches({store.port}) == set()
    assert join_store("127.0.0.1", store.port, 5.0).port == store.port


def test_a_host_that_is_not_ours_is_listened_for_on_all_interfaces(other_host: OtherHost) -> None:
    store = host_store("192.0.2.1", 0, 5.0)  # TEST-NET-1, RFC 5737: a gateway's address, say
    assert other_host.reaches({store.port}) == {store.port}
    assert join_store(store.host, store.port, 5.0).port == store.port


def test_the_bytes_of_the_weights_stay_on_loopback_with_the_store(other_host: OtherHost) -> None:
    before = listening(psutil.Process())
    store = host_store("127.0.0.1", 0, 5.0)
    groups: dict[int, object] = {}

    def join(rank: int) -> None:
        groups[rank] = open_group("gloo", join_store("127.0.0.1", store.port, 5.0), "g", rank, 2, 5.0)

    threads = [threading.Thread(target=join, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert set(groups) == {0, 1}
    ports = listening(psutil.Process()) - before
    assert len(ports) >= 3, "the store and two ends of the group"
    assert other_host.reaches(ports) == set()
