"""Objectives by name: each name is complete, each combination that makes no sense is refused with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from chorus.protocol.config.load import ConfigError, load_config
from chorus.protocol.config.objective import LOSSES, ObjectiveConfig
from chorus.protocol.config.presets import PRESETS, explain, in_words
from chorus.protocol.config.run import RunConfig

DEMO = Path(__file__).parents[3] / "recipes" / "demo.toml"
NAMES = (
    "grpo", "dr_grpo", "dapo", "seed_grpo", "gmpo", "gspo", "cispo", "rloo", "reinforce_pp", "reinforce_pp_baseline",
    "prompt_augmentation", "questa", "prorl", "prorl_v2",
)  # fmt: skip


def objective(**fields: Any) -> ObjectiveConfig:
    return ObjectiveConfig.model_validate(fields)


def run(*overrides: str) -> RunConfig:
    return load_config(DEMO, overrides)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_alone_is_complete_and_survives_being_written_down(name: str) -> None:
    c = run(f"objective.name={name}").objective
    assert ObjectiveConfig.model_validate(c.model_dump(mode="json")) == c


FLAGSHIP = Path(__file__).parents[3] / "recipes" / "qwen2.5-math-1.5b.toml"


@pytest.mark.parametrize("name", NAMES)
def test_a_name_given_later_than_a_recipes_numbers_wins_over_them(name: str, tmp_path: Path) -> None:
    """From --set over the recipe, from --set over the environment, and from the environment over the recipe."""
    asked = load_config(FLAGSHIP, [f"objective.name={name}"], environment={})
    own = RunConfig.model_validate(
        load_config(DEMO, environment={}).model_dump(mode="json", exclude={"objective"}) | {"objective": {"name": name}}
    )
    if name != "prompt_augmentation":
        assert asked.objective == own.objective
    assert load_config(FLAGSHIP, environment={"CHORUS_OBJECTIVE__NAME": name}).objective == asked.objective
    other = {"CHORUS_OBJECTIVE": '{"name": "dapo", "clip_high": 0.5}'}
    if name != "dapo":
        assert load_config(FLAGSHIP, [f"objective.name={name}"], other).objective.clip_high != 0.5


def test_the_same_name_given_again_takes_nothing_away() -> None:
    asked = load_config(FLAGSHIP, ["objective.name=prompt_augmentation"], environment={})
    assert asked == load_config(FLAGSHIP, environment={})
    assert asked.objective.token_mean_scope == "micro"


def test_numbers_given_with_a_later_name_or_after_it_hold() -> None:
    sets = ["objective.name=gmpo", "objective.clip_high=0.3"]
    asked = load_config(FLAGSHIP, sets, environment={}).objective
    assert (asked.loss, asked.clip_low, asked.clip_high, asked.dual_clip) == ("gmpo", 0.4, 0.3, None)
    of_both = load_config(FLAGSHIP, sets[1:], {"CHORUS_OBJECTIVE__NAME": "gmpo"}).objective
    assert of_both == asked


def test_what_a_later_name_needs_beside_its_section_holds_too() -> None:
    assert load_config(FLAGSHIP, ["objective.name=questa"], environment={}).reward.compose == "accuracy_only"
    both = ["objective.name=questa", "reward.compose=format_gated"]
    assert load_config(FLAGSHIP, both, environment={}).reward.compose == "format_gated"
    assert load_config(FLAGSHIP, environment={}).reward.compose == "additive"


def test_a_mix_that_makes_no_sense_is_one_line_that_names_its_keys() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(FLAGSHIP, ["objective.loss=gmpo"], environment={})
    assert "aggregation token-mean" in str(caught.value)
    assert "set objective.aggregation = seq-mean-token-mean" in str(caught.value)
    assert "got {" not in str(caught.value)
    assert str(caught.value).count("objective:") == 1
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (
            "qwen2.5-math-1.5b",
            "advantage grpo; ppo 0.2/0.28, dual 3; token-mean in micro-batches of 4; proximal recompute",
        ),
        (
            "qwen2.5-math-1.5b_grpo",
            "advantage grpo; ppo 0.2/0.2, dual 3; token-mean in micro-batches of 4; proximal recompute; k3 0.001 in "
            "the loss",
        ),
        ("qwen2.5-math-1.5b_gmpo", "advantage grpo; gmpo 0.4/0.4; seq-mean-token-mean; proximal recompute"),
    ],
)
def test_what_is_trained_is_told_by_its_numbers(recipe: str, words: str) -> None:
    c = load_config(FLAGSHIP.with_name(f"{recipe}.toml"), environment={}).objective
    assert in_words(lambda key: getattr(c, key)) == words


def test_no_preset_is_without_a_test() -> None:
    assert set(PRESETS) == set(NAMES)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("grpo", {"clip_high": 0.2, "aggregation": "seq-mean-token-mean", "kl_coefficient": 0.001, "dual_clip": None}),
        ("dr_grpo", {"advantage": "dr_grpo", "aggregation": "dr-const", "clip_high": 0.2, "kl_coefficient": 0.0}),
        ("dapo", {"clip_low": 0.2, "clip_high": 0.28, "dual_clip": 3.0, "dynamic_sampling": True, "max_refills": 10}),
        ("gmpo", {"loss": "gmpo", "clip_low": 0.4, "clip_high": 0.4, "std_epsilon": 1e-8}),
        ("gspo", {"loss": "gspo", "clip_low": 3e-4, "clip_high": 4e-4}),
        ("cispo", {"loss": "cispo", "clip_low": None, "clip_high": 0.2, "aggregation": "token-mean"}),
        ("seed_grpo", {"seed_alpha": 0.0417}),
        (
            "prompt_augmentation",
            {"proximal": "behaviour", "clip_low": 0.2, "clip_high": 0.28, "dual_clip": 3.0, "kl_coefficient": 0.0},
        ),
        (
            "questa",
            {"reward_scale": 5.0, "reward_bound": 20.0, "std_epsilon": 1e-5, "weight_cap": 5.0, "weight_mode": "mask",
             "accuracy_bounds": (0.05, 0.95)},
        ),
    ],
)  # fmt: skip
def test_a_preset_has_the_published_numbers(name: str, expected: dict[str, Any]) -> None:
    c = objective(name=name)
    assert {key: getattr(c, key) for key in expected} == expected


def test_dapo_brings_the_soft_overlong_penalty_on_the_scale_of_the_run() -> None:
    spec = run("objective.name=dapo", "sampling.max_tokens=60").reward_spec.overlong
    assert spec is not None
    assert (spec.max_tokens, spec.buffer_tokens, spec.factor) == (60, 12, 1.0)  # 4096 of 20480 is a fifth
    own = run("objective.name=dapo", "reward.overlong.max_tokens=50", "reward.overlong.buffer_tokens=5").reward_spec
    assert own.overlong is not None
    assert own.overlong.buffer_tokens == 5
    assert run().reward_spec.overlong is None


def test_the_published_aggregation_of_prompt_augmentation_can_be_written() -> None:
    c = run("objective.token_mean_scope=micro", "objective.micro_sequences=4", "learner.updates_per_step=4")
    assert (c.objective.token_mean_scope, c.objective.dual_clip, c.learner.updates_per_step) == ("micro", 3.0, 4)


def test_none_takes_a_presets_bound_away() -> None:
    assert run("objective.dual_clip=none").objective.dual_clip is None


REFUSED = [
    ({"name": "grpoo"}, "known: cispo, dapo"),
    ({"loss": "ppoo"}, "known: ppo, gmpo"),
    ({"name": "gspo", "aggregation": "token-mean"}, "one ratio a sequence; under aggregation token-mean"),
    ({"name": "gmpo", "aggregation": "dr-const"}, "one ratio a sequence; under aggregation dr-const"),
    ({"weight": "token"}, "would count staleness twice"),
    ({"reject": "k3", "reject_high": 0.01}, "would count staleness twice"),
    ({"name": "gmpo", "proximal": "recompute", "weight": "token"}, "set objective.weight = geometric"),
    ({"proximal": "recompute", "weight": "token", "weight_mode": "mask"}, "set objective.weight_cap"),
    ({"proximal": "recompute", "weight_normalise": True}, "weight_normalise without a weight"),
    ({"proximal": "loglinear", "weight": "token", "weight_normalise": True}, "before the update"),
    ({"proximal": "recompute", "reject": "sequence"}, "without bounds rejects nothing"),
    ({"name": "cispo", "dual_clip": 3.0}, "set objective.dual_clip = none"),
    ({"clip_low": 1.5}, "lower bound 1 - clip_low would not be positive"),
    ({"name": "cispo", "loss": "cispo_absolute"}, "TRL recommends 5.0"),
    ({"name": "grpo", "token_mean_scope": "micro"}, "aggregation seq-mean-token-mean has none"),
    ({"accuracy_bounds": (0.9, 0.1)}, "no range within 0 to 1"),
    ({"accuracy_bounds": (0.1, 0.9)}, "accuracy_bounds does nothing without dynamic_sampling = true: set objective"),
    ({"max_refills": 3}, "max_refills does nothing without dynamic_sampling = true"),
    ({"name": "dapo", "max_refills": 3, "dynamic_sampling": False}, "max_refills does nothing without"),
    ({"kl_estimator": "k2"}, "kl_estimator does nothing without kl_coefficient above 0"),
    ({"kl_clamp": 5.0}, "kl_clamp does nothing without kl_coefficient above 0"),
    ({"length_constant": 512}, 'length_constant does nothing without aggregation = "dr-const"'),
]


@pytest.mark.parametrize(("fields", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_what_makes_no_sense_is_refused_with_its_reason(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        objective(**fields)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (
            ["objective.loss=policy_gradient", "objective.dual_clip=none"],
            "nothing corrects for groups that are",
        ),
        (["sampling.group_size=1"], "a group needs at least 2 samples"),
    ],
)
def test_what_makes_no_sense_in_the_run_is_refused_with_its_reason(overrides: list[str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        run(*overrides)


def test_the_k1_penalty_belongs_in_the_reward_and_in_the_loss_it_comes_with_a_warning() -> None:
    in_reward = objective(name="rloo", kl_coefficient=0.05, kl_estimator="k1", kl_in="reward")
    assert in_reward.needs_reference
    assert in_reward.warnings == []
    in_loss = objective(name="rloo", kl_coefficient=0.05, kl_estimator="k1", kl_in="loss")
    assert "a gradient whose mean is 0" in in_loss.warnings[0]
    assert explain(in_loss)[-1] == f"warning: {in_loss.warnings[0]}"
    assert not any(line.startswith("warning") for line in explain(in_reward))


def test_the_global_token_mean_is_another_word_for_that_of_the_mini_batch() -> None:
    c = objective(token_mean_scope="global")
    assert c == objective(token_mean_scope="mini-batch")
    assert run("objective.token_mean_scope=global").objective.token_mean_scope == "mini-batch"


def test_the_expansion_names_the_source_of_every_number_and_what_the_recipe_changed() -> None:
    lines = explain(objective(name="dapo", clip_high=0.3))
    by_key = {line.split()[0]: line for line in lines}
    assert "0.3" in by_key["clip_high"]
    assert "set in the recipe" in by_key["clip_high"]
    assert "arXiv 2503.14476" in by_key["clip_low"]
    assert any(line.startswith("published with lr 1e-6") for line in lines)


@pytest.mark.parametrize("name", NAMES)
def test_every_number_of_a_preset_has_a_source(name: str) -> None:
    preset = PRESETS[name]
    assert preset.source
    assert all(source for _, source in preset.values.values())
    assert set(preset.values) <= set(ObjectiveConfig.model_fields)


def test_every_loss_has_its_function() -> None:
    from chorus.learner.objectives.losses import loss_function

    assert all(callable(loss_function(name)) for name in LOSSES)


@pytest.mark.parametrize(
    "fields",
    [
        {"accuracy_bounds": (0.1, 0.9), "max_refills": 3, "dynamic_sampling": True},
        {"name": "dapo", "dynamic_sampling": False},
        {"name": "questa", "dynamic_sampling": False},
        {"name": "prorl_v2", "kl_coefficient": 0.0},
        {"kl_estimator": "k2", "kl_clamp": 5.0, "kl_coefficient": 0.1},
        {"name": "dr_grpo", "length_constant": 512},
        {"accuracy_bounds": (0.0, 1.0), "kl_estimator": "k3", "max_refills": 10, "length_constant": "none"},
    ],
)
def test_a_key_that_is_used_or_is_as_it_would_be_anyway_is_read(fields: dict[str, Any]) -> None:
    made = ObjectiveConfig.model_validate(fields)
    assert ObjectiveConfig.model_validate(made.model_dump()) == made
