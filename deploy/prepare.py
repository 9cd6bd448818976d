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

from chorus.deploy.preflight import check_inputs
from chorus.protocol.config.load import load_config
from chorus.protocol.config.run import RunConfig
from chorus.protocol.run_folder.files import write_json
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.command_line import PATH, command, option, overrides_option
from chorus.protocol.runtime.exits import CannotGoOn, first_line

# Weights as safetensors, and whatever text goes with them; never pickles.
_HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.jinja", "*.model"]


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
    check_inputs(config)
    prepare(config, recipe, run_dir, models)
    what = "goes on: its config.json counts, not the recipe" if again else "is ready"
    print(f"chorus prepare: {run_dir} {what}")
    return os.EX_OK


def prepare(config: RunConfig, recipe: Path, run_dir: Path, models: Path) -> None:
    """Fetch the model, then write the run's folder. Raises CannotGoOn."""
    section = config.model.model_copy(update={"path": fetch_model(config, models)})
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


def fetch_model(config: RunConfig, models: Path) -> str:
    """The model's folder: built below `models`, fetched from the hub to there, or as it is. Raises CannotGoOn."""
    path = config.model.path
    if path == "smollm2":
        from chorus.starter.smollm2 import build_smollm2

        try:
            return str(build_smollm2(models))
        except ValueError as error:
            raise CannotGoOn(f"model.path {path}: {error}") from None
    if path == "starter":
        from chorus.starter.build import build_starter

        names = config.model.starter_templates or config.templates.names
        return str(build_starter(models, names, extra_templates=[Path(file) for file in config.templates.files]))
    if Path(path).is_dir():
        return path
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(path, cache_dir=models / "hub", allow_patterns=_HUB_FILES)
    except Exception as error:  # hub clients raise what they like
        raise CannotGoOn(
            f"model.path {path}: the hub does not give it to us ({first_line(error)}); is HF_TOKEN needed?"
        ) from None
