"""`chorus regrade`: a finished run's rollouts under today's rules, without Redis, with what changed and why."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from storedrun import grade, group, run_folder

from chorus.cli.main import main
from chorus.problems.rendering import load_tokenizer
from chorus.protocol.config.load import load_config
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Rollout
from chorus.protocol.run_folder.rollouts import read_step
from chorus.protocol.runtime.exits import CANNOT_GO_ON

pytestmark = pytest.mark.usefixtures("inline_graders")
RIGHT, WRONG = "3 + 4 = 7, so \\boxed{7}", "3 + 4 = 8, so \\boxed{8}"
FORMED = "<think>x</think> <answer>\\boxed{7}</answer>"


def config(model: Path) -> RunConfig:
    sections = {
        "model": {"path": str(model)},
        "problems": {"train": ["any"]},
        "templates": {"names": ["qwen-math", "deepseek-r1"]},
    }
    return RunConfig.model_validate(sections)


@pytest.fixture
def run(tiny_model: Path, tmp_path: Path) -> Path:
    """Two steps; of six samples one had the wrong verdict, one the wrong format score, and one no grade."""
    tokenizer = load_tokenizer(str(tiny_model))

    def ids(text: str) -> list[int]:
        return [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]

    first = group(
        0,
        "qwen-math",
        [
            (ids(RIGHT), grade(1.0, extracted="7")),
            (ids(WRONG), grade(1.0, extracted="8")),
            (ids(WRONG), grade(0.0, extracted="8")),
        ],
        gold="7",
    )
    second = group(
        1,
        "deepseek-r1",
        [
            (ids(FORMED), grade(1.0, format=0.25, extracted="7")),
            (ids(FORMED), grade(1.0, extracted="7")),
            (ids("9" * 9), grade(None, format=0.0, verdict="timeout")),
        ],
        gold="7",
    )
    return run_folder(tmp_path / "run", config(tiny_model), [[first], [second]])


def test_what_changed_is_counted_and_explained(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert main(["regrade", str(run), "--workers", "1", "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert (outcome["samples"], outcome["changed"]) == (6, 3)
    assert outcome["kinds"] == {"correct -> wrong": 1, "format score": 1, "timeout -> wrong": 1}
    assert outcome["templates"] == {"deepseek-r1": 2, "qwen-math": 1}
    # Additive: then 2, 2, 1, 1.25, 2 over the five with a grade; now 2, 1, 1, 2, 2.
    assert outcome["reward"] == {"then": pytest.approx(8.25 / 5), "now": pytest.approx(8 / 5)}
    wrong, formed, _ = outcome["examples"]
    assert (wrong["step"], wrong["index"], wrong["problem"]) == (1, 0, "math/0")
    assert (wrong["then"]["verdict"], wrong["now"]["verdict"], wrong["now"]["extracted"]) == ("correct", "wrong", "8")
    assert wrong["completion"] == WRONG
    assert wrong["why"].startswith("7: ")
    assert (formed["then"]["format"], formed["now"]["format"], formed["why"]) == (0.25, 1.0, "every marker once")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_steps_can_be_chosen_and_the_text_says_it_for_people(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["regrade", str(run), "--workers", "1", "--steps", "1:1"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{run}: 3 samples graded again, 1 changed; mean reward 1.6667 then, 1.3333 now\n")
    assert "step 1, group 0 (math/0, qwen-math): correct -> wrong" in out
    assert "answer    '8' then, '8' now" in out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nowhere"], "nowhere: there is no config.json in it; give the folder of a run"),
        (["RUN", "--steps", "7:"], "no stored rollouts in steps 7:"),
        (["RUN", "--steps", "a:b"], "--steps a:b: give FIRST:LAST"),
    ],
)
def test_what_cannot_be_regraded_is_said_in_one_line(
    run: Path, arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["regrade", *(str(run) if a == "RUN" else a for a in arguments)]) == CANNOT_GO_ON
    assert reason in capsys.readouterr().err


def test_a_group_that_cannot_be_graded_today_is_an_error_and_not_wrong(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "rollouts" / "step-000002.parquet"
    [stored] = read_step(path)
    gone = under(stored, "gone")
    both = run_folder(run.parent / "both", load_config(run / "config.json"), [[stored, gone]])
    assert main(["regrade", str(both), "--workers", "1", "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["kinds"] == {"correct -> error": 2, "format score": 1, "timeout -> wrong": 1, "timeout -> error": 1}
    assert outcome["reward"]["then"] == pytest.approx(3.25 / 2)
    assert any("unknown template 'gone'" in example["why"] for example in outcome["examples"])
    alone = run_folder(run.parent / "alone", load_config(run / "config.json"), [[gone]])
    assert main(["regrade", str(alone), "--workers", "1"]) == CANNOT_GO_ON
    assert "unknown template 'gone'" in capsys.readouterr().err


def under(ready: Rollout, template: str) -> Rollout:
    task = ready.group.task.model_copy(update={"template": template})
    group = ready.group.model_copy(update={"task": task})
    return Rollout(replace(ready.entry, payload=group.encode()), group)


def test_rollouts_that_cannot_be_read_are_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "rollouts" / "step-000002.parquet"
    path.write_bytes(path.read_bytes()[:20])
    assert main(["regrade", str(run), "--workers", "1", "--steps", "2"]) == CANNOT_GO_ON
    assert "step-000002.parquet: can't be read" in capsys.readouterr().err


def test_what_the_second_opinion_disputes_is_counted_and_listed(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = load_tokenizer(str(tiny_model))
    ids = [*tokenizer.encode(RIGHT, add_special_tokens=False), tokenizer.eos_token_id]
    opinions = [("correct", 1.0), ("wrong", 0.0), ("timeout", None)]  # the last one has none
    samples = [
        (ids, grade(1.0, extracted="7", shadow={"grader": "math-verify", "verdict": verdict, "accuracy": accuracy}))
        for verdict, accuracy in opinions
    ]
    rollout = group(0, "qwen-math", [*samples, (ids, grade(1.0, extracted="7"))], gold="7")
    folder = run_folder(tmp_path / "run", config(tiny_model), [[rollout]])
    assert main(["regrade", str(folder), "--workers", "1", "--json"]) == 0
    shadow = json.loads(capsys.readouterr().out)["shadow"]
    assert (shadow["samples"], shadow["disagree"]) == (2, 1)
    assert shadow["by"] == {"math under qwen-math": {"samples": 2, "disagree": 1}}
    [dispute] = shadow["examples"]
    assert (dispute["step"], dispute["problem"], dispute["gold"]) == (1, "math/0", ["7"])
    assert (dispute["grade"]["verdict"], dispute["shadow"]["verdict"]) == ("correct", "wrong")
    assert dispute["completion"] == RIGHT
    assert main(["regrade", str(folder), "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert "second opinion: 2 samples had one, 1 disagree\n       1 of 2  math under qwen-math" in out
    assert "step 1, group 0 (math/0, qwen-math): correct, math-verify says wrong" in out


def test_rewards_are_composed_with_the_gates_that_the_step_had(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All answers are right; of those in the step whose gate was open the longer one loses what the others gain."""
    tokenizer = load_tokenizer(str(tiny_model))

    def ids(text: str) -> list[int]:
        return [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]

    short_one, long_one = ((ids(text), grade(1.0, extracted="7")) for text in ("\\boxed{7}", RIGHT))
    answers = [short_one, short_one, long_one]
    steps = [[group(n, "qwen-math", answers, gold="7")] for n in range(2)]
    short = {"compose": "accuracy_only", "short": {"tolerance_tokens": 0}}
    run = run_folder(
        tmp_path / "run", RunConfig.model_validate({**config(tiny_model).model_dump(), "reward": short}), steps
    )
    (run / "metrics.jsonl").write_text('{"step": 1, "short_gate": 1}\n{"step": 2, "short_gate": 0}\n')
    for chosen, mean in (("1", (1.5 + 1.5 + 0.5) / 3), ("2", 1.0)):
        assert main(["regrade", str(run), "--workers", "1", "--json", "--steps", chosen]) == 0
        outcome = json.loads(capsys.readouterr().out)
        assert outcome["reward"] == {"then": pytest.approx(mean, abs=1e-5), "now": pytest.approx(mean, abs=1e-5)}
