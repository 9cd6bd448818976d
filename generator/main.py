"""`chorus generator`: one agent and its vLLM server, until SIGTERM drains it."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import secrets
import signal
from pathlib import Path

import redis
import redis.asyncio
from tokenizers import Tokenizer

from generator.agent import Agent
from generator.engine import EngineError, VllmEngine
from generator.groups import RewardServer
from protocol.config import RunConfig, load_config
from protocol.exits import CANNOT_GO_ON, CannotGoOn
from protocol.ledger import LedgerLostError
from protocol.metrics import GeneratorMetrics


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="chorus generator", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="recipe (.toml) or a run's config.json")
    parser.add_argument("--run-id", required=True, help="namespace of the run on Redis")
    parser.add_argument("--name", default="generator", help="prefix of this generator's id")
    parser.add_argument("--log", type=Path, default=Path("vllm.log"), help="where vLLM's own output goes")
    parser.add_argument("--cpus", default="", help="cores for vLLM, e.g. 0,1 (default: all)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    args = parser.parse_args(argv)
    config = load_config(args.config, args.overrides)
    return asyncio.run(_run(config, args))


async def _run(config: RunConfig, args: argparse.Namespace) -> int:
    client = redis.asyncio.Redis.from_url(
        config.redis.url, socket_connect_timeout=5, health_check_interval=15
    )
    try:
        await client.ping()
    except redis.RedisError as error:
        raise CannotGoOn(
            f"redis.url {config.redis.url}: {error}; is the server running and reachable?"
        ) from None
    port = config.generator.metrics_port
    agent = Agent(
        config,
        args.run_id,
        f"{args.name}-{secrets.token_hex(2)}",
        VllmEngine(config, args.log, {int(c) for c in args.cpus.split(",")} if args.cpus else None),
        RewardServer(config.reward.url, config.reward.deadline_s),
        load_tokenizer(config.model.path),
        client,
        GeneratorMetrics(port),
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, agent.drain)
    try:
        await agent.run()
    except (LedgerLostError, EngineError) as error:
        logging.getLogger("chorus.generator").error("%s", error)
        return CANNOT_GO_ON
    finally:
        await client.aclose()
    return os.EX_OK


def load_tokenizer(path: str) -> Tokenizer:
    """The model's own tokenizer.json; `transformers` is not asked, since it may force another class on it."""
    file = Path(path) / "tokenizer.json"
    if file.is_file():
        return Tokenizer.from_file(str(file))
    if Path(path).exists():
        raise CannotGoOn(
            f"model.path {path}: there is no tokenizer.json in it; save the model's fast tokenizer there"
        )
    try:
        return Tokenizer.from_pretrained(path)
    except Exception as error:  # hub clients raise what they like
        raise CannotGoOn(
            f"model.path {path}: no such folder, and the hub has no tokenizer of that name for us ({error})"
        ) from None
