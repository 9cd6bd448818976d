"""`chorus completion`: print what makes a shell complete commands, options and files."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from chorus.protocol.runtime.command_line import command
from chorus.protocol.runtime.exits import CannotGoOn

SHELLS = ("bash", "zsh", "fish")


@command(
    "completion",
    help=__doc__,
    examples=['eval "$(chorus completion bash)"     # in ~/.bashrc', "chorus completion fish | source"],
)
@click.argument("shell", type=click.Choice(SHELLS), required=False, help="default: the one that $SHELL names")
def main(shell: str | None) -> int:
    shell = shell or Path(os.environ.get("SHELL", "")).name
    kind = get_completion_class(shell)
    if kind is None:
        raise CannotGoOn(f"$SHELL names {shell or 'no shell'}; give one of {', '.join(SHELLS)}")
    click.echo(kind(click.Command("chorus"), {}, "chorus", "_CHORUS_COMPLETE").source())
    return os.EX_OK
