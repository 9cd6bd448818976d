"""The demo's siblings train the same policy on the same problems: what differs is the templates."""

from __future__ import annotations

from pathlib import Path

import pytest

from chorus.protocol.config.load import load_config
from chorus.protocol.config.run import RunConfig
from chorus.protocol.templates.load import load_templates

RECIPES = Path(__file__).parents[3] / "recipes"


def recipe(name: str) -> RunConfig:
    return load_config(RECIPES / f"{name}.toml")


@pytest.mark.parametrize("sibling", ["demo_single_template", "demo_13_templates"])
def test_a_sibling_differs_from_the_demo_only_in_its_templates(sibling: str) -> None:
    demo, other = recipe("demo").model_dump(), recipe(sibling).model_dump()
    for fields in (demo, other):
        fields.pop("templates")
        fields["model"].pop("starter_templates")
        fields["evaluation"].pop("templates")
    assert other == demo


def test_the_single_template_starts_from_the_demos_own_policy() -> None:
    demo, single = recipe("demo"), recipe("demo_single_template")
    assert len(single.templates.names) == 1
    assert single.model.starter_templates == demo.templates.names


@pytest.mark.parametrize("name", ["demo_13_templates", "smollm2_gpu"])
def test_the_thirteen_are_all_there_are(name: str) -> None:
    assert recipe(name).templates.names == sorted(load_templates())
