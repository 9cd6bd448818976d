"""Build the policy that a recipe starts from, or say where it lies."""

from __future__ import annotations

import os
from pathlib import Path

import click

from chorus.protocol.config.load import load_config
from chorus.protocol.runtime.command_line import PATH, command, option, overrides_option
from chorus.starter.resolve import build_for


@command("starter", help=__doc__, examples=["chorus starter recipes/demo.toml"])
@click.argument("recipe", type=PATH)
@option("--cache", type=PATH, default="runs/.cache", metavar="FOLDER", help="where it is kept")
@overrides_option
def main(recipe: Path, cache: Path, overrides: tuple[str, ...]) -> int:
    config = load_config(recipe, overrides)
    print(build_for(config, cache))
    return os.EX_OK
