"""What nobody had set is chosen anew at every start; what was wished, and what is asked for since, stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chorus.deploy.placement import place
from chorus.deploy.wishes import as_wished, chosen_by_machine
from chorus.protocol.config.load import load_config
from chorus.protocol.config.run import RunConfig
from chorus.protocol.run_folder.files import write_json
from chorus.protocol.run_folder.folder import RunFolder

RECIPE = """
[model]
path = "any"
[problems]
train = ["any"]
[templates]
names = ["qwen-math"]
"""


def started(tmp_path: Path, recipe: str, gpus: list[int]) -> RunFolder:
    """A folder as `chorus run` leaves it on a machine with these GPUs."""
    file = tmp_path / "recipe.toml"
    file.write_text(recipe)
    wished = load_config(file, (), {})
    placement = place(wished, [0, 1], gpus)
    run = RunFolder(tmp_path)
    fields: dict[str, Any] = wished.model_dump(mode="json")
    fields["placement"] |= {"learner_gpus": placement.learner_gpus, "generator_gpus": placement.generator_gpus}
    fields["generator"]["replicas"] = placement.replicas
    fields["redis"]["url"] = fields["redis"]["url"] or "redis://127.0.0.1:4001/0"
    fields["reward"]["url"] = fields["reward"]["url"] or "http://127.0.0.1:4002"
    write_json(run.config, fields)
    write_json(run.note, {"recipe": "r", "chosen": chosen_by_machine(wished)})
    return run


def resumed(run: RunFolder, *overrides: str) -> RunConfig:
    return as_wished(load_config(run.config, overrides, {}), run)


def test_other_gpus_than_before_are_placed_anew(tmp_path: Path) -> None:
    run = started(tmp_path, RECIPE, [0, 1, 2])
    placement = place(resumed(run), [0, 1], [5, 6])
    assert (placement.learner_gpus, placement.generator_gpus) == ([5], [[6]])


def test_addresses_of_services_of_its_own_are_chosen_anew(tmp_path: Path) -> None:
    config = resumed(started(tmp_path, RECIPE, []))
    assert (config.redis.url, config.reward.url) == ("", "")


def test_what_the_recipe_wished_stays(tmp_path: Path) -> None:
    wishes = '[placement]\nlearner_gpus = [0]\ngenerator_gpus = [[1]]\n[redis]\nurl = "redis://r:1/0"\n'
    run = started(tmp_path, RECIPE + wishes + "[generator]\nreplicas = 1\n", [0, 1])
    config = resumed(run)
    assert (config.placement.learner_gpus, config.placement.generator_gpus) == ([0], [[1]])
    assert config.redis.url == "redis://r:1/0"
    assert "replicas" in config.generator.model_fields_set


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("placement.learner_gpus=[7]", ("placement", "learner_gpus"), [7]),
        ("redis.url=redis://other:1/0", ("redis", "url"), "redis://other:1/0"),
        ("generator.replicas=3", ("generator", "replicas"), 3),
    ],
)
def test_what_is_asked_for_at_resume_holds(tmp_path: Path, override: str, key: tuple[str, str], value: object) -> None:
    config = resumed(started(tmp_path, RECIPE, [0, 1]), override)
    assert getattr(getattr(config, key[0]), key[1]) == value


def test_a_run_of_before_the_choice_was_noted_starts_its_own_services_again(tmp_path: Path) -> None:
    run = started(tmp_path, RECIPE, [0])
    write_json(run.note, {"recipe": "r", "own_redis": True, "own_reward_server": False})
    config = resumed(run)
    assert (config.redis.url, config.reward.url) == ("", "http://127.0.0.1:4002")
