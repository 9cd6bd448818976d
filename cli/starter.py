"""Build the policy that a recipe starts from, or say where it lies."""

from __future__ import annotations

import os
from pathlib import Path

import click

from chorus.protocol.config.load import load_config
from chorus.protocol.runtime.command_line import PATH, command, option, overrides_option


@command("starter", help=__doc__, examples=["chorus starter recipes/demo.toml"])
@click.argument("recipe", type=PATH)
@option("--cache", type=PATH, default="runs/.cache", metavar="FOLDER", help="where it is kept")
@overrides_option
def main(recipe: Path, cache: Path, overrides: tuple[str, ...]) -> int:
    config = load_config(recipe, overrides)
    if config.model.path == "smollm2":
        from chorus.starter.smollm2 import build_smollm2

        print(build_smollm2(cache))
    else:
        from chorus.starter.build import build_starter
        from chorus.starter.courses import CHAINS, COURSES

        extra = [Path(f) for f in config.templates.files]
        names = config.model.starter_templates or config.templates.names
        course = COURSES.get(config.model.path, CHAINS)
        print(build_starter(cache, names, 0, extra_templates=extra, course=course))
    return os.EX_OK
