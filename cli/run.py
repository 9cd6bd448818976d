"""Start everything on this machine, watch it learn, stop everything."""

from __future__ import annotations

import math
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
        "chorus run recipes/qwen2.5-math-1.5b.toml --dry-run --gpus 8 --gpu-gib 80 --mean-tokens 800",
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
@option("--gpu-gib", type=float, metavar="G", help="with --dry-run: and each of them G GiB of memory")
@option("--mean-tokens", type=float, metavar="N", help="with --dry-run: completions have so many tokens on average")
@option("--tokens-per-second", type=float, metavar="RATE", help="with --dry-run: how long it takes at this rate")
@option("--learner-rate", type=float, metavar="RATE", help="with --dry-run: tokens/s that one learner GPU trains")
@option("--generator-rate", type=float, metavar="RATE", help="with --dry-run: tokens/s that one generator samples")
def main(
    recipe: Path | None,
    overrides: tuple[str, ...],
    resume: Path | None,
    new_lineage: bool,
    take_over: bool,
    dry_run: bool,
    view: bool,
    gpus: int | None,
    gpu_gib: float | None,
    mean_tokens: float | None,
    tokens_per_second: float | None,
    learner_rate: float | None,
    generator_rate: float | None,
) -> int:
    from chorus.deploy.dry_run import describe
    from chorus.deploy.hours import Speed
    from chorus.deploy.launcher import run
    from chorus.deploy.placement import card_gib, place, visible_cores, visible_gpus
    from chorus.deploy.preflight import check_inputs
    from chorus.deploy.wishes import as_wished

    if recipe is not None and resume is None:
        source = recipe
    elif resume is not None and recipe is None:
        source = RunFolder(resume).existing().config
    else:
        raise CannotGoOn("give a recipe, or --resume with the folder of a run")
    config = load_config(source, overrides)
    if config.finetune.data:
        again = f"--resume {resume}" if resume is not None else source
        raise CannotGoOn(f"{source}: finetune.data is for fine-tuning, not for a run: chorus finetune {again}")
    asked = asked_of(new_lineage, take_over)
    if resume is not None:
        config = as_wished(config, RunFolder(resume))
    elif asked:
        raise CannotGoOn(f"--{asked} says how a run goes on: give its folder with --resume")
    if dry_run:
        cards = visible_gpus() if gpus is None else list(range(gpus))
        _check_positive(
            {
                "--gpu-gib": gpu_gib,
                "--mean-tokens": mean_tokens,
                "--tokens-per-second": tokens_per_second,
                "--learner-rate": learner_rate,
                "--generator-rate": generator_rate,
            }
        )
        if mean_tokens and mean_tokens > config.sampling.max_tokens:
            raise CannotGoOn(
                f"--mean-tokens {mean_tokens:g}: no completion is longer than sampling.max_tokens = "
                f"{config.sampling.max_tokens}; give at most that"
            )
        speed = Speed(mean_tokens, tokens_per_second, learner_rate, generator_rate)
        print(describe(config, place(config, visible_cores(), cards), speed, gpu_gib or card_gib()))
        return os.EX_OK
    check_inputs(config, resumed=resume is not None)
    return run(config, str(source), resume=resume, asked=asked, view=view)


def _check_positive(options: dict[str, float | None]) -> None:
    for name, value in options.items():
        if value is not None and not 0 < value < math.inf:
            raise CannotGoOn(f"{name} {value:g}: give a number above 0")
