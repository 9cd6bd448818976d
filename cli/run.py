"""Start everything on this machine, watch it learn, stop everything."""

from __future__ import annotations

import os
from pathlib import Path

import click

from chorus.protocol.config.load import load_config
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.identity import asked_of
from chorus.protocol.runtime.command_line import (
    PATH,
    command,
    lineage_option,
    option,
    overrides_option,
    take_over_option,
)
from chorus.protocol.runtime.exits import CannotGoOn


@command(
    "run",
    help=__doc__,
    examples=[
        "chorus run recipes/demo.toml",
        "chorus run recipes/demo.toml --set seed=3 --set learner.lr=1e-4",
        "chorus run recipes/demo.toml --dry-run --gpus 8 --tokens-per-second 20000",
        "chorus run --resume runs/demo-20261121-231924",
    ],
)
@click.argument("recipe", type=PATH, required=False, help="a recipe, e.g. recipes/demo.toml")
@overrides_option
@option("--resume", type=PATH, metavar="RUN", help="go on with the run in this folder")
@lineage_option
@take_over_option
@option("--dry-run", is_flag=True, help="print what would be done and needed")
@option("--view", is_flag=True, help="serve the run's page while it goes on, and print its address")
@option("--gpus", type=int, metavar="N", help="with --dry-run: as if this machine had N GPUs")
@option("--tokens-per-second", type=float, metavar="RATE", help="with --dry-run: how long it takes at this rate")
def main(
    recipe: Path | None,
    overrides: tuple[str, ...],
    resume: Path | None,
    new_lineage: bool,
    take_over: bool,
    dry_run: bool,
    view: bool,
    gpus: int | None,
    tokens_per_second: float | None,
) -> int:
    from chorus.deploy.dry_run import describe
    from chorus.deploy.launcher import run
    from chorus.deploy.placement import place, visible_cores, visible_gpus
    from chorus.deploy.preflight import check_inputs
    from chorus.deploy.wishes import as_wished

    if recipe is not None and resume is None:
        source = recipe
    elif resume is not None and recipe is None:
        source = RunFolder(resume).existing().config
    else:
        raise CannotGoOn("give a recipe, or --resume with the folder of a run")
    config = load_config(source, overrides)
    asked = asked_of(new_lineage, take_over)
    if resume is not None:
        config = as_wished(config, RunFolder(resume))
    elif asked:
        raise CannotGoOn(f"--{asked} says how a run goes on: give its folder with --resume")
    if dry_run:
        cards = visible_gpus() if gpus is None else list(range(gpus))
        print(describe(config, place(config, visible_cores(), cards), tokens_per_second))
        return os.EX_OK
    check_inputs(config, resumed=resume is not None)
    return run(config, str(source), resume=resume, asked=asked, view=view)
