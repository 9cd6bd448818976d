"""`chorus generator`: one agent and its vLLM server, until SIGTERM drains it."""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import signal
from pathlib import Path

import redis
from tokenizers import Tokenizer

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
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.redis import await_redis, connect_async, lost

_REWARD_SERVER_DEADLINE_S = 60.0  # at the start: it may be starting itself


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="chorus generator", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="recipe (.toml) or a run's config.json")
    parser.add_argument("--run-id", required=True, help="namespace of the run on Redis")
    parser.add_argument("--name", default="generator", help="prefix of this generator's id")
    parser.add_argument("--log", type=Path, default=Path("vllm.log"), help="where vLLM's own output goes")
    parser.add_argument("--cpus", type=_cores, help="cores for vLLM once it is up, e.g. 0,1 (default: all)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    args = parser.parse_args(argv)
    logs.tell(run=args.run_id)
    config = load_config(args.config, args.overrides)
    await_redis(config.redis.url)
    try:
        return asyncio.run(_run(config, args))
    except (LedgerLostError, EngineError) as error:
        raise CannotGoOn(str(error)) from None
    except redis.RedisError as error:
        raise lost(config.redis.url, error) from None


async def _run(config: RunConfig, args: argparse.Namespace) -> int:
    tokenizer = load_tokenizer(config.model.path)
    grader = RewardServer(config.reward.url, config.reward.deadline_s, config.objective.needs_clusters)
    await grader.wait_ready(_REWARD_SERVER_DEADLINE_S)
    client = connect_async(config.redis.url)
    generator_id = f"{args.name}-{secrets.token_hex(2)}"
    logs.tell(process=generator_id)
    agent = Agent(
        config,
        args.run_id,
        generator_id,
        VllmEngine(config, args.log, args.cpus),
        grader,
        tokenizer,
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


def _cores(text: str) -> set[int]:
    cores, here = {int(core) for core in text.split(",")}, os.sched_getaffinity(0)
    if cores - here:
        raise argparse.ArgumentTypeError(f"no core {min(cores - here)} here; there are {sorted(here)}")
    return cores


def load_tokenizer(path: str) -> Tokenizer:
    """The model's own tokenizer.json; `transformers` is not asked, since it may force another class on it."""
    file = Path(path) / "tokenizer.json"
    if file.is_file():
        try:
            return Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises nothing more special
            raise CannotGoOn(f"model.path {path}: its tokenizer.json can't be read ({error}); save it anew") from None
    if Path(path).exists():
        raise CannotGoOn(f"model.path {path}: there is no tokenizer.json in it; save the model's fast tokenizer there")
    try:
        return Tokenizer.from_pretrained(path)
    except Exception as error:  # hub clients raise what they like
        raise CannotGoOn(
            f"model.path {path}: no such folder, and the hub has no tokenizer of that name for us ({error})"
        ) from None
