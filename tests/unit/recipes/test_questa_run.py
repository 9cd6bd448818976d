"""recipes/questa.toml against the numbers of methods.md 4, and its sibling for two cores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chorus.protocol.config.load import load_config
from chorus.protocol.config.run import RunConfig

RECIPES = Path(__file__).parents[3] / "recipes"

PUBLISHED: dict[str, Any] = {
    "model.path": "nvidia/OpenMath-Nemotron-1.5B",
    "run.steps": 2000,
    "sampling.group_size": 16,
    "sampling.temperature": 1.0,
    "sampling.max_tokens": 24000,
    "problems.max_prompt_tokens": 4096,
    "learner.groups_per_step": 128,
    "learner.updates_per_step": 1,
    "learner.lr": 2e-5,
    "learner.weight_decay": 0.05,
    "learner.betas": (0.9, 0.95),
    "learner.adam_eps": 1e-5,
    "learner.warmup_steps": 2,
    "learner.grad_clip": 1.0,
    "learner.checkpoint_every": 50,
    "staleness.max": 4,
    "objective.name": "questa",
    "objective.advantage": "batch_normalised",
    "objective.std_epsilon": 1e-5,
    "objective.reward_scale": 5.0,
    "objective.reward_bound": 20.0,
    "objective.clip_low": 0.2,
    "objective.clip_high": 0.2,
    "objective.kl_coefficient": 0.0,
    "objective.proximal": "recompute",
    "objective.weight": "token",
    "objective.weight_cap": 5.0,
    "objective.dynamic_sampling": True,
    "objective.accuracy_bounds": (0.05, 0.95),
    "reward.compose": "accuracy_only",
    "reward.timeout_s": 15.0,
    "curriculum.hints.unit": "characters",
    "curriculum.hints.reject_if_answer_in_hint": False,  # the published code has no such check
    "curriculum.hints.probe_share": 0.0,
    "templates.chat": "model",
}


def recipe(name: str) -> RunConfig:
    return load_config(RECIPES / f"{name}.toml")


@pytest.mark.parametrize("key", PUBLISHED)
def test_the_recipe_has_the_published_value(key: str) -> None:
    found: Any = recipe("questa")
    for part in key.split("."):
        found = getattr(found, part)
    assert found == PUBLISHED[key]


def test_half_of_the_solution_for_100_steps_then_a_quarter_to_the_end() -> None:
    stages = recipe("questa").curriculum.stages
    assert [(s.hint_ratio, s.steps) for s in stages] == [(0.5, 100), (0.25, None)]


def test_each_stage_takes_problems_that_were_solved_at_most_four_times_of_eight() -> None:
    for stage in recipe("questa").curriculum.stages:
        rate = stage.pass_rate
        assert rate is not None
        assert [k for k in range(9) if rate.low <= k / 8 <= rate.high] == [0, 1, 2, 3, 4]
        assert rate.hint_ratio is None, "measured with the stage's own hint"


def test_the_filter_keeps_groups_with_1_to_15_right_of_16() -> None:
    low, high = recipe("questa").objective.accuracy_bounds
    assert [k for k in range(17) if low <= k / 16 <= high] == list(range(1, 16))


def test_the_demo_takes_its_hints_away_by_quarters() -> None:
    curriculum = recipe("demo_questa").curriculum
    assert [s.hint_ratio for s in curriculum.stages] == [0.75, 0.5, 0.25, 0.0]
    assert curriculum.hints.reject_if_answer_in_hint
