"""Broadcasters and the replicas that they serve, all in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import torch
from broadcasting import CONFIG
from replica import Replica

from chorus.learner.weight_sync.broadcaster import Broadcaster
from chorus.protocol.ledger import LearnerLedger
from chorus.protocol.metrics.processes import LearnerMetrics
from chorus.protocol.runtime.redis import RENDEZVOUS


@pytest.fixture
def opened(
    client: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Broadcaster]]:
    """A broadcaster with these keys of `learner`."""
    monkeypatch.setenv(RENDEZVOUS, f"run {redis_url}")
    LearnerLedger(client, "run")
    started: list[Broadcaster] = []

    def open(**keys: Any) -> Broadcaster:
        config = CONFIG.model_copy(update={"learner": CONFIG.learner.model_copy(update=keys)})
        started.append(Broadcaster(config, client, "run", "gloo", torch.device("cpu"), LearnerMetrics()))
        return started[-1]

    yield open
    for broadcaster in started:
        broadcaster.close()


@pytest.fixture
def replica(redis_url: str) -> Iterator[Callable[..., Replica]]:
    started: list[Replica] = []

    def start(**how: Any) -> Replica:
        started.append(Replica(redis_url, **how))
        started[-1].start()
        return started[-1]

    yield start
    for thread in started:
        thread.ending.set()
        thread.go_on.set()
        thread.join(5)
