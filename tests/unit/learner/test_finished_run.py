"""A learner that is started once more after its run's end: what a container's engine does at the next `up`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from learner.main import main
from protocol.exits import CannotGoOn

RECIPE = """
[run]
steps = 50
[model]
path = "any"
[problems]
train = ["any"]
[templates]
names = ["qwen-math"]
"""


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "summary.json").write_text(json.dumps({"steps": 50}))
    return ["--config", str(tmp_path / "recipe.toml"), "--run-id", "r", "--run-dir", str(tmp_path)]


def test_a_finished_run_that_is_resumed_ends_at_once_with_0(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--resume"]) == 0
    assert "all 50 steps are trained" in capsys.readouterr().out


def test_a_finished_run_with_more_steps_to_train_goes_on(arguments: list[str]) -> None:
    with pytest.raises(CannotGoOn, match=r"redis\.url is empty"):
        main([*arguments, "--resume", "--set", "run.steps=51"])


def test_without_resume_an_old_summary_does_not_count(arguments: list[str]) -> None:
    with pytest.raises(CannotGoOn, match=r"redis\.url is empty"):
        main(arguments)
