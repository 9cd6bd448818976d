"""recipes/critique.toml against the numbers of methods.md 5.3, and its sibling for two cores."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from chorus.cli.data.critique import CANDIDATES, KEPT
from chorus.protocol.config.load import load_config
from chorus.protocol.config.run import RunConfig
from chorus.protocol.config.supervised import FinetuneSection

RECIPES = Path(__file__).parents[3] / "recipes"

PUBLISHED: dict[str, Any] = {
    "model.dtype": "bfloat16",
    "finetune.batch": 512,
    "finetune.lr": 5e-6,
    "finetune.schedule": "cosine",
    "finetune.warmup": 0.05,
    "finetune.weight_decay": 0.05,
    "finetune.entropy_coefficient": 0.0,
    "run.steps": math.ceil(50 * 600 / 512),
    "learner.checkpoint_every": 10,
    "evaluation.every": 10,
    "evaluation.validation_problems": 500,
}


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return load_config(RECIPES / "critique.toml", environment={})


@pytest.mark.parametrize("key", PUBLISHED)
def test_the_recipe_has_the_published_value(key: str, config: RunConfig) -> None:
    section, _, name = key.partition(".")
    assert getattr(getattr(config, section), name) == PUBLISHED[key]


def test_the_sections_and_the_commands_defaults_are_the_published_numbers() -> None:
    defaults = FinetuneSection()
    published = {key.partition(".")[2]: value for key, value in PUBLISHED.items() if key.startswith("finetune.")}
    assert {name: getattr(defaults, name) for name in published} == published
    assert (CANDIDATES, KEPT) == (10, 600)


def test_the_small_one_trains_on_as_many_critiques_of_one_problem() -> None:
    demo = load_config(RECIPES / "demo_critique.toml", environment={})
    assert demo.finetune.data == ["critiques:running?samples=600&seed=0"]
    assert demo.supervision is demo.finetune
