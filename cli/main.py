"""`chorus`: one command, a subcommand a role. Each imports only what its role needs."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable

import redis

from chorus.protocol.config.load import ConfigError
from chorus.protocol.runtime import logs
from chorus.protocol.runtime.exits import CANNOT_GO_ON, CannotGoOn

# name -> (module, function, what it does)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "run": (
        "chorus.cli.run",
        "main",
        "run a recipe on this machine: starts everything, shows progress, stops everything",
    ),
    "recipes": ("chorus.cli.recipes", "main", "list the recipes that come with Chorus"),
    "init": ("chorus.cli.init", "main", "write one of these recipes into a file of yours, with comments"),
    "learner": ("chorus.learner.main", "main", "the learner alone, or one rank of it under torchrun"),
    "generator": ("chorus.generator.main", "main", "one generator: an agent and its vLLM server"),
    "reward-server": ("chorus.reward_server.main", "main", "the verifier service"),
    "audit": ("chorus.cli.inspect.audit", "main", "balance the books of a run, from Redis or from its folder"),
    "status": ("chorus.cli.inspect.status", "main", "the books and the state of every member, from Redis"),
    "eval": (
        "chorus.cli.evaluate.eval",
        "main",
        "what a model can do on benchmarks: accuracy, pass@k, majority votes, intervals",
    ),
    "report": ("chorus.cli.report", "main", "compare runs: one HTML page and a Markdown file with tables and plots"),
    "regrade": (
        "chorus.cli.inspect.regrade",
        "main",
        "grade a run's stored rollouts with today's rules, and say what changed",
    ),
    "templates": ("chorus.cli.templates", "main", "list the templates, show a prompt, try a text against a contract"),
    "why": ("chorus.cli.inspect.why", "main", "who waits for whom, since when and until when, from Redis"),
    "trace": ("chorus.cli.inspect.trace", "main", "one group's life across the processes, with times"),
    "plan": ("chorus.cli.plan", "main", "simulate a run with fleets of generators: throughput, idle time, staleness"),
    "replay": ("chorus.cli.inspect.replay", "main", "train a recorded step again, offline, and compare the loss"),
    "check-data": ("chorus.cli.data.check_data", "main", "find problems that training shares with a test set"),
    "measure-difficulty": ("chorus.cli.evaluate.measure_difficulty", "main", "how often a model solves each problem"),
    "levels": ("chorus.cli.data.levels", "main", "difficulty levels from such measurements"),
    "starter": ("chorus.cli.starter", "main", "build the demo's starter policy"),
    "prepare": ("chorus.deploy.prepare", "main", "make a run's folder and fetch its model, for services in containers"),
}


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand; errors that a person can mend end in one line and status 3."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] not in COMMANDS:
        return _usage(arguments)
    module, function, _ = COMMANDS[arguments[0]]
    try:
        logs.set_up(arguments[0])
        entry: Callable[[list[str]], int] = getattr(importlib.import_module(module), function)
        return entry(arguments[1:])
    except (ConfigError, CannotGoOn) as error:
        logs.last_word(f"chorus {arguments[0]}: {error}")
        return CANNOT_GO_ON
    except redis.RedisError as error:
        logs.last_word(f"chorus {arguments[0]}: Redis failed: {error}; is the server running and in order?")
        return CANNOT_GO_ON


def _usage(arguments: list[str]) -> int:
    asked = not arguments or arguments[0] in ("-h", "--help", "help")
    out = sys.stdout if asked else sys.stderr
    if not asked:
        print(f"chorus: there is no command {arguments[0]!r}", file=out)
    print("usage: chorus COMMAND [options]      (chorus COMMAND --help tells more)\n", file=out)
    for name, (_, _, text) in COMMANDS.items():
        print(f"  {name:18} {text}", file=out)
    return os.EX_OK if asked else os.EX_USAGE


if __name__ == "__main__":
    sys.exit(main())
