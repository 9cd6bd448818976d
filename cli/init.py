"""Write a recipe to start from into a file of yours, with a comment at every key.

A file that is there already is never overwritten.
"""

from __future__ import annotations

import os
import re
import textwrap
from pathlib import Path
from typing import get_args

import click
from pydantic import BaseModel

from chorus.cli.recipes import recipe_named
from chorus.problems.fetch.catalogue import fetched_by
from chorus.protocol.config.load import load_config
from chorus.protocol.config.run import RunConfig
from chorus.protocol.runtime.command_line import command
from chorus.protocol.runtime.exits import CannotGoOn

DEFAULT = "demo"
_WIDTH = 120
_SECTION = re.compile(r"\[\[?([\w.]+)\]?\]")
_KEY = re.compile(r"(\w+) = ")
_HEAD = """\
# {file}, from Chorus' recipe {recipe}.
#
# Look at what it implies, then run it:
#
#     chorus run {file} --dry-run
#     chorus run {file}
#
# Any key for one run only: chorus run {file} --set learner.lr=2e-6
# A key that is left out has its default; all of them stand in docs/recipes.md.
# Paths are relative to the folder in which the command is started.
#
# For a model and problems of your own:
#     model.path      a Hugging Face folder, or a hub name
#     problems.train  files of JSON lines, each at least {{"problem": "What is 3 + 4?", "answer": "7"}}
#     templates.names how problems are asked; `chorus templates` lists them
#
"""


@command(
    "init",
    help=__doc__,
    examples=[
        "chorus init my.toml              # from the demo, which runs as it is on two CPU cores",
        "chorus init smollm2 my.toml      # from another recipe that `chorus recipes` lists",
    ],
)
@click.argument(
    "names", nargs=-1, metavar="[RECIPE] FILE", help=f"a recipe's name (default: {DEFAULT}); the file to write"
)
def main(names: tuple[str, ...]) -> int:
    if len(names) not in (1, 2):
        raise click.UsageError(f"give the file to write, or a recipe and that file; given: {' '.join(names) or 'none'}")
    source, target = recipe_named(names[0] if len(names) == 2 else DEFAULT), Path(names[-1])
    if target.suffix != ".toml":
        raise CannotGoOn(f"{target}: a recipe is a TOML file; name it {target.with_suffix('.toml')}")
    text = _HEAD.format(file=target, recipe=source.stem) + commented(source.read_text(encoding="utf-8"))
    try:
        with target.open("x", encoding="utf-8") as written:
            written.write(text)
    except FileExistsError:
        raise CannotGoOn(f"{target}: it is there already, and is left as it is; give another name") from None
    except OSError as error:
        raise CannotGoOn(f"{target}: {error.strerror}; give a file in a folder that can be written") from None
    print(f"{target}: written, from the recipe {source.stem}")
    config = load_config(source, environment={})
    if absent := _absent(config):
        print(f"it names files that are not here: {', '.join(absent)}")
        mends = dict.fromkeys(fetched_by(Path(name)) or "bring the others, or name files of yours" for name in absent)
        print("".join(f"    {mend}\n" for mend in mends), end="")
    if config.finetune.data:
        print(f"next:\n    chorus finetune {target}")
    else:
        print(f"next:\n    chorus run {target} --dry-run\n    chorus run {target}")
    return os.EX_OK


def commented(text: str) -> str:
    """A recipe's text with what a key means behind it, or above it, wherever it says nothing itself."""
    lines: list[str] = []
    section: type[BaseModel] | None = RunConfig
    for line in text.splitlines():
        if found := _SECTION.fullmatch(line.partition("#")[0].strip()):
            section = _section(found[1].split("."))
        key = _KEY.match(line)
        meaning = _meaning(section, key[1]) if section and key and "#" not in line else ""
        if not meaning:
            lines.append(line)
        elif line.endswith("[") or len(f"{line}  # {meaning}") > _WIDTH:
            lines += [*textwrap.wrap(meaning, _WIDTH, initial_indent="# ", subsequent_indent="# "), line]
        else:
            lines.append(f"{line}  # {meaning}")
    return "\n".join(lines) + "\n"


def _section(path: list[str]) -> type[BaseModel] | None:
    """The model behind `[a.b]` or `[[a.b]]`; None where it is no model's."""
    model: type[BaseModel] | None = RunConfig
    for part in path:
        field = model.model_fields.get(part) if model else None
        kinds = [field.annotation, *get_args(field.annotation)] if field else []
        model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    return model


def _meaning(section: type[BaseModel], key: str) -> str:
    """The description of a section's key; empty where it has none."""
    field = section.model_fields.get(key)
    return (field.description or "") if field else ""


def _absent(config: RunConfig) -> list[str]:
    """Files that the recipe names and that are not here."""
    p = config.problems
    named = [
        *p.train,
        *p.heldout,
        *p.validation,
        *p.exclude_overlap,
        *config.curriculum.pass_rates,
        *config.templates.files,
        *config.finetune.data,
    ]
    return [name for name in dict.fromkeys(named) if ":" not in name and not Path(name).exists()]
