"""List the recipes that come with Chorus. `chorus init NAME my.toml` writes one of them into a file of yours."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console
from rich.table import Table

import chorus
from chorus.protocol.runtime.command_line import command
from chorus.protocol.runtime.exits import CannotGoOn

FOLDER = Path(chorus.__file__).parent / "recipes"


@command("recipes", help=__doc__)
def main() -> int:
    table = Table()
    table.add_column("recipe", no_wrap=True)
    table.add_column("what it is")
    for name, path in carried().items():
        table.add_row(name, about(path.read_text(encoding="utf-8")))
    Console(markup=False).print(table)
    print("chorus init NAME my.toml writes one to start from")
    return os.EX_OK


def carried() -> dict[str, Path]:
    """Name to file, in the order of the names."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def recipe_named(name: str) -> Path:
    """The file of a recipe that Chorus carries. Raises CannotGoOn."""
    known = carried()
    if name.removesuffix(".toml") not in known:
        raise CannotGoOn(
            f"there is no recipe {name}; those that come with Chorus: {', '.join(known)}: give one of these"
        )
    return known[name.removesuffix(".toml")]


def about(text: str) -> str:
    """The first sentence of the comment at a recipe's head."""
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    sentence, stop, _ = " ".join(lines).partition(". ")
    return sentence + stop.rstrip()
