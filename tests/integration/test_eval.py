"""`chorus eval` with real graders, and a run that validates while it trains. With vLLM: test_vllm.py."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from evaluating import Recited
from liverun import ROOT, LiveRun, end_run
from scripted_run import RECIPE
from scriptedlive import SUPPORT, environment

from chorus.cli.main import main
from chorus.problems.rendering import load_tokenizer
from chorus.protocol.run_folder.checkpoints import Manifest, write_manifest
from chorus.protocol.run_folder.files import read_lines
from chorus.protocol.runtime.exits import CANNOT_GO_ON

SOURCE = "arithmetic:chain?split=heldout"


class Calculator:
    """Stands in for vLLM: works the sums out, and slips at every third."""

    def __init__(self, model: Path) -> None:
        self.tokenizer = load_tokenizer(str(model))
        self.asked = 0
        self.sampling: set[tuple[float, float]] = set()  # temperature, top-p

    async def generate(
        self, prompt: list[int], n: int, temperature: float, max_tokens: int, deadline_s: float, top_p: float = 1.0
    ) -> list[Recited]:
        a, b, c = map(int, re.findall(r"(\d+) \+ (\d+) - (\d+)", self.tokenizer.decode(prompt))[-1])
        self.asked += 1
        self.sampling.add((temperature, top_p))
        slip = self.asked % 3 == 0
        text = f"{a} + {b} - {c} = \\boxed{{{a + b - c + slip}}}"
        return [Recited(self.tokenizer.encode(text, add_special_tokens=False))] * n


@pytest.fixture
def calculator(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Calculator:
    engine = Calculator(tiny_model)

    @asynccontextmanager
    async def started(*_: Any) -> AsyncIterator[Calculator]:
        yield engine

    monkeypatch.setattr("chorus.cli.evaluate.eval.started_vllm", started)
    return engine


def test_an_evaluation_is_graded_strictly_goes_on_and_refuses_another_question(
    calculator: Calculator, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    asked = ["eval", str(tiny_model), "--problems", SOURCE, "--limit", "6", "--runs", "2", "--context", "2000"]
    assert main([*asked, "--out", str(out)]) == 0
    assert "| chain | 6 | 0.667 (" in capsys.readouterr().out
    lines = (out / "answers.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == 12
    (out / "answers.jsonl").write_text("".join(lines[:7]) + lines[7][:20])  # as a kill leaves it
    calculator.asked = 0
    assert main([*asked, "--out", str(out)]) == 0
    assert calculator.asked == 5
    calculator.asked = 0
    assert main([*asked, "--out", str(out)]) == 0  # all is there: nothing is asked
    assert calculator.asked == 0
    assert main([*asked, "--out", str(out), "--max-tokens", "9"]) == CANNOT_GO_ON
    assert "holds another evaluation (max_tokens is 9, there 3000)" in capsys.readouterr().err


@pytest.mark.usefixtures("inline_graders")
def test_sampled_answers_are_clustered_by_the_verifiers_equality(
    calculator: Calculator, tiny_model: Path, tmp_path: Path
) -> None:
    asked = ["eval", str(tiny_model), "--problems", SOURCE, "--limit", "3", "--samples", "4", "--context", "2000"]
    assert main([*asked, "--out", str(tmp_path)]) == 0
    b = json.loads((tmp_path / "summary.json").read_text())["benchmarks"]["chain"]
    assert b["maj_at"]["4"] == b["pass_at"]["4"] == pytest.approx(2 / 3)
    assert {tuple(r["clusters"]) for r in read_lines(tmp_path / "answers.jsonl")} == {(0, 0, 0, 0)}


@pytest.mark.usefixtures("inline_graders")
def test_sampled_answers_are_drawn_at_the_top_p_that_is_asked_for_and_greedy_ones_know_none(
    calculator: Calculator, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["eval", str(tiny_model), "--problems", SOURCE, "--limit", "1", "--context", "2000", "--top-p", "0.95"]
    sampled = [*asked, "--samples", "2", "--temperature", "0.7", "--out", str(tmp_path / "sampled")]
    assert main(sampled) == 0
    assert main([*asked, "--runs", "1", "--out", str(tmp_path / "greedy")]) == 0
    assert calculator.sampling == {(0.7, 0.95), (0.0, 1.0)}
    assert main([*sampled, "--top-p", "1"]) == CANNOT_GO_ON
    assert "holds another evaluation (top_p is 1.0, there 0.95)" in capsys.readouterr().err


@pytest.mark.parametrize("share", ["0", "-0.1", "1.01", "nan"])
def test_a_top_p_that_is_no_share_is_one_line_and_status_3(
    tiny_model: Path, tmp_path: Path, share: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["eval", str(tiny_model), "--problems", SOURCE, "--samples", "2", "--out", str(tmp_path / "out")]
    assert main([*asked, f"--top-p={share}"]) == CANNOT_GO_ON
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--top-p {share}: give the share of the probability to draw from, above 0 and at most 1" in line
    assert not (tmp_path / "out").exists()


@pytest.fixture
def trained(tiny_model: Path, tmp_path: Path) -> Path:
    """The folder of a run that has ended, with the weights of its steps 20, 40 and 60, of which validation chose 40."""
    run = tmp_path / "runs" / "mine"
    config = {
        "model": {"path": str(tiny_model), "context": 2000, "dtype": "float32"},
        "problems": {"train": [SOURCE], "max_prompt_tokens": 100},
        "templates": {"names": ["qwen-math"]},
        "sampling": {"max_tokens": 100},
        "run": {"steps": 60, "name": "mine"},
    }
    for step in (20, 40, 60):
        folder = run / "checkpoints" / f"step-{step:06d}"
        folder.mkdir(parents=True)
        (folder / "huggingface").symlink_to(tiny_model)
        write_manifest(folder, Manifest(step, 1, {}))
    for name, value in (("config", config), ("run", {}), ("selected", {"step": 40})):
        (run / f"{name}.json").write_text(json.dumps(value))
    return run


@pytest.mark.usefixtures("inline_graders")
def test_every_checkpoint_is_scored_once_and_the_last_the_selected_and_the_best_are_marked(
    calculator: Calculator, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["eval", str(trained), "--checkpoint", "all", "--problems", SOURCE, "--limit", "4", "--runs", "1"]
    assert main(asked) == 0
    assert calculator.asked == 12
    said = capsys.readouterr().out
    assert "chain has 4 problems: one is 25.0 points" in said
    rows = [line.split("|") for line in said.splitlines() if re.match(r"\| \d", line)]
    told = {row[1].strip(): row[-2].strip() for row in rows}
    assert set(told) == {"20", "40", "60"}
    # It slips at every third question: of 1-4 at the third, of 5-8 at the sixth, of 9-12 at the ninth and the twelfth.
    assert [row[2].strip() for row in rows] == ["0.750", "0.750", "0.500"]
    assert told["20"] == "best of 3 on these very problems: optimistic, not a result"
    assert (told["40"], told["60"]) == ("selected on validation", "last")

    answers = trained / "evals" / "chain-greedy-1-first-4-step-000040" / "answers.jsonl"
    lines = answers.read_text().splitlines(keepends=True)
    answers.write_text("".join(lines[:3]))
    assert main(asked) == 0
    assert calculator.asked == 13  # the one that was lost
    assert main([*asked, "--out", str(tmp_path / "x")]) == CANNOT_GO_ON
    assert "--out is for one checkpoint" in capsys.readouterr().err


@pytest.mark.usefixtures("inline_graders")
def test_an_export_that_was_made_smaller_since_is_not_scored_again(
    calculator: Calculator, trained: Path, tiny_model: Path
) -> None:
    asked = ["eval", str(trained), "--checkpoint", "20", "--problems", SOURCE, "--limit", "2", "--runs", "1"]
    assert main(asked) == 0
    export = trained / "checkpoints" / "step-000020" / "huggingface"
    export.unlink()
    shutil.copytree(tiny_model, export)
    (export / "model.safetensors").touch()
    calculator.asked = 0
    assert main(asked) == 0
    assert calculator.asked == 0


@pytest.fixture
def validating(tiny_model: Path, tmp_path: Path) -> Iterator[LiveRun]:
    """A run of scripted engines that validates every 2 of its 7 steps and keeps one checkpoint."""
    runs = tmp_path / "runs"
    runs.mkdir()
    text = RECIPE.format(runs=runs, steps=7, model=tiny_model, replicas=1)
    text = text.replace("keep_checkpoints = 3", "keep_checkpoints = 1").replace(
        "max_prompt_tokens = 80", f'max_prompt_tokens = 80\nheldout = ["{SOURCE}"]'
    )
    recipe = tmp_path / "scripted.toml"
    text += "[evaluation]\nevery = 2\nvalidation_problems = 4\nsamples = 2\n"
    # No alarm: the checkpoint from before one would be kept, too.
    recipe.write_text(text + "[alarms]\nclip_fraction = 0.0\neffective_share = 0.0\nentropy_floor = 0.0\n")
    output = runs / "output.log"
    with output.open("wb") as log:
        argv = [sys.executable, str(SUPPORT / "scripted_run.py"), str(recipe)]
        process = subprocess.Popen(argv, cwd=ROOT, stdout=log, stderr=log, env=environment(0.2))
    run = LiveRun(process, runs, output)
    yield run
    end_run(run)


@pytest.mark.slow
def test_a_run_answers_for_an_evaluation_validates_and_keeps_the_checkpoint_that_it_selects(
    validating: LiveRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _evaluated_by_its_generators(validating, tmp_path)
    assert validating.finish() == 0, validating.tail()
    records = read_lines(validating.folder / "validation.jsonl")
    assert [r["step"] for r in records] == [2, 4, 6, 7]
    assert {(r["problems"], r["samples"], r["template"]) for r in records} == {(4, 2, "qwen-math")}
    best = max(records, key=lambda r: (r["accuracy"], -r["step"]))
    summary = validating.summary()
    assert summary["validation"]["selected"] == best
    assert summary["validation"]["last"] == records[-1]
    weights = {p.parent.name for p in validating.folder.glob("checkpoints/*/huggingface")}
    assert weights == {f"step-{best['step']:06d}", "step-000007"}
    ledger = summary["ledger"]
    assert ledger["trained"] == 7 * 4  # the groups of validation and evaluation are in no book of the training
    assert ledger["admitted"] == ledger["trained"] + sum(ledger["dropped"].values()) + ledger["outstanding"]
    assert main(["report", str(validating.folder), "--out", str(tmp_path / "report")]) == 0
    assert f"{best['accuracy']:.3f} (step {best['step']})" in (tmp_path / "report" / "report.md").read_text()
    assert main(["eval", str(validating.folder), "--checkpoint", "3", "--problems", SOURCE]) == CANNOT_GO_ON
    assert "has no weights of step 3; there are those of" in capsys.readouterr().err


def _evaluated_by_its_generators(run: LiveRun, folder: Path) -> None:
    """`chorus eval --running` while the learner stands still, between two of its own evaluations."""
    run.until(lambda: any(run.runs.glob("*/run.json")), "folder")
    run.wait_step(1)
    (learner,) = run.processes("learner")
    for attempt in range(20):
        learner.suspend()
        time.sleep(1.0)  # weights that were on their way have arrived
        try:
            out = folder / f"running-{attempt}"
            asked = ["--running", "--problems", SOURCE, "--limit", "5", "--runs", "1", "--out", str(out)]
            if main(["eval", str(run.folder), *asked]) == 0:
                break
        finally:
            learner.resume()
        time.sleep(0.2)  # weights were on their way, or the learner was evaluating: let it go on a little
    spec = json.loads((out / "eval.json").read_text())
    assert spec["weights"].endswith(f".{spec['step']}")
    assert len(read_lines(out / "answers.jsonl")) == 5
