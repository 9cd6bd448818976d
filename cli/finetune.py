"""Fine-tune on critiques: as `chorus run` does, with the examples of [finetune] in the rollouts' place.

The run's folder, its progress, checkpoints, evaluations and curves are a run's; generators answer its evaluations.
"""

from __future__ import annotations

from pathlib import Path

import click

from chorus.protocol.config.load import load_config
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.command_line import PATH, command, option, overrides_option
from chorus.protocol.runtime.exits import CannotGoOn


@command(
    "finetune",
    help=__doc__,
    examples=[
        "chorus finetune recipes/demo_critique.toml",
        "chorus finetune recipes/critique.toml --set 'finetune.data=[\"critiques.jsonl\"]'",
        "chorus finetune --resume runs/demo_critique-20261121-231924",
    ],
)
@click.argument("recipe", type=PATH, required=False, help="a recipe with [finetune], e.g. recipes/demo_critique.toml")
@overrides_option
@option("--resume", type=PATH, metavar="RUN", help="go on with the run in this folder")
def main(recipe: Path | None, overrides: tuple[str, ...], resume: Path | None) -> int:
    from chorus.deploy.launcher import run
    from chorus.deploy.preflight import check_inputs
    from chorus.deploy.wishes import as_wished

    if (recipe is None) == (resume is None):
        raise CannotGoOn("give a recipe, or --resume with the folder of a run")
    source = RunFolder(resume).existing().config if resume is not None else recipe
    assert source
    config = load_config(source, overrides)
    if not config.finetune.data:
        raise CannotGoOn(
            f"{source}: finetune.data names no critiques: give it files of `chorus critique`, or train with rollouts: "
            f"chorus run {source}"
        )
    if resume is not None:
        config = as_wished(config, RunFolder(resume))
    check_inputs(config, resumed=resume is not None)
    return run(config, str(source), resume=resume)
