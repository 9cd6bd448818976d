"""Public data sets as files of problems: the training problems and the benchmarks of a recipe.

Downloads from pinned places, the next mirror where one fails, and goes on where an earlier try stopped. What is there
is not fetched again. `--from` asks a folder or another address in place of all of them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from chorus.problems.fetch.catalogue import Catalogue, load_catalogue
from chorus.problems.fetch.fetch import Fetch, address_of
from chorus.protocol.runtime.command_line import PATH, command, option


@command(
    "fetch",
    help=__doc__,
    examples=[
        "chorus fetch math",
        "chorus fetch math --only eval_aime24,eval_math500 --to data/math",
        "chorus fetch math --list                  # what to bring to a machine without network",
        "chorus fetch math --from FOLDER_OR_URL",
    ],
)
@click.argument("name", help="math, or a catalogue of your own (.toml)")
@option("--to", type=PATH, metavar="FOLDER", help="where the files go (default: data/NAME)", show_default=False)
@option(
    "--from", "instead", metavar="PLACE", help="a folder or a URL that has the published files, as --list names them"
)
@option("--only", metavar="A,B", help="these sets, and what they are made of")
@option("--list", "listed", is_flag=True, help="print the files and their addresses, and fetch nothing")
def main(name: str, to: Path | None, instead: str | None, only: str | None, listed: bool) -> int:
    catalogue = load_catalogue(name)
    if listed:
        print("\n".join(_addresses(catalogue)))
        return os.EX_OK
    folder = to or Path("data") / Path(name).stem
    Fetch(catalogue, folder, instead or "", _say).run(only.split(",") if only else [])
    print(folder / "README.md")
    return os.EX_OK


def _addresses(catalogue: Catalogue) -> list[str]:
    """A line a mirror: the name that --from looks for, sha256 where it is known, and the address."""
    return [
        f"{each.name}{mirror.ending}  {mirror.sha256 or '-':64}  {address_of(each, mirror)}"
        for each in catalogue.set
        for mirror in each.mirror
    ]


def _say(text: str) -> None:
    print(f"chorus fetch: {text}", file=sys.stderr, flush=True)
