"""`chorus prepare`: the folder from which services in containers start."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from chorus.cli.main import main
from chorus.protocol.config.load import load_config
from chorus.starter.courses import COURSES, Course

RECIPE = """
[model]
path = "{model}"
context = 400
[problems]
train = ["arithmetic:chain?split=train"]
max_prompt_tokens = 200
[templates]
names = ["qwen-math"]
[sampling]
max_tokens = 64
[learner]
lr = 1e-4
"""


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_model, tmp_path / "model")


@pytest.fixture
def recipe(tmp_path: Path, model: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE.format(model=model))
    return path


def prepare(recipe: Path, folder: Path, *more: str) -> int:
    return main(["prepare", str(recipe), "--run-dir", str(folder / "run"), "--models", str(folder / "models"), *more])


def test_services_read_the_recipe_resolved_with_what_the_environment_says(
    recipe: Path, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHORUS_REDIS__URL", "redis://redis:6379/0")
    assert prepare(recipe, tmp_path) == 0
    monkeypatch.delenv("CHORUS_REDIS__URL")
    config = load_config(tmp_path / "run" / "config.json")
    assert (config.model.path, config.redis.url, config.run.name) == (str(model), "redis://redis:6379/0", "mine")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["own_redis"] is False


@pytest.mark.parametrize("name", list(COURSES))
def test_a_starter_is_replaced_by_the_folder_it_was_built_to(
    recipe: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    asked: dict[str, object] = {}

    def build(models: Path, names: list[str], seed: int, course: Course, **more: object) -> Path:
        asked.update(models=models, names=names, course=course)
        return shutil.copytree(model, models / "starter-1")

    monkeypatch.setattr("chorus.starter.build.build_starter", build)
    assert prepare(recipe, tmp_path, "--set", f"model.path={name}") == 0
    assert load_config(tmp_path / "run" / "config.json").model.path == str(tmp_path / "models" / "starter-1")
    assert asked == {"models": tmp_path / "models", "names": ["qwen-math"], "course": COURSES[name]}


def test_a_prepared_run_goes_on_with_its_own_configuration(recipe: Path, tmp_path: Path) -> None:
    prepare(recipe, tmp_path, "--set", "run.seed=7")
    started = json.loads((tmp_path / "run" / "run.json").read_text())["started_at"]
    recipe.write_text("the recipe is edited meanwhile, and wrongly")
    assert prepare(recipe, tmp_path, "--set", "learner.lr=3e-4") == 0
    config = load_config(tmp_path / "run" / "config.json")
    assert (config.run.seed, config.learner.lr) == (7, 3e-4)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["started_at"] == started


def test_a_model_that_the_hub_does_not_give_is_one_line(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert prepare(recipe, tmp_path, "--set", "model.path=nobody/nothing") == 3
    words = capsys.readouterr().err.strip()
    assert words.startswith("chorus prepare: model.path nobody/nothing: the hub does not give it to us (")
    assert len(words.splitlines()) == 1
    assert not (tmp_path / "run" / "config.json").exists()
