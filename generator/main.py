"""One agent and its vLLM engine, until SIGTERM drains it."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from pathlib import Path

import click
import redis

from chorus.generator.agent import Agent
from chorus.generator.engine import EngineError
from chorus.generator.probes import create_app, served
from chorus.generator.reward_client import RewardServer
from chorus.generator.vllm_engine import VllmEngine
from chorus.protocol.config.load import load_config
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import LedgerLostError
from chorus.protocol.metrics.processes import GeneratorMetrics
from chorus.protocol.runtime import logs
from chorus.protocol.runtime.command_line import PATH, command, config_option, option, overrides_option, run_id_option
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.model_folder import load_tokenizer
from chorus.protocol.runtime.redis import RENDEZVOUS, await_redis, connect_async, lost
from chorus.protocol.templates.decoding import CompletionDecoder

_REWARD_SERVER_DEADLINE_S = 60.0  # at the start: it may be starting itself


def _cores(text: str) -> set[int]:
    try:
        cores, here = {int(core) for core in text.split(",")}, os.sched_getaffinity(0)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no list of cores; give one such as 0,1") from None
    if cores - here:
        raise click.BadParameter(f"no core {min(cores - here)} here; there are {sorted(here)}: give some of these")
    return cores


@command(
    "generator",
    help=__doc__,
    examples=["chorus generator --config recipes/demo.toml --run-id by-hand --name gen-0 --cpus 0"],
)
@config_option
@run_id_option
@option("--name", default="generator", help="prefix of this generator's id")
@option("--log", type=PATH, default="vllm.log", metavar="FILE", help="where vLLM's own output goes")
@option("--cpus", type=_cores, metavar="0,1", help="cores for vLLM once it is up (default: all)")
@overrides_option
def main(config: Path, run_id: str, name: str, log: Path, cpus: set[int] | None, overrides: tuple[str, ...]) -> int:
    logs.tell(run=run_id)
    settings = load_config(config, overrides)
    await_redis(settings.redis.url)
    try:
        return asyncio.run(_run(settings, run_id, name, log, cpus))
    except (LedgerLostError, EngineError) as error:
        raise CannotGoOn(str(error)) from None
    except redis.RedisError as error:
        raise lost(settings.redis.url, error) from None


async def _run(config: RunConfig, run_id: str, name: str, log: Path, cpus: set[int] | None) -> int:
    decoder = CompletionDecoder(load_tokenizer(config.model.path), config.choose_templates().values())
    terms = [term.grader for term in config.reward.terms]
    clusters = config.objective.needs_clusters
    grader = RewardServer(config.reward.url, config.reward.deadline_s, clusters, terms, config.reward.mode)
    await grader.wait_ready(_REWARD_SERVER_DEADLINE_S)
    os.environ[RENDEZVOUS] = f"{run_id} {config.redis.url}"  # for vLLM's workers, which meet the learner there
    client = connect_async(config.redis.url)
    generator_id = f"{name}-{secrets.token_hex(2)}"
    logs.tell(process=generator_id)
    agent = Agent(
        config,
        run_id,
        generator_id,
        VllmEngine(config, log, cpus),
        grader,
        decoder,
        client,
        GeneratorMetrics(),
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, agent.drain)
    app = create_app(lambda: agent.readiness, agent.metrics.registry)
    try:
        async with served(app, config.generator.metrics_port):
            await agent.run()
    finally:
        await client.aclose()
        await grader.close()
    return os.EX_OK
