"""`[templates]`: which mixtures can be meant, what they come to, and what is refused with one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chorus.protocol.config.load import ConfigError, load_config
from chorus.protocol.config.templates import Adaptive, TemplatesSection
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.templates.load import load_templates
from chorus.protocol.templates.sampling import adapted, base_weights

TEMPLATES = load_templates()
FOUR = ["qwen-math", "deepseek-r1", "open-r1-teacher", "lm_eval_prompt4"]  # free-form, twice deepseek, free-form


def section(**fields: Any) -> TemplatesSection:
    return TemplatesSection.model_validate({"names": FOUR} | fields)


def shares(step: int = 1, **fields: Any) -> dict[str, float]:
    return base_weights(*section(**fields).at(step), TEMPLATES, step)


def test_names_alone_are_drawn_alike() -> None:
    assert shares() == dict.fromkeys(sorted(FOUR), 0.25)


def test_weights_are_proportions_and_1_where_not_given() -> None:
    assert shares(weights={"qwen-math": 3, "deepseek-r1": 0}) == pytest.approx(
        {"lm_eval_prompt4": 0.2, "open-r1-teacher": 0.2, "qwen-math": 0.6}
    )


def test_a_categorys_weight_is_shared_equally_by_its_templates() -> None:
    assert shares(category_weights={"deepseek": 3}) == pytest.approx(
        {"deepseek-r1": 0.375, "open-r1-teacher": 0.375, "lm_eval_prompt4": 0.125, "qwen-math": 0.125}
    )


def test_a_schedule_holds_from_its_step_on_until_the_next() -> None:
    schedule = [{"from_step": 5, "names": ["qwen-math"]}, {"from_step": 9, "weights": {"qwen-math": 0}}]
    assert shares(4, schedule=schedule) == dict.fromkeys(sorted(FOUR), 0.25)
    assert shares(5, schedule=schedule) == shares(8, schedule=schedule) == {"qwen-math": 1.0}
    assert shares(9, schedule=schedule) == pytest.approx(dict.fromkeys(sorted(set(FOUR) - {"qwen-math"}), 1 / 3))


def test_adapted_weights_follow_the_variance_within_bounds() -> None:
    base = dict.fromkeys(["a", "b", "c", "d"], 0.25)
    # Mean variance 0.2; relative 0.5, 1.5, 1, and the one that nobody has measured stays at 1.
    expected = {"a": 0.5 / 4, "b": 1.5 / 4, "c": 1 / 4, "d": 1 / 4}
    assert adapted(base, {"a": 0.1, "b": 0.3, "c": 0.2}, bound=4.0) == pytest.approx(expected)
    # Bound 2: relative 0 and 3 become 0.5 and 2.
    assert adapted({"a": 0.25, "b": 0.25}, {"a": 0.0, "b": 0.0}, 2.0) == {"a": 0.25, "b": 0.25}
    found = adapted({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, {"a": 0.0, "b": 0.0, "c": 0.3}, 2.0)
    assert found == pytest.approx({"a": 0.5 / 3, "b": 0.5 / 3, "c": 2 / 3})


def test_adaptive_defaults() -> None:
    assert section(adaptive={}).adaptive == Adaptive(window=20, bound=4.0)


RECIPE = '[model]\npath = "any"\n[problems]\ntrain = ["any"]\n[templates]\nnames = ["qwen-math", "abel"]\n'


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ("weights = {formal = 2}", "weights for formal, which is not among the names; remove it"),
        ("weights = {abel = -1}", "templates.weights.abel: Input should be greater than or equal to 0"),
        ("weights = {abel = 0, qwen-math = 0}", "every weight is 0; no template could be drawn"),
        ("weights = {abel = nan}", "templates.weights.abel: Input should be"),
        ("weights = {abel = 2}\ncategory_weights = {free-form = 2}", "weights and category_weights exclude each other"),
        ("category_weights = {poetry = 2}", "templates.category_weights.poetry"),
        ("[templates.adaptive]\nbound = 1.0", "templates.adaptive.bound: Input should be greater than 1"),
        ("[templates.adaptive]\nwindows = 3", "templates.adaptive.windows is not a known key"),
        ("[[templates.schedule]]\nfrom_step = 0", "templates.schedule.0.from_step"),
        ('[[templates.schedule]]\nfrom_step = 3\nnames = ["formal"]', "from_step 3: formal not in templates.names"),
        (
            '[[templates.schedule]]\nfrom_step = 3\nnames = ["abel"]\nweights = {qwen-math = 2}',
            "from_step 3: weights for qwen-math, which is not among the names",
        ),
        (
            "[[templates.schedule]]\nfrom_step = 3\n[[templates.schedule]]\nfrom_step = 3",
            "from_step 3: comes after from_step 3; put the stages in order",
        ),
    ],
)
def test_a_senseless_mixture_is_refused_with_one_line(tmp_path: Path, extra: str, reason: str) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f"{RECIPE}{extra}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(recipe)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_name_given_twice_is_refused_with_the_mend() -> None:
    with pytest.raises(ValueError, match="qwen-math named twice; give weights to draw it more often"):
        section(names=["qwen-math", "abel", "qwen-math"])


def test_category_weights_that_no_template_can_take_are_refused() -> None:
    with pytest.raises(
        CannotGoOn, match="drawn at step 1 is of the category reflection; there are deepseek, free-form"
    ):
        shares(category_weights={"reflection": 2})
    with pytest.raises(CannotGoOn, match="every weight is 0 at step 1"):
        shares(category_weights={"deepseek": 0, "free-form": 0})
