"""`chorus doctor`: over a run's folder, and over a recipe that it tries first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from storedrun import grade, group, run_folder
from tinymodel import TEMPLATE

from chorus.cli.main import main
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Rollout

RECIPE = """
[model]
path = "{model}"
context = 512
[problems]
train = ["arithmetic:chain?max=4&split=train"]
heldout = ["arithmetic:chain?max=4&split=heldout"]
max_prompt_tokens = 128
[templates]
names = ["qwen-math"]
[sampling]
group_size = 2
max_tokens = 64
[learner]
groups_per_step = 3
[evaluation]
problems = 5
every = 10
"""


def config_of(model: Path) -> RunConfig:
    return RunConfig.model_validate(
        {
            "model": {"path": str(model), "context": 512},
            "problems": {"train": ["any"], "max_prompt_tokens": 128},
            "templates": {"names": [TEMPLATE]},
            "sampling": {"group_size": 2, "max_tokens": 64},
        }
    )


def steps_of(right: tuple[float, float], steps: int = 4) -> list[list[Rollout]]:
    """Ten groups a step; each has two answers."""
    answers = list(zip(([5, 6], [7, 8, 9]), map(grade, right), strict=True))
    return [[group(n, TEMPLATE, answers) for n in range(10)] for _ in range(steps)]


def stored(folder: Path, model: Path, steps: list[list[Rollout]]) -> Path:
    run_folder(folder, config_of(model), steps)
    facts = {"seconds": 2.0, "memory_peak": 2**30, "memory_limit": 4 * 2**30, "zero_spread": 0.25, "steps": 30}
    lines = [json.dumps({"step": n + 1, **facts}) + "\n" for n in range(len(steps))]
    (folder / "metrics.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stored groups' prompts are one token, which says nothing of a tokenizer."""
    monkeypatch.setattr("chorus.learner.metrics.doctor.tokens.oddities", lambda *_: iter(()))


@pytest.mark.usefixtures("prompts")
def test_a_run_that_can_learn_gets_its_tokens_its_figures_and_no_finding(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = stored(tmp_path / "run", tiny_model, steps_of((1.0, 0.0)))
    assert main(["doctor", str(run)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{run}: 30 groups of 2 samples, 3 steps\n\ntokens under qwen-math, as the model sees")
    assert "    answer             " in said
    assert ":5 " in said
    assert "answers  2 of 64 tokens on average; 0% cut off, 0% without an answer, 0% without a grade, 50% right" in said
    assert "time     2.0 s for the quickest step; 100 steps: 3.3 min" in said
    assert "memory   learner 1.0 of 4.0 GiB; foreseen were 0." in said
    assert said.endswith("nothing was found that would keep it from learning\n")


@pytest.mark.usefixtures("prompts")
def test_what_is_found_is_a_line_each_or_json_and_an_exit_status(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = stored(tmp_path / "run", tiny_model, steps_of((0.0, 0.0)))
    assert main(["doctor", str(run)]) == 1
    assert "\nall_wrong: 100% of 30 groups have one reward for all samples" in capsys.readouterr().out
    assert main(["doctor", str(run), "--json", "--steps", "1"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["run"] == str(run)
    assert [finding["name"] for finding in told["findings"]] == ["all_wrong"]
    assert "100% of 10 groups" in told["findings"][0]["text"]


def test_a_run_without_a_step_is_refused(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = stored(tmp_path / "run", tiny_model, [])
    assert main(["doctor", str(run)]) == 3
    assert "it has no rollouts of its first 3 steps yet" in capsys.readouterr().err


@pytest.mark.usefixtures("prompts")
def test_a_recipe_is_tried_for_as_many_steps_as_a_judgement_needs_and_without_evaluations(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "my.toml"
    recipe.write_text(RECIPE.format(model=tiny_model))
    tried: list[RunConfig] = []

    def run(config: RunConfig, recipe: str, *, made: Path) -> int:
        tried.append(config)
        stored(made, tiny_model, steps_of((0.0, 0.0), config.run.steps))
        return 0

    monkeypatch.setattr("chorus.deploy.launcher.run", run)
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", str(recipe), "--set", "learner.lr=2e-6", "--set", "run.steps=50"]) == 1
    [config] = tried
    assert (config.run.steps, config.run.name, config.learner.lr) == (3, "doctor-my", 2e-6)
    assert (config.evaluation.problems, config.evaluation.every, config.trackers.tensorboard) == (0, 0, False)
    said = capsys.readouterr().out
    assert "all_wrong: 100% of 30 groups" in said
    assert "; 50 steps: 1.7 min at that pace" in said


def test_a_try_that_fails_before_its_first_step_says_where_its_logs_are(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "my.toml"
    recipe.write_text(RECIPE.format(model=tiny_model))
    fails: Any = lambda config, recipe, *, made: 3  # noqa: E731
    monkeypatch.setattr("chorus.deploy.launcher.run", fails)
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", str(recipe)]) == 3
    assert "chorus doctor: the try ended with status 3; its logs are in runs/doctor-my-" in capsys.readouterr().err
