"""Synthetic critiques: what a verdict says is so, whatever wrote it down."""

from __future__ import annotations

import re
from itertools import accumulate
from pathlib import Path

import pytest

from chorus.problems.critiques import load_critiques, verdict_of


def test_synthetic_critiques_are_of_one_problem_and_their_verdicts_are_true() -> None:
    found = load_critiques("critiques:running?samples=300&seed=3")
    assert len(found) == 300
    assert len({c.problem for c in found}) == 1
    start, *rest = re.findall(r"[+-]? ?\d+", found[0].problem)
    totals = list(accumulate([int(start), *(int(digit.replace(" ", "")) for digit in rest)]))[1:]
    answer = f"\\boxed{{({', '.join(map(str, totals))})}}"
    for c in found:
        assert (answer in c.candidate) == (c.verdict == "right")
        assert verdict_of(c.critique) == c.verdict
        assert (answer in c.critique) == (c.verdict == "wrong"), "the right answer, where the candidate's is wrong"
        corrected = [line.rpartition(" ok")[0] or line.partition(" no, ")[2] for line in c.critique.splitlines()[:8]]
        assert [int(line.rpartition(" = ")[2]) for line in corrected] == totals
    assert len({c.verdict for c in found}) == 2
    assert len({c.candidate for c in found}) > 100
    assert len({c.generator for c in found}) == 10
    assert {c.generator for c in load_critiques("critiques:running?samples=20&generators=1")} == {"habit 0.8"}
    assert found == load_critiques("critiques:running?samples=300&seed=3")


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Verdict: right", "right"),
        ("...\nVerdict: **Wrong**.\n", "wrong"),
        ("...\nConclusion: incorrect", "wrong"),
        ("correct", "right"),
        ("Verdict: right\nor so", None),
        ("It is not wrong", None),
        ("", None),
    ],
)
def test_a_verdict_is_the_last_line_alone(text: str, verdict: str | None) -> None:
    assert verdict_of(text) == verdict


@pytest.mark.parametrize("source", ["critiques:chain", "critiques:running?samples=0", "critiques:running?x=1"])
def test_unknown_sources_are_refused(source: str) -> None:
    with pytest.raises(ValueError, match="use "):
        load_critiques(source)


def test_a_line_whose_verdict_is_not_its_critiques_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"problem": "p", "candidate": "c", "critique": "Verdict: right", "verdict": "wrong"}\n')
    with pytest.raises(ValueError, match=r"c.jsonl:1: its critique says right, its verdict 'wrong'"):
        load_critiques(str(path))
