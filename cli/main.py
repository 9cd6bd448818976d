"""`chorus`: one command, a subcommand a role. Each is imported when it is called, and imports what its role needs."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

import click

from chorus.protocol.runtime import logs
from chorus.protocol.runtime.command_line import Group, call
from chorus.protocol.runtime.exits import CANNOT_GO_ON, CannotGoOn
from chorus.protocol.runtime.pipes import readers_may_leave

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# section -> name -> (module, whose `main` it is; what it does)
SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Train": {
        "run": ("chorus.cli.run", "run a recipe on this machine: starts everything, shows progress, stops everything"),
        "finetune": ("chorus.cli.finetune", "fine-tune a model on critiques, with a run's folder, progress and curves"),
        "slurm": ("chorus.cli.slurm", "run a recipe as jobs of Slurm, and resize it while it trains"),
        "recipes": ("chorus.cli.recipes", "list the recipes that come with Chorus"),
        "check": ("chorus.cli.check", "what this machine has of what a run needs; then five steps of the demo on it"),
        "init": ("chorus.cli.init", "write one of these recipes into a file of yours, with comments"),
        "doctor": (
            "chorus.cli.data.doctor",
            "what would keep a run from learning, by its first steps",
        ),
        "plan": ("chorus.cli.plan", "simulate a run with fleets of generators: throughput, idle time, staleness"),
        "templates": ("chorus.cli.templates", "list the templates, show a prompt, try a text against a contract"),
        "starter": ("chorus.cli.starter", "build the demo's starter policy"),
    },
    "Look at runs": {
        "runs": ("chorus.cli.inspect.runs", "list the runs in a folder, and how far each of them is"),
        "view": ("chorus.cli.view", "look at runs in a browser: curves, every answer, every token"),
        "rollouts": ("chorus.cli.inspect.rollouts", "a run's answers in the terminal: filters, or SQL"),
        "status": ("chorus.cli.inspect.status", "the accounts of a run, and the state of every member"),
        "why": ("chorus.cli.inspect.why", "who waits for whom, since when and until when"),
        "audit": ("chorus.cli.inspect.audit", "balance the accounts of a run"),
        "trace": ("chorus.cli.inspect.trace", "one group's life across the processes, with times"),
        "replay": ("chorus.cli.inspect.replay", "train a recorded step again, offline, and compare the loss"),
        "regrade": (
            "chorus.cli.inspect.regrade",
            "grade a run's stored rollouts with today's rules, and say what changed",
        ),
        "report": ("chorus.cli.report", "compare runs: one HTML page and a Markdown file with tables and plots"),
    },
    "Measure models and data": {
        "push": ("chorus.cli.data.push", "upload a checkpoint to the Hugging Face hub, with a card made of the run"),
        "eval": (
            "chorus.cli.evaluate.eval",
            "what a model can do on benchmarks: accuracy, pass@k, majority votes, intervals",
        ),
        "analyse": (
            "chorus.cli.evaluate.analyse",
            "two models on the same problems: is the trained one sharper, or does it solve more?",
        ),
        "measure-difficulty": ("chorus.cli.evaluate.measure_difficulty", "how often a model solves each problem"),
        "levels": ("chorus.cli.data.levels", "difficulty levels from such measurements"),
        "fetch": ("chorus.cli.data.fetch", "public problems and benchmarks, from where they are published to files"),
        "data": (
            "chorus.cli.data.source",
            "what would be trained on: rows, unusable ones by reason, lengths, examples",
        ),
        "critique": ("chorus.cli.data.critique", "make critiques of a problem's candidate solutions, to fine-tune on"),
        "check-data": ("chorus.cli.data.check_data", "find problems that training shares with a test set"),
    },
    "Services, each by itself": {
        "learner": ("chorus.learner.main", "the learner alone, or one rank of it under torchrun"),
        "generator": ("chorus.generator.main", "one generator: an agent and its vLLM engine"),
        "reward-server": ("chorus.reward_server.main", "the verifier service"),
        "prepare": ("chorus.deploy.prepare", "make a run's folder and fetch its model, for services in containers"),
    },
    "This command": {"completion": ("chorus.cli.completion", "what makes a shell complete commands and options")},
}
# What goes on when nobody reads its output; the others list something, and end.
_WORK = {"run", "finetune", "check", "doctor", "starter", "fetch", "critique", "eval", "measure-difficulty", "view"}
_WORK |= SECTIONS["Services, each by itself"].keys()
COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


class _Chorus(Group):
    """Knows the names and what they do from the table; nothing is imported to list or to complete them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return importlib.import_module(COMMANDS[cmd_name][0]).main if cmd_name in COMMANDS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not ctx.resilient_parsing:
            raise click.NoSuchCommand(args[0], f"there is no command {args[0]!r}.", COMMANDS, ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, text) in commands.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem as Item

        named = [(name, text) for name, (_, text) in COMMANDS.items() if name.startswith(incomplete)]
        found = [Item(name, help=text) for name, text in named]
        return found + click.Command.shell_complete(self, ctx, incomplete)


def _version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        click.echo(f"chorus {version('chorus-rl')}")
        ctx.exit()


@click.group(
    "chorus",
    cls=_Chorus,
    invoke_without_command=True,
    help="Train a reasoning model with reinforcement learning, and look at it while it learns.",
    epilog="chorus COMMAND --help tells more.",
    examples=["chorus run recipes/demo.toml", "chorus runs", "chorus status runs/demo-20261121-231924"],
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Say which it is.")
@click.pass_context
def app(ctx: click.Context) -> None:
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand; errors that a person can mend end in one line and status 3."""
    if asked := os.environ.get("_CHORUS_COMPLETE"):
        from click.shell_completion import shell_complete

        return shell_complete(app, {}, "chorus", "_CHORUS_COMPLETE", asked)
    arguments = sys.argv[1:] if argv is None else argv
    name = arguments[0] if arguments else ""
    with readers_may_leave(goes_on=name in _WORK, name=f"chorus {name}"):
        return _call(name, arguments)


def _call(name: str, arguments: list[str]) -> int:
    try:
        if name in COMMANDS:
            logs.set_up(name)
        return call(app, "chorus", ["--help"] if name == "help" else arguments)
    except CannotGoOn as error:
        logs.last_word(f"chorus {name}: {error}")
        return CANNOT_GO_ON
    except Exception as error:
        redis = sys.modules.get("redis")  # who has not imported it can't have lost it
        if redis is None or not isinstance(error, redis.RedisError):
            raise
        logs.last_word(f"chorus {name}: Redis failed: {error}; is the server running and in order?")
        return CANNOT_GO_ON


if __name__ == "__main__":
    sys.exit(main())
