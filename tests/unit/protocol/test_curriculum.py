"""`[curriculum]`: what can't be right is refused before anything starts, with the mend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chorus.protocol.config.curriculum import CurriculumSection
from chorus.protocol.config.load import ConfigError, load_config

RECIPES = Path(__file__).parents[3] / "recipes"
LAST = {"name": "last"}


def load(curriculum: dict[str, Any], *overrides: str) -> CurriculumSection:
    sets = [f"curriculum.{key}={toml(value)}" for key, value in curriculum.items()]
    return load_config(RECIPES / "demo.toml", [*sets, *overrides]).curriculum


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
    return "[" + ", ".join(map(toml, value)) + "]" if isinstance(value, list) else json.dumps(value)


def test_a_run_without_a_curriculum_has_one_stage_of_all_problems_and_no_hints() -> None:
    curriculum = load({})
    assert [(s.name, s.hint_ratio, s.domains, s.ends) for s in curriculum.all_stages] == [("all", 0.0, {}, False)]
    assert not curriculum.gives_hints


def test_stages_hints_and_ends_are_read_from_a_recipe() -> None:
    stages = [
        {"name": "half", "hint_ratio": 0.5, "steps": 100, "plateau": {"window": 5}},
        {"name": "online", "hint_ratio": "online", "entropy_fall": {"share": 0.3}},
        {"name": "code", "domains": {"code": 1}, "max_tokens": 60},
    ]
    curriculum = load({"stages": stages, "hints": {"unit": "steps"}})
    assert [(s.name, s.hint_ratio, s.steps, s.max_tokens) for s in curriculum.stages] == [
        ("half", 0.5, 100, None),
        ("online", "online", None, None),
        ("code", 0.0, None, 60),
    ]
    assert curriculum.gives_hints
    assert curriculum.hints.reject_if_answer_in_hint, "the guard is on unless a recipe turns it off"


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([LAST, LAST], r"stages: last named twice; give each stage a name of its own"),
        ([{"name": "first"}, LAST], r"stages: first never ends, so last would never begin: give it steps"),
        ([{"name": "x", "pass_rate": {"low": 0.5}}], r"x chooses by pass_rate, .* name it in curriculum.pass_rates"),
        ([{"name": "x", "pass_rate": {"low": 0.5, "high": 0.4}}], r"low \(0.5\) is above high \(0.4\)"),
        ([{"name": "x", "domains": {"math": 0}}], r"stage x: every weight of its domains is 0"),
        ([{"name": "x", "hint_ratio": 1.0}], r"hint_ratio"),
        ([{"name": "x", "hint_ratio": "on"}], r"hint_ratio"),
        ([{"name": "a b"}], r"name"),
        ([{"name": "x", "max_tokens": 65}], r"x has max_tokens 65, above sampling.max_tokens \(64\): raise"),
    ],
)
def test_stages_that_can_not_be_right_are_refused(stages: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load({"stages": stages})


def test_a_length_stage_is_refused_beside_an_overlong_penalty_for_one_length() -> None:
    stages = [{"name": "short", "max_tokens": 32}]
    with pytest.raises(ConfigError, match=r"short has a max_tokens of its own, and the overlong penalty one length"):
        load({"stages": stages}, "objective.overlong_buffer=0.2")


def test_a_plateau_of_the_probe_needs_a_probe() -> None:
    stages = [{"name": "x", "plateau": {"figure": "probe_accuracy"}}, LAST]
    with pytest.raises(ConfigError, match=r"plateau of probe_accuracy, and curriculum.hints.probe_share is 0"):
        load({"stages": stages, "hints": {"probe_share": 0.0}})


def test_a_plateau_of_validations_needs_validations() -> None:
    stages = [{"name": "x", "plateau": {"figure": "validation_accuracy"}}, LAST]
    with pytest.raises(ConfigError, match=r"x waits for a plateau of validation_accuracy.*set evaluation.every"):
        load({"stages": stages})


@pytest.mark.parametrize(
    ("online", "said"),
    [
        ({"low": 0.5, "high": 0.5}, r"low \(0.5\) must be below high"),
        ({"start": 0.8, "max": 0.75}, r"start \(0.8\) and move \(0.125\) must not be above max \(0.75\)"),
    ],
)
def test_online_hints_that_can_not_move_are_refused(online: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load({"hints": {"online": online}})
