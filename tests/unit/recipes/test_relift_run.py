"""recipes/relift.toml against the numbers of methods.md 5.2, and its sibling for two cores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chorus.protocol.config.load import load_config
from chorus.protocol.config.run import RunConfig
from chorus.protocol.config.supervised import ReliftSection

RECIPES = Path(__file__).parents[3] / "recipes"
PROBLEMS = 46_000

PUBLISHED: dict[str, Any] = {
    "relift.enabled": True,
    "relift.batch": 128,
    "relift.lr": 1e-6,
    "relift.grad_clip": 1.0,
    "relift.entropy_coefficient": 0.001,
    "relift.dedupe": False,  # one entry an occurrence
    "relift.warmup_updates": 0,  # constant
    "sampling.group_size": 8,
    "sampling.temperature": 1.0,
    "sampling.max_tokens": 8192,
    "problems.max_prompt_tokens": 1024,
    "learner.groups_per_step": 128,
    "learner.updates_per_step": 2,  # of 64 prompts
    "learner.lr": 1e-6,
    "learner.grad_clip": 0.7,
    "objective.advantage": "dr_grpo",  # GRPO without std
    "objective.kl_coefficient": 0.0,
    "objective.loss": "ppo",
    "objective.clip_low": None,
    "objective.clip_high": None,
    "objective.dual_clip": None,
    "objective.aggregation": "dr-const",  # token sum over the response width
    "objective.length_constant": 8192,
    "objective.entropy_coefficient": 0.001,
    "objective.dynamic_sampling": False,
    "staleness.target": 0,
    "staleness.max": 0,
    "reward.compose": "accuracy_only",
    "run.steps": 3 * (PROBLEMS // 128),
}


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return load_config(RECIPES / "relift.toml", environment={})


@pytest.mark.parametrize("key", PUBLISHED)
def test_the_recipe_has_the_published_value(key: str, config: RunConfig) -> None:
    section, _, name = key.partition(".")
    assert getattr(getattr(config, section), name) == PUBLISHED[key]


def test_the_sections_defaults_are_the_published_numbers() -> None:
    defaults = ReliftSection()
    published = {key.partition(".")[2]: value for key, value in PUBLISHED.items() if key.startswith("relift.")}
    assert {name: getattr(defaults, name) for name in published} == published | {"enabled": False}


def test_the_small_one_trains_questas_policy_on_questas_problems_in_fewer_steps() -> None:
    relift, questa = (load_config(RECIPES / f"demo_{name}.toml", environment={}) for name in ("relift", "questa"))
    for section in ("model", "problems", "templates", "sampling", "staleness", "objective", "reward"):
        assert getattr(relift, section) == getattr(questa, section), section
    assert relift.learner == questa.learner.model_copy(update={"checkpoint_every": relift.learner.checkpoint_every})
    assert relift.run.steps < questa.run.steps
    assert relift.relift.enabled
    assert not questa.relift.enabled
