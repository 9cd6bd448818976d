"""recipes/acereason, crossthink, staged and sparkle against the numbers of methods.md 5.7, 5.9, 5.10 and 5.4, and their
siblings for two cores."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from chorus.learner.curriculum.sampler import Blend
from chorus.protocol.config.load import load_config
from chorus.protocol.config.run import RunConfig
from chorus.protocol.rewards import compose
from chorus.protocol.templates.load import choose_templates

RECIPES = Path(__file__).parents[3] / "recipes"
ON_POLICY = {"staleness.target": 0, "staleness.max": 0}
PUBLISHED: dict[str, dict[str, Any]] = {
    "acereason": {
        **ON_POLICY,
        "learner.groups_per_step": 128,
        "learner.updates_per_step": 1,
        "learner.lr": 1e-6,
        "objective.advantage": "grpo",
        "objective.aggregation": "token-mean",
        "objective.kl_coefficient": 0.0,
        "objective.entropy_coefficient": 0.0,
        "reward.compose": "accuracy_only",
        "reward.code_scoring": "strict",
        "reward.stop_properly": 0.0,  # truncated: 0
    },
    "crossthink": {
        "run.steps": 650,
        "model.context": 5000,
        "sampling.group_size": 8,
        "sampling.temperature": 1.0,
        "sampling.top_p": 1.0,
        "learner.groups_per_step": 128,
        "learner.updates_per_step": 1,
        "learner.lr": 1e-6,
        "objective.advantage": "grpo",
        "objective.kl_coefficient": 0.001,
        "reward.compose": "accuracy_and_format",
    },
    "staged": {
        **ON_POLICY,
        "model.path": "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
        "sampling.group_size": 16,
        "learner.groups_per_step": 128,
        "learner.updates_per_step": 1,
        "learner.lr": 1e-6,
        "objective.advantage": "grpo",
        "objective.kl_coefficient": 0.001,
        "objective.entropy_coefficient": 0.001,
        "reward.compose": "accuracy_only",
        "reward.code_scoring": "fractional",
    },
    "sparkle": {
        "run.seed": 10000,
        "problems.max_prompt_tokens": 1024,
        "sampling.group_size": 32,
        "sampling.temperature": 0.6,
        "sampling.max_tokens": 3000,
        "learner.groups_per_step": 128,
        "learner.updates_per_step": 2,  # mini-batches of 64
        "learner.lr": 1e-6,
        "objective.advantage": "grpo",
        "objective.kl_coefficient": 0.001,
        "objective.kl_estimator": "k3",
        "objective.kl_in": "loss",
        "reward.compose": "sparkle",
        "curriculum.hints.unit": "parts",
        "curriculum.hints.place": "assistant",
        "curriculum.hints.probe_share": 0.0,
    },
}


def recipe(name: str) -> RunConfig:
    return load_config(RECIPES / f"{name}.toml")


def of_stages(name: str, *keys: str) -> list[tuple[Any, ...]]:
    return [tuple(getattr(stage, key) for key in keys) for stage in recipe(name).curriculum.stages]


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, keys in PUBLISHED.items() for key in keys])
def test_a_recipe_has_the_published_value(name: str, key: str) -> None:
    found: Any = recipe(name)
    for part in key.split("."):
        found = getattr(found, part)
    assert found == PUBLISHED[name][key]


def test_acereason_s_plan_is_mathematics_at_four_lengths_and_then_programs() -> None:
    own = recipe("acereason").sampling
    plan = [
        (s.max_tokens or own.max_tokens, s.group_size or own.group_size, s.lr or 1e-6, list(s.domains))
        for s in recipe("acereason").curriculum.stages
    ]
    assert plan == [
        (8192, 8, 1e-6, ["math"]),
        (16384, 16, 1e-6, ["math"]),
        (24576, 16, 1e-6, ["math"]),
        (32768, 16, 1e-6, ["math"]),
        (24000, 8, 5e-6, ["code"]),
        (32768, 8, 5e-6, ["code"]),
        (32768, 16, 5e-6, ["code"]),
    ]
    assert of_stages("acereason", "temperature")[4:] == [(0.6,), (0.6,), (1.0,)]


def test_acereason_leaves_out_what_is_solved_more_than_6_of_16_times_and_r1_s_hardest_programs() -> None:
    rates = [rate for (rate,) in of_stages("acereason", "pass_rate")]
    kept = [rate and [k for k in range(17) if rate.low <= k / 16 <= rate.high] for rate in rates]
    assert kept == [None, None, list(range(7)), list(range(7)), None, None, None]
    assert [max(levels, default=None) for (levels,) in of_stages("acereason", "levels")][4:] == [5, None, None]
    assert of_stages("acereason", "drop_above") == [(None,)] * 5 + [(0.99,)] * 2
    assert not any(reset for (reset,) in of_stages("acereason", "reset_optimizer"))


def test_crossthink_s_batch_is_two_to_one_within_one_item_and_12_are_8_and_4() -> None:
    [stage] = recipe("crossthink").curriculum.stages
    assert stage.stratified
    for batch, general in ((12, {8}), (128, {85, 86})):
        blend = Blend("any", stage.domains, batch, stage.stratified)
        shares = [Counter(blend.at(n)[0] for n in range(k * batch, (k + 1) * batch)) for k in range(9)]
        assert {share["general"] for share in shares} <= general
        assert {share["general"] + share["math"] for share in shares} == {batch}


def test_crossthink_pays_a_right_answer_in_the_right_format_alone() -> None:
    spec = recipe("crossthink").reward_spec
    assert [compose(spec, a, f).total for a, f in ((1.0, 1.0), (1.0, 0.5), (0.0, 1.0))] == [1.0, 0.0, 0.0]


def test_any_domain_can_be_taken_out_of_the_blend() -> None:
    only = load_config(RECIPES / "crossthink.toml", ['curriculum.stages=[{name = "math", domains = {math = 1}}]'])
    assert only.curriculum.stages[0].domains == {"math": 1}


def test_staged_goes_from_level_2_to_level_3_at_step_1600_longer_and_without_the_cut_off_and_entropy() -> None:
    keys = ("levels", "max_tokens", "steps", "overlong_filter", "entropy_coefficient")
    assert of_stages("staged", *keys) == [([2], 16384, 1600, None, None), ([3], 24576, None, True, 0.0)]


def test_sparkle_s_second_stage_mixes_five_levels_on_what_was_failed_20_of_20_times() -> None:
    first, second = recipe("sparkle").curriculum.stages
    assert (first.hint_ratio, first.kl_coefficient, first.pass_rate) == (0.0, None, None)
    assert [4 * ratio for ratio in second.hint_ratios] == [0, 1, 2, 3, 4]
    assert second.kl_coefficient == 0.01
    assert second.pass_rate is not None
    assert [k for k in range(21) if second.pass_rate.low <= k / 20 <= second.pass_rate.high] == [0]


def test_sparkle_pays_2_1_and_minus_1_in_a_layout_of_thoughts_and_an_answer() -> None:
    sparkle = recipe("sparkle")
    pairs = ((1.0, 1.0), (1.0, 0.75), (0.0, 1.0))
    assert [compose(sparkle.reward_spec, a, f).total for a, f in pairs] == [2.0, 1.0, -1.0]
    [template] = choose_templates(sparkle.templates.names).values()
    assert template.markers == ["<think>", "</think>", "<answer>", "</answer>"]


@pytest.mark.parametrize("name", ["acereason", "crossthink", "staged", "sparkle"])
def test_a_demo_has_its_recipe_s_reward_and_plan_in_small(name: str) -> None:
    demo, published = recipe(f"demo_{name}"), recipe(name)
    assert demo.model.path.startswith("starter")
    # Steps of at most 256 answers: 50 take two minutes or so on two cores, SPARKLE's 120 of at most 80 tokens 3:29.
    assert demo.run.steps <= {"sparkle": 120}.get(name, 50)
    if name != "staged":
        assert demo.reward.compose == published.reward.compose
    stages = demo.curriculum.stages
    if name == "acereason":
        assert [list(s.domains) for s in stages] == [["arithmetic"], ["code"]]
        assert (demo.staleness.target, demo.staleness.max) == (0, 0)
        assert demo.evaluation.every == stages[0].steps
    if name == "crossthink":
        assert list(stages[0].domains.values()) == [2, 1]
    if name == "staged":
        assert [s.levels for s in stages] == [[2], [3]]
        assert stages[1].overlong_filter
        assert stages[1].entropy_coefficient == 0.0
    if name == "sparkle":
        assert stages[0].hint_ratios == published.curriculum.stages[1].hint_ratios
        assert demo.curriculum.hints.place == "assistant"
