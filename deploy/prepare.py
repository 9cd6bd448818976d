"""What must be there before a run's services start, each of them in a container of its own.

    recipe ──▶ the model in a folder ──▶ <run>/run.json ──▶ <run>/config.json, which every service reads

`chorus run` does the like for itself. A run that is prepared already goes on: its config.json is read in the recipe's
place, as `chorus run --resume` does, and the environment and `--set` still override it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from chorus.deploy.first_contact import first_contact
from chorus.deploy.preflight import check_inputs
from chorus.protocol.config.load import load_config
from chorus.protocol.config.run import RunConfig
from chorus.protocol.run_folder.files import write_json
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.command_line import PATH, command, option, overrides_option
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.starter.resolve import BUILT, resolve


@command(
    "prepare",
    help=__doc__.splitlines()[0] if __doc__ else None,
    examples=["chorus prepare recipes/demo.toml --run-dir /runs/demo --models /models"],
)
@click.argument("recipe", type=PATH)
@option("--run-dir", type=PATH, required=True, metavar="FOLDER", help="the run's folder; made if it is not there")
@option("--models", type=PATH, required=True, metavar="FOLDER", help="where models are built or fetched to, once")
@overrides_option
def main(recipe: Path, run_dir: Path, models: Path, overrides: tuple[str, ...]) -> int:
    prepared = RunFolder(run_dir).config
    again = prepared.is_file()
    config = load_config(prepared if again else recipe, overrides)
    check_inputs(config, resumed=again)
    prepare(config, recipe, run_dir, models)
    what = "goes on: its config.json counts, not the recipe" if again else "is ready"
    print(f"chorus prepare: {run_dir} {what}")
    return os.EX_OK


def prepare(config: RunConfig, recipe: Path, run_dir: Path, models: Path) -> None:
    """Fetch the model, then write the run's folder. Raises CannotGoOn."""
    section = config.model.model_copy(update={"path": resolve(config, models)})
    if config.model.path in BUILT:
        first_contact(config.model_copy(update={"model": section}))
    name = config.run.model_copy(update={"name": config.run.name or recipe.stem})
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        run = RunFolder(run_dir)
        if not run.note.exists():
            # None of the services is `chorus run`'s own, should the run be resumed with it.
            note = {"recipe": str(recipe), "started_at": time.time(), "own_redis": False, "own_reward_server": False}
            write_json(run.note, note)
        resolved = config.model_copy(update={"model": section, "run": name})
        write_json(run.config, resolved.model_dump(mode="json"))
    except OSError as error:
        raise CannotGoOn(f"--run-dir {run_dir}: {error.strerror}; give a folder that can be written") from None
