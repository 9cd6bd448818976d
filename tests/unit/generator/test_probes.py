"""What a cluster's probes hear from a generator, from its start to its draining: a real agent, a scripted engine."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import pytest
import redis
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from scripted import ScriptedEngine, ScriptedGrader, ScriptedTokenizer

from chorus.generator.agent import Agent
from chorus.generator.probes import create_app, served
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Keys, LearnerLedger
from chorus.protocol.messages import SyncOffer
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.redis import connect_async

STALENESS_MAX = 2
CONFIG = RunConfig.model_validate(
    {
        "model": {"path": "none", "dtype": "float32", "context": 64},
        "problems": {"train": ["none"], "max_prompt_tokens": 16},
        "templates": {"names": ["qwen-math"]},
        "sampling": {"group_size": 2, "max_tokens": 16},
        "staleness": {"target": 1, "max": STALENESS_MAX},
    }
)


class Probed:
    """A running agent and the probes' view of it."""

    def __init__(self, url: str, client: redis.Redis) -> None:
        LearnerLedger(client, "run", "eval", fence=LearnerLedger(client, "run").fence)
        self.client = client
        self.engine = ScriptedEngine()
        self.agent = Agent(
            CONFIG, "run", "a", self.engine, ScriptedGrader(), ScriptedTokenizer(), connect_async(url, 5.0)
        )
        self.http = TestClient(TestServer(create_app(lambda: self.agent.readiness, self.agent.metrics.registry)))

    async def ready(self) -> tuple[int, str]:
        answer = await self.http.get("/readyz")
        return answer.status, (await answer.text()).strip()

    async def until(self, wanted: tuple[int, str], deadline_s: float = 10.0) -> None:
        end = time.monotonic() + deadline_s
        while (said := await self.ready()) != wanted:
            assert time.monotonic() < end, f"{said} where {wanted} was to come"
            await asyncio.sleep(0.02)

    def offer(self, version: str) -> None:
        offer = SyncOffer(
            version=version, group="g", backend="gloo", store_host="127.0.0.1", store_port=1, world_size=2,
            timeout_s=2.0, bucket_bytes=4096, tensors=[], temperature=1.0, tolerance=1e-3, checks=[],
        )  # fmt: skip
        self.client.xadd(Keys("run").offers("a"), {"d": offer.encode()})


@pytest.fixture
async def probed(redis_url: str, client: redis.Redis) -> AsyncIterator[Probed]:
    probed = Probed(redis_url, client)
    async with probed.http:
        yield probed


async def test_a_generator_is_ready_only_with_fresh_weights_whose_weight_check_passed(probed: Probed) -> None:
    assert await probed.ready() == (503, "joining"), "its engine has not started"
    running = asyncio.create_task(probed.agent.run())
    await probed.until((503, "syncing"))
    probed.offer("1.0")
    await probed.until((200, "ready"))
    probed.engine.gap = 0.5
    probed.offer("1.1")
    await probed.until((503, "quarantined"))
    probed.engine.gap = 0.0
    probed.offer("1.2")
    await probed.until((200, "ready"))
    probed.agent.drain()
    assert await probed.ready() == (503, "draining")
    assert (await probed.http.get("/healthz")).status == 200, "draining is no reason to be killed"
    await asyncio.wait_for(running, 20)


async def test_weights_that_stay_behind_are_told_once_their_samples_would_be_dropped(probed: Probed) -> None:
    running = asyncio.create_task(probed.agent.run())
    probed.offer("1.0")
    await probed.until((200, "ready"))
    probed.engine.fail_receive = True
    probed.offer(f"1.{STALENESS_MAX}")
    async with asyncio.timeout(10):
        while probed.agent.sync.behind != STALENESS_MAX:
            await asyncio.sleep(0.02)
    assert await probed.ready() == (200, "ready"), "within the bound its samples are still trained"
    probed.offer(f"1.{STALENESS_MAX + 1}")
    await probed.until((503, "stale: 3 steps behind the learner, staleness.max is 2"))
    probed.engine.fail_receive = False
    probed.offer(f"1.{STALENESS_MAX + 1}")
    probed.offer(f"1.{STALENESS_MAX + 2}")
    await probed.until((200, "ready"))
    probed.agent.drain()
    await asyncio.wait_for(running, 20)


async def test_a_dead_engine_is_not_ready_until_the_next_one_has_weights(probed: Probed) -> None:
    running = asyncio.create_task(probed.agent.run())
    probed.offer("1.0")
    await probed.until((200, "ready"))
    probed.engine.die()
    await probed.until((503, "syncing"))
    probed.offer("1.1")
    await probed.until((200, "ready"))
    probed.agent.drain()
    await asyncio.wait_for(running, 20)


async def test_metrics_stand_beside_the_probes(probed: Probed) -> None:
    probed.agent.metrics.tokens.inc(5)
    answer = await probed.http.get("/metrics")
    families = {family.name: family for family in text_string_to_metric_families(await answer.text())}
    assert families["chorus_generator_tokens"].samples[0].value == 5
    assert answer.headers["Content-Type"].startswith("text/plain")


async def test_they_are_served_on_the_port_and_nowhere_where_it_is_zero() -> None:
    app = create_app(lambda: "ready", CollectorRegistry())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with served(app, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /readyz HTTP/1.0\r\n\r\n")
        assert b" 200 OK\r\n" in await asyncio.wait_for(reader.readline(), 5)
        writer.close()
    async with served(create_app(lambda: "ready", CollectorRegistry()), 0):
        with pytest.raises(OSError, match=r"refused|failed"):
            await asyncio.open_connection("127.0.0.1", port)


async def test_a_port_in_use_ends_in_one_line_that_names_it() -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotGoOn, match=rf"metrics_port {port}: .*in use.*choose another"):
            async with served(create_app(lambda: "ready", CollectorRegistry()), port):
                pass
