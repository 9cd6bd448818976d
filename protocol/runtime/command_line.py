"""How this project's commands read their arguments: click, and what it lacks.

A command is called with its arguments and returns its exit status. Arguments that can't be read end it with one line
and status 2. What its work needs, torch above all, it imports when it works, so that `--help` and completion are quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from chorus.protocol.runtime import logs

USAGE = 2  # exit status
PATH = click.Path(path_type=Path)


class Option(click.Option):
    """An option that `several` values may follow (`--files A B C`), and that help lists in its `section`."""

    def __init__(self, *arguments: Any, several: bool = False, section: str = "Options", **attributes: Any) -> None:
        super().__init__(*arguments, **{"multiple": several, "show_default": True} | attributes)
        self.several, self.section = several, section


class Command(click.Command):
    """A command that is called with its arguments, and returns its exit status."""

    def __init__(self, *arguments: Any, examples: Sequence[str] = (), **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.examples = examples

    def __call__(self, argv: Sequence[str] | None = None) -> int:
        return call(self, f"chorus {self.name}", argv)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_repeated(self.params, args)))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click's, by section."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)) is not None:
                sections.setdefault(getattr(param, "section", "Options"), []).append(record)
        for named, records in sorted(sections.items(), key=lambda s: s[0] == "Options"):
            with formatter.section(named):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                formatter.write("".join(f"  {example}\n" for example in self.examples))


class Group(Command, click.Group):
    """Commands below a command."""

    command_class = Command

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


command = partial(click.command, cls=Command)
option = partial(click.option, cls=Option)
config_option = option("--config", type=PATH, required=True, help="recipe (.toml) or a run's config.json")
overrides_option = option(
    *("--set", "overrides"), multiple=True, metavar="KEY=VALUE", help="another value for a key of the recipe"
)
lineage_option = option(
    "--new-lineage",
    is_flag=True,
    help="the ledger is lost: begin another one at the newest checkpoint, with new indices",
)
take_over_option = option(
    "--take-over", is_flag=True, help="this folder is a copy: let it be the run from now on, in the original's place"
)
run_id_option = option("--run-id", required=True, metavar="NAME", help="namespace of the run on Redis")


def call(command: click.Command, name: str, argv: Sequence[str] | None = None) -> int:
    """Read the arguments and carry the command out.

    click's own `main` would also make a quiet exit of a lost connection and of a file that ends too soon.
    """
    try:
        with command.make_context(name, list(sys.argv[1:] if argv is None else argv)) as ctx:
            return command.invoke(ctx) or os.EX_OK
    except click.exceptions.Exit as done:  # --help, --version
        return done.exit_code
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else name
        what = " ".join(error.format_message().split()).rstrip(".")
        logs.last_word(f"{where}: {what} ({where} --help lists what there is)")
        return os.EX_USAGE if isinstance(error, click.NoSuchCommand) and where == "chorus" else USAGE


def _repeated(params: Sequence[click.Parameter], arguments: list[str]) -> Iterator[str]:
    """`--files A B` as `--files A --files B`, which is what click reads."""
    names = {name for param in params if isinstance(param, Option) and param.several for name in param.opts}
    open_option = ""
    for n, argument in enumerate(arguments):
        if argument == "--":
            yield from arguments[n:]
            return
        if argument.startswith("-") and argument != "-":
            open_option = argument if argument in names else ""
            has_value = arguments[n + 1 : n + 2] and not arguments[n + 1].startswith("-")
            if open_option and not has_value:
                raise click.UsageError(f"{argument} needs at least one value", click.get_current_context(silent=True))
            if not open_option:
                yield argument
        else:
            yield from (open_option, argument) if open_option else (argument,)
