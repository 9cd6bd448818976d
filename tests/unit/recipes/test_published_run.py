"""recipes/qwen2.5-math-1.5b.toml against every number of methods.md 2.1, its baselines against 2.2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chorus.protocol.config.load import load_config
from chorus.protocol.config.run import RunConfig
from chorus.protocol.templates.load import load_templates

RECIPES = Path(__file__).parents[3] / "recipes"
MAIN = "qwen2.5-math-1.5b"
PROBLEMS = 8523  # MATH levels 3-5
DROP_LAST_STEPS = 66  # of one pass over them

# methods.md 2.1, row by row.
PUBLISHED: dict[str, Any] = {
    "model.path": "Qwen/Qwen2.5-Math-1.5B",
    "model.dtype": "bfloat16",
    "learner.groups_per_step": 128,
    "sampling.group_size": 8,
    "learner.updates_per_step": 4,
    "run.steps": 3960,
    "problems.max_prompt_tokens": 1024,
    "sampling.max_tokens": 3072,
    "sampling.temperature": 1.0,
    "sampling.top_p": 1.0,
    "generator.gpu_memory": 0.6,
    "learner.lr": 1e-6,
    "learner.betas": (0.9, 0.999),
    "learner.weight_decay": 0.01,
    "learner.grad_clip": 1.0,
    "objective.name": "prompt_augmentation",
    "objective.advantage": "grpo",
    "objective.std_epsilon": 1e-6,
    "objective.clip_low": 0.2,
    "objective.clip_high": 0.28,
    "objective.dual_clip": 3.0,
    "objective.aggregation": "token-mean",
    "objective.token_mean_scope": "micro",
    "objective.micro_sequences": 4,
    "objective.proximal": "recompute",
    "objective.weight": "none",
    "objective.reject": "none",
    "objective.kl_coefficient": 0.0,
    "objective.entropy_coefficient": 0.0,
    "objective.dynamic_sampling": False,
    "objective.overlong_buffer": None,
    "objective.overlong_filter": False,
    "reward.mode": "paper",
    "reward.compose": "additive",
    "reward.format_weight": 1.0,
    "reward.overlong": None,
    "staleness.target": 0,
    "learner.checkpoint_every": 20,
    "learner.keep_exports": "all",  # 2.3: every checkpoint is scored
    "evaluation.every": 20,
    "evaluation.validation_problems": 500,
    "evaluation.templates": ["qwen-math"],
    "templates.chat": "chatml",
    "templates.weights": {},
}


def recipe(name: str) -> RunConfig:
    return load_config(RECIPES / f"{name}.toml")


def value(config: RunConfig, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)


@pytest.mark.parametrize("key", PUBLISHED)
def test_the_recipe_has_the_published_value(key: str) -> None:
    assert value(recipe(MAIN), key) == PUBLISHED[key]


def test_the_published_sizes_follow_from_the_recipe() -> None:
    config = recipe(MAIN)
    assert set(config.templates.names) == set(load_templates())
    assert len(config.templates.names) == 13
    samples = config.learner.groups_per_step * config.sampling.group_size
    assert samples == 1024
    assert samples // config.learner.updates_per_step == 256
    assert PROBLEMS // config.learner.groups_per_step == DROP_LAST_STEPS
    assert config.run.steps == 60 * DROP_LAST_STEPS
    assert config.learner.token_budget >= 4 * (config.problems.max_prompt_tokens + config.sampling.max_tokens)


BASELINES: dict[str, dict[str, Any]] = {  # what each changes, and nothing else
    "dapo_single_template": {"templates.names": ["qwen-math"]},
    "grpo": {
        "templates.names": ["qwen-math"],
        "run.steps": 20 * DROP_LAST_STEPS,
        "objective.name": "grpo",
        "objective.clip_high": 0.2,
        "objective.kl_coefficient": 0.001,
        "objective.kl_estimator": "k3",
        "objective.kl_in": "loss",
    },
    # methods.md 3, with its shared numbers: lr 1e-6, 128 prompts x 8, temperature 1, 4 updates a batch, 3072 tokens.
    "dr_grpo": {  # 3.2
        "templates.names": ["qwen-math"],
        "run.steps": 20 * DROP_LAST_STEPS,
        "sampling.max_tokens": 3000,
        "objective.name": "dr_grpo",
        "objective.advantage": "dr_grpo",
        "objective.clip_high": 0.2,
        "objective.dual_clip": None,
        "objective.aggregation": "dr-const",
        "objective.length_constant": 3000,
        "objective.token_mean_scope": "mini-batch",
    },
    "seed_grpo": {  # 3.4
        "templates.names": ["qwen-math"],
        "run.steps": 20 * DROP_LAST_STEPS,
        "objective.name": "seed_grpo",
        "objective.advantage": "seed_grpo",
        "objective.seed_alpha": 0.0417,
        "objective.clip_high": 0.2,
        "objective.dual_clip": None,
        "objective.aggregation": "dr-const",
        "objective.length_constant": 3072,
        "objective.token_mean_scope": "mini-batch",
    },
    "gmpo": {  # 3.5: bounds of the log-ratio, 20 passes
        "templates.names": ["qwen-math"],
        "run.steps": 20 * DROP_LAST_STEPS,
        "sampling.max_tokens": 3000,
        "objective.name": "gmpo",
        "objective.std_epsilon": 1e-8,
        "objective.loss": "gmpo",
        "objective.clip_low": 0.4,
        "objective.clip_high": 0.4,
        "objective.dual_clip": None,
        "objective.aggregation": "seq-mean-token-mean",
        "objective.token_mean_scope": "mini-batch",
    },
    "async": {  # docs/objectives.md: a recomputed policy, staleness corrected by a truncated weight
        "staleness.target": 1,
        "staleness.max": 4,
        "objective.weight": "token",
        "objective.weight_cap": 2.0,
    },
    "no_format_reward": {"run.steps": 40 * DROP_LAST_STEPS, "reward.compose": "accuracy_only"},
}


def test_every_recipe_of_this_model_is_one_of_these() -> None:
    assert {path.stem for path in RECIPES.glob(f"{MAIN}*.toml")} == {MAIN, *(f"{MAIN}_{name}" for name in BASELINES)}


@pytest.mark.parametrize("baseline", BASELINES)
def test_a_baseline_differs_from_the_published_run_only_where_it_says(baseline: str) -> None:
    ours, main = recipe(f"{MAIN}_{baseline}"), recipe(MAIN)
    changed = BASELINES[baseline]
    for section in type(main).model_fields:
        for name in type(getattr(main, section)).model_fields:
            key = f"{section}.{name}"
            assert value(ours, key) == changed.get(key, value(main, key)), key
