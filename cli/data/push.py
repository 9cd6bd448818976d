"""Upload a run's checkpoint to the Hugging Face hub, with a model card made of the run.

The repository is private, unless --public is given. --dry-run writes the same folder into the run's, and uploads
nothing. The hub's own login counts: HF_TOKEN, or `hf auth login`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

import click

from chorus.cli.data.model_card import Card, card, published
from chorus.cli.evaluate.model import Model, find_model
from chorus.deploy.curves import draw_learning_curves
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.command_line import PATH, command, option
from chorus.protocol.runtime.exits import CannotGoOn, first_line

_REPO = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


@command(
    "push",
    help=__doc__,
    examples=[
        "chorus push runs/demo-20261121-231924 me/demo --dry-run",
        "chorus push runs/demo-20261121-231924 me/demo --checkpoint selected",
    ],
)
@click.argument("run", type=PATH, help="a run's folder")
@click.argument("repo", help="NAME, or OWNER/NAME, on the hub")
@option("--checkpoint", default="last", help="last, selected (on validation), or a step")
@option("--dry-run", is_flag=True, help="write the folder, and upload nothing")
@option("--public", is_flag=True, help="for all to see; without it the repository is private")
def main(run: Path, repo: str, checkpoint: str, dry_run: bool, public: bool) -> int:
    if not _REPO.fullmatch(repo):
        raise CannotGoOn(f"REPO {repo}: give NAME or OWNER/NAME, of letters, digits and . _ -")
    folder = RunFolder(run).existing()
    model = find_model(str(run), checkpoint, "")
    if not model.step:
        raise CannotGoOn(f"--checkpoint {checkpoint}: a run's first model is not of its making; give a later step")
    target = write_folder(folder, model, repo)
    if dry_run:
        print(f"{target}: this would be uploaded to {repo}, {'for all to see' if public else 'private'}")
    else:
        print(f"uploaded to {_upload(target, repo, public)}")
    return os.EX_OK


def write_folder(run: RunFolder, model: Model, repo: str) -> Path:
    """What the hub gets: the checkpoint's export, the card, and the curves. Raises CannotGoOn."""
    assert model.config
    target = run.hub / repo.replace("/", "--")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in sorted(Path(model.path).iterdir()):
        if file.suffix == ".json" and (settings := _settings(file)) is not None:
            (target / file.name).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        elif file.is_file():
            _link(file, target / file.name)
    if model.config.templates.chat.endswith(".jinja"):
        shutil.copy(model.config.templates.chat, target / "chat_template.jinja")
    with suppress(ImportError):  # matplotlib is an extra: the card's table of steps is there without it
        _link(run.curves if run.curves.exists() else draw_learning_curves(run), target / run.curves.name)
    made = Card(run, model.config, model.step or 0, repo, (target / run.curves.name).exists())
    (target / "README.md").write_text(card(made), encoding="utf-8")
    return target


def _settings(file: Path) -> dict[str, object] | None:
    """A file of settings without the places of this machine in it; None for one that is copied as it is."""
    if file.stat().st_size > 2**20:  # a tokenizer's vocabulary
        return None
    value = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        return None
    named = {"_name_or_path", "name_or_path"}
    return {key: published(part) if key in named else part for key, part in value.items()}


def _link(file: Path, target: Path) -> None:
    """The same file once more: weights are large."""
    try:
        os.link(file.resolve(), target)
    except OSError:  # another file system
        shutil.copy(file, target)


def _upload(folder: Path, repo: str, public: bool) -> str:
    """The repository's address. Raises CannotGoOn."""
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        address = api.create_repo(repo, private=not public, exist_ok=True)
        if not public and not api.repo_info(repo_id=address.repo_id).private:
            raise CannotGoOn(f"REPO {repo}: it is there already, and public: give --public, or another name")
        api.upload_folder(repo_id=address.repo_id, folder_path=folder, commit_message="Trained with Chorus")
    except CannotGoOn:
        raise
    except Exception as error:  # hub clients raise what they like
        why = first_line(error)
        raise CannotGoOn(f"REPO {repo}: the hub does not take it ({why}); log in, or set HF_TOKEN") from None
    return str(address)
