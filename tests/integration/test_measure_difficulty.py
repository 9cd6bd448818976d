"""`chorus measure-difficulty` with real graders: pass rates that levels are made of, with and without hints."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from evaluating import Recited
from tinymodel import TEMPLATE

from chorus.cli.main import main
from chorus.learner.curriculum.sampler import Chosen
from chorus.learner.rollouts.admission import Admission
from chorus.problems.pass_rates import Measured, read_measured
from chorus.problems.rendering import load_tokenizer
from chorus.protocol.config.run import RunConfig
from chorus.protocol.runtime.exits import CANNOT_GO_ON

pytestmark = pytest.mark.usefixtures("inline_graders")
SOLUTION = "First look at the problem for a while. Then it is plain that the answer must be {}."


class Pupil:
    """Stands in for vLLM: solves problem k in k of its samples, all of them with a hint; counts what it is asked."""

    def __init__(self, model: Path) -> None:
        self.tokenizer = load_tokenizer(str(model))
        self.asked: list[str] = []

    async def generate(
        self, prompt: list[int], n: int, temperature: float, max_tokens: int, deadline_s: float, top_p: float = 1.0
    ) -> list[Recited]:
        text = self.tokenizer.decode(prompt)
        self.asked.append(text)
        k = int(re.findall(r"problem (\d+)", text)[-1])
        right = n if "## Hint." in text else k
        return [self.says(f"\\boxed{{{100 + k if i < right else 7}}}") for i in range(n)]

    def says(self, text: str) -> Recited:
        return Recited(self.tokenizer.encode(text, add_special_tokens=False))


@pytest.fixture
def pupil(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Pupil:
    engine = Pupil(tiny_model)

    @asynccontextmanager
    async def started(*_: Any) -> AsyncIterator[Pupil]:
        yield engine

    monkeypatch.setattr("chorus.cli.evaluate.eval.started_vllm", started)
    return engine


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    rows = [
        {"id": f"p{k}", "problem": f"This is problem {k}.", "answer": 100 + k, "solution": SOLUTION.format(100 + k)}
        for k in range(5)
    ]
    del rows[3]["solution"]
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def measure(model: Path, problems: Path, out: Path, *further: str) -> int:
    asked = ["measure-difficulty", str(model), "--problems", str(problems), "--samples", "4", "--name", "pupil"]
    return main([*asked, "--context", "2000", "--out", str(out), *further])


def test_pass_rates_are_measured_go_on_where_they_were_and_become_levels(
    pupil: Pupil, tiny_model: Path, problems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "rates.jsonl"
    assert measure(tiny_model, problems, out) == 0
    assert read_measured(out) == [
        Measured(id=f"p{k}", model="pupil", hint_ratio=0, samples=4, correct=k) for k in range(5)
    ]
    assert "5 problems, 0.500 of 20 samples right; 1 never solved, 3 in part, 1 always" in capsys.readouterr().out
    answers = tmp_path / "rates.jsonl.answers" / "answers.jsonl"
    answers.write_text("".join(answers.read_text().splitlines(keepends=True)[:3]))  # as a kill leaves it
    before, pupil.asked = out.read_bytes(), []
    assert measure(tiny_model, problems, out) == 0
    assert (len(pupil.asked), out.read_bytes()) == (2, before)
    assert main(["levels", "--small", str(out), "--medium", str(out), "--out", str(tmp_path / "levels.jsonl")]) == 0
    levels = [json.loads(line)["level"] for line in (tmp_path / "levels.jsonl").read_text().splitlines()]
    assert levels == [None, "L2", "L2", "L2", None]


def test_with_a_hint_it_is_said_and_problems_without_a_solution_are_left_out(
    pupil: Pupil, tiny_model: Path, problems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "hinted.jsonl"
    assert measure(tiny_model, problems, out, "--hint-ratio", "0.5") == 0
    assert [(m.id, m.hint_ratio, m.correct) for m in read_measured(out)] == [
        (f"p{k}", 0.5, 4) for k in (0, 1, 2, 4)
    ]  # fmt: skip
    half = SOLUTION.format(104)[: len(SOLUTION.format(104)) // 2]
    assert f"This is problem 4.\n\n## Hint.{half}" in next(text for text in pupil.asked if "problem 4" in text)
    assert "left out, because no hint can be given: 1 no solution" in capsys.readouterr().err
    assert measure(tiny_model, problems, out, "--hint-ratio", "0.25") == CANNOT_GO_ON
    assert "holds another evaluation" in capsys.readouterr().err


def stage_of(model: Path, problems: Path, rates: Path) -> Chosen:
    """What a stage takes that gives half of a solution, the answer included, and chooses by the measured rate."""
    stage = {"name": "half", "hint_ratio": 0.5, "pass_rate": {"high": 1.0}}
    hints = {"reject_if_answer_in_hint": False, "probe_share": 0.0}
    sections = {
        "model": {"path": str(model), "context": 2000},
        "problems": {"train": [str(problems)], "max_prompt_tokens": 900},
        "templates": {"names": [TEMPLATE]},
        "curriculum": {"pass_rates": [str(rates)], "hints": hints, "stages": [stage]},
        "sampling": {"max_tokens": 64},
    }
    return Admission(RunConfig.model_validate(sections), "run").stages.pools[0].chosen


def test_a_hint_with_the_answer_is_measured_where_the_recipe_gives_it_and_reaches_the_stage(
    pupil: Pupil, tiny_model: Path, problems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    told = {"id": "told", "problem": "This is problem 2.", "answer": 102, "solution": "It is 102, as one sees " * 2}
    problems.write_text(problems.read_text() + json.dumps(told) + "\n")
    out, allowing = tmp_path / "guarded.jsonl", tmp_path / "rates.jsonl"
    assert measure(tiny_model, problems, out, "--hint-ratio", "0.5") == 0
    said = capsys.readouterr().err
    assert "1 no solution, 1 answer in hint; --allow-answer-in-hint asks those with the answer in the hint" in said
    chosen = stage_of(tiny_model, problems, out)
    assert ([p.id for p in chosen.problems], chosen.left_out) == (["p0", "p1", "p2", "p4"], {"not_measured": 2})

    assert measure(tiny_model, problems, allowing, "--hint-ratio", "0.5", "--allow-answer-in-hint") == 0
    assert Measured(id="told", model="pupil", hint_ratio=0.5, samples=4, correct=4) in read_measured(allowing)
    chosen = stage_of(tiny_model, problems, allowing)
    assert [p.id for p in chosen.problems] == ["p0", "p1", "p2", "p4", "told"]
    assert (chosen.left_out, chosen.answer_in_hint) == ({"not_measured": 1}, 0.2)


def test_a_measurement_with_the_guard_does_not_go_on_without_it(
    pupil: Pupil, tiny_model: Path, problems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "rates.jsonl"
    assert measure(tiny_model, problems, out, "--hint-ratio", "0.5") == 0
    assert measure(tiny_model, problems, out, "--hint-ratio", "0.5", "--allow-answer-in-hint") == CANNOT_GO_ON
    assert "holds another evaluation (allow_answer_in_hint is True, there False)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("further", "named"),
    [
        (["--hint-ratio", "1"], "--hint-ratio 1: give a share of the solution, from 0 to below 1"),
        (["--hint-ratio", "0.99"], "--hint-ratio 0.99: no problem can be given such a hint"),
        (["--samples", "0"], "--samples 0: give at least 1"),
    ],
)
def test_what_cannot_be_measured_is_one_line_and_status_3(
    pupil: Pupil,
    tiny_model: Path,
    problems: Path,
    tmp_path: Path,
    further: list[str],
    named: str,
    capsys: pytest.CaptureFixture[str],
):
    assert measure(tiny_model, problems, tmp_path / "rates.jsonl", *further) == CANNOT_GO_ON
    assert named in capsys.readouterr().err
    assert not (tmp_path / "rates.jsonl").exists()
