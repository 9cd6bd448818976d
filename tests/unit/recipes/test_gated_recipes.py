"""The recipes of ProRL, Short-RL and interleaved reasoning against the numbers of methods.md 5.1, 5.8 and 5.6, and
their siblings for two cores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chorus.learner.training.reference import due
from chorus.protocol.config.load import load_config
from chorus.protocol.config.run import RunConfig

RECIPES = Path(__file__).parents[3] / "recipes"
POINTS: dict[str, Any] = {
    "reward.points.right": 2.0,
    "reward.points.wrong": -1.5,
    "reward.points.no_answer": -2.0,
    "reward.points.format_right": 1.0,
    "reward.points.format_wrong": -1.0,
}
KL: dict[str, Any] = {"objective.kl_coefficient": 0.001, "objective.kl_estimator": "k3", "objective.kl_in": "loss"}
PUBLISHED: dict[str, dict[str, Any]] = {
    "prorl": {
        "objective.advantage": "grpo",
        "objective.clip_low": 0.2,
        "objective.clip_high": 0.4,
        "objective.dynamic_sampling": True,
        "objective.aggregation": "token-mean",
        "objective.kl_in": "loss",
        "objective.kl_coefficient": 1e-4,
        "objective.entropy_coefficient": 0.0,
        "learner.groups_per_step": 256,
        "learner.updates_per_step": 4,
        "learner.lr": 2e-6,
        "learner.warmup_steps": 0,
        "sampling.group_size": 16,
        "sampling.temperature": 1.2,
        "model.context": 8096,
        "reference.reset_optimizer": True,
        "reference.every": None,
        "reward.compose": "accuracy_only",
        "reward.timeout_s": 5.0,
    },
    "prorl_v2": {
        "objective.advantage": "reinforce_pp_baseline",
        "objective.aggregation": "token-mean",
        "objective.clip_low": 0.2,
        "objective.clip_high": 0.27,
        "objective.kl_estimator": "k2",
        "objective.kl_in": "loss",
        "objective.kl_coefficient": 1e-4,
        "objective.kl_clamp": 10.0,
        "objective.weight": "token",
        "objective.weight_mode": "mask",
        "objective.weight_low": 0.5,
        "objective.weight_cap": 5.0,
        "learner.lr": 1e-6,
        "learner.groups_per_step": 512,
        "learner.updates_per_step": 8,
        "sampling.group_size": 16,
        "sampling.max_tokens": 8192,
        "reward.stop_properly": 0.0,
        "reward.cosine.on_updates": 100,
        "reward.cosine.off_updates": 500,
        "reference.reset_optimizer": False,
    },
    "short": POINTS
    | KL
    | {
        "reward.points.formless": -2.0,
        "reward.short.tolerance_tokens": 100,
        "reward.short.accuracy_margin": 0.05,
        "reward.short.weight": 1.0,
        "reward.short.only_right": True,
        "reward.short.band": True,
        "reward.short.gate": True,
        "objective.advantage": "grpo",
        "learner.groups_per_step": 64,
        "learner.updates_per_step": 2,
        "sampling.group_size": 8,
        "learner.lr": 5e-7,
        "sampling.temperature": 1.0,
        "sampling.max_tokens": 4096,
        "problems.max_prompt_tokens": 1024,
        "model.path": "Qwen/Qwen2.5-7B",
    },
    "short_logic": POINTS
    | KL
    | {
        "reward.points.formless": -2.0,
        "reward.short.tolerance_tokens": 200,
        "reward.short.accuracy_margin": 0.05,
        "objective.advantage": "reinforce_pp",
        "learner.groups_per_step": 8,
        "sampling.group_size": 8,
        "learner.lr": 4e-7,
        "sampling.temperature": 0.7,
        "sampling.max_tokens": 4096,
        "problems.max_prompt_tokens": 512,
    },
    "interleaved": POINTS
    | KL
    | {
        "reward.points.formless": 0.0,
        "reward.interleaved.base": 0.5,
        "reward.interleaved.accuracy_margin": 0.05,
        "reward.interleaved.gate": True,
        "reward.interleaved.design": "time_discounted",
        "objective.advantage": "grpo",
        "learner.lr": 1e-6,
        "learner.groups_per_step": 16,
        "learner.updates_per_step": 4,
        "sampling.group_size": 8,
        "sampling.temperature": 0.8,
        "sampling.max_tokens": 2548,
        "problems.max_prompt_tokens": 3096,
        "run.steps": 2000,
        "templates.names": ["interleaved"],
    },
}


def recipe(name: str, *overrides: str) -> RunConfig:
    return load_config(RECIPES / f"{name}.toml", overrides)


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, keys in PUBLISHED.items() for key in keys])
def test_the_recipe_has_the_published_value(name: str, key: str) -> None:
    found: Any = recipe(name)
    for part in key.split("."):
        found = getattr(found, part)
    assert found == PUBLISHED[name][key]


def test_the_published_sizes_follow_from_the_recipes() -> None:
    v1, v2, short, inter = (recipe(name) for name in ("prorl", "prorl_v2", "short", "interleaved"))
    assert v1.learner.groups_per_step // v1.learner.updates_per_step == 64, "prompts of a mini-batch"
    assert v1.problems.max_prompt_tokens + v1.sampling.max_tokens == 8096
    assert v2.learner.groups_per_step * v2.sampling.group_size // v2.learner.updates_per_step == 1024
    assert short.learner.groups_per_step * short.sampling.group_size // short.learner.updates_per_step == 256
    assert inter.learner.groups_per_step * inter.sampling.group_size // inter.learner.updates_per_step == 32
    assert v2.reference.every is not None
    assert 200 <= v2.reference.every <= 500
    assert v1.reference.stall
    assert v1.reference.degrade


@pytest.mark.parametrize("name", ["prorl", "short", "interleaved"])
def test_the_small_sibling_shows_the_same_method_and_takes_the_usual_settings(name: str) -> None:
    demo = recipe(f"demo_{name}", "run.steps=3", "run.dir=elsewhere", "evaluation.problems=0")
    assert (demo.run.steps, demo.run.dir, demo.evaluation.problems) == (3, "elsewhere", 0)
    assert demo.model.path.startswith("starter")
    if name == "prorl":
        assert demo.reference.every
        assert recipe(name).reference.resets
    else:
        assert getattr(demo.reward, name)
        assert getattr(recipe(name).reward, name)


def test_none_takes_a_part_or_a_trigger_out_of_a_recipe() -> None:
    assert recipe("demo_short", "reward.short=none").reward.short is None
    assert not recipe("demo_prorl", "reference.every=none").reference.resets


def test_a_kl_that_grows_as_it_always_does_after_a_reset_resets_nothing_again() -> None:
    """From 0, by the square of the steps: steeper than a policy that drifts."""
    v2 = recipe("prorl_v2").reference
    assert v2.every
    grown = [1e-6 * step**2 for step in range(v2.every)]
    found = [due(v2, steps, grown[:steps][-v2.kl_window - 1 :], ()) for steps in range(v2.every)]
    assert set(found) == {None}
    spike = [*grown[:100], 10 * grown[100]]
    assert (due(v2, 101, spike[-v2.kl_window - 1 :], ()) or "").startswith("kl_spike")


def test_the_cosine_term_is_told_of_the_longest_answer() -> None:
    config = recipe("prorl_v2")
    assert config.reward.cosine
    assert config.reward.cosine.max_tokens is None
    assert config.reward_spec.cosine
    assert config.reward_spec.cosine.max_tokens == 8192
