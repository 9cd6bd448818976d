"""`chorus critique`: which critiques are kept, with the grader's own verdicts on candidates from a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chorus.cli.data import critique
from chorus.cli.data.critique import Candidate, filtered
from chorus.problems.critiques import load_critiques
from chorus.protocol.messages import Problem
from chorus.protocol.runtime.exits import CannotGoOn

PROBLEM = Problem(id="p", problem="What is 3 + 4?", answers=["7"])
CANDIDATES = [Candidate("\\boxed{7}", "a", "right"), Candidate("\\boxed{8}", "b", "wrong"), Candidate("?", "b", None)]


def row(candidate: str, critique: str, teacher: str = "t") -> dict[str, str]:
    return {"candidate": candidate, "critique": critique, "teacher": teacher}


def test_only_critiques_that_agree_with_the_grader_are_kept() -> None:
    written = [
        row("\\boxed{7}", "3 + 4 = 7.\nVerdict: right"),
        row("\\boxed{7}", "No.\nVerdict: wrong"),
        row("\\boxed{8}", "It is \\boxed{7}.\nConclusion: **incorrect**"),
        row("\\boxed{8}", "It is wrong, I think."),
        row("?", "Verdict: wrong"),
        row("never seen", "Verdict: wrong"),
    ]
    kept, left_out = filtered(PROBLEM, CANDIDATES, written, keep=600)
    assert [(c.candidate, c.verdict, c.generator, c.teacher) for c in kept] == [
        ("\\boxed{7}", "right", "a", "t"),
        ("\\boxed{8}", "wrong", "b", "t"),
    ]
    assert dict(left_out) == {
        "at odds with the grader": 1,
        "without a verdict in the last line": 1,
        "of a candidate that could not be graded": 1,
        "of an unknown candidate": 1,
    }


def test_of_too_many_the_longest_and_the_shortest_go() -> None:
    written = [row("\\boxed{7}", f"{'x' * n}\nVerdict: right") for n in (5, 1, 9, 3, 7, 2)]
    kept, left_out = filtered(PROBLEM, CANDIDATES, written, keep=3)
    assert [len(c.critique.splitlines()[0]) for c in kept] == [5, 3, 2], "in their order; 1, and 7 and 9, are out"
    assert left_out["among the longest and the shortest"] == 3


def lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_file_of_critiques_is_graded_filtered_and_can_be_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], inline_graders: None
) -> None:
    problems = lines(tmp_path / "p.jsonl", [{"id": "p", "problem": "What is 3 + 4?", "answer": "7"}])
    written = [
        row("so \\boxed{7}", "Verdict: right"),
        row("so \\boxed{8}", "It is \\boxed{7}.\nVerdict: wrong", "u"),
        row("so \\boxed{8}", "Verdict: right", "u"),
    ]
    out = tmp_path / "critiques.jsonl"
    asked = ["--problems", problems, "--critiques", lines(tmp_path / "w.jsonl", written), "--out", str(out)]
    assert critique.main(asked) == 0
    assert [(c.candidate, c.verdict) for c in load_critiques(str(out))] == [
        ("so \\boxed{7}", "right"),
        ("so \\boxed{8}", "wrong"),
    ]
    told = capsys.readouterr().out
    assert "2 critiques of 2 candidates, 1 of them right" in told
    assert "of the verdicts 0.667 agree with the grader" in told


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--critiques", "w.jsonl", "--teachers", "m"], "give --teachers, whose critiques are sampled, or --critiques"),
        (["--teachers", "m"], "give --generators, whose candidates are sampled, or --candidates"),
        (["--critiques", "w.jsonl"], "2 problems, and one is to be critiqued: name it with --id"),
        (["--critiques", "w.jsonl", "--id", "q"], "0 problems of the id 'q'"),
        (["--critiques", "bad.jsonl", "--id", "a"], r"bad.jsonl:1: no `candidate` and `critique` as texts"),
    ],
)
def test_what_can_not_be_done_is_said(
    arguments: list[str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines(tmp_path / "p.jsonl", [{"id": id, "problem": f"{id}?", "answer": "7"} for id in "ab"])
    lines(tmp_path / "bad.jsonl", [{"critique": "Verdict: right"}])
    lines(tmp_path / "w.jsonl", [])
    with pytest.raises(CannotGoOn, match=why):
        critique.main(["--problems", "p.jsonl", "--out", "out.jsonl", *arguments])
