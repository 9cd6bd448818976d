"""A gold that is no answer is left out and counted; above a share the source is refused, with the likely mend."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from chorus.problems.adapters.golds import fault
from chorus.problems.sources import Refused, load_problems, load_source

DATA = Path(__file__).parents[4] / "shared" / "data"
MATRIX = "\\begin{pmatrix}\n1 & 0 \\\\\n0 & 1\n\\end{pmatrix}"


@pytest.mark.parametrize(
    ("gold", "reason"),
    [
        ("3*4 = <<3*4=12>>12\n#### 12", "worked solution"),
        ("12 apples #### 12", "worked solution"),
        ("She has <<3*4=12>>12", "worked solution"),
        ("We find that x is \\boxed{12}.", "worked solution"),
        ("first\nsecond", "several lines"),
        ("It rains. So the street is wet.", "more than a sentence"),
        ("First we add both numbers. Then $x = 4$.", "more than a sentence"),
        (" ".join(["word"] * 31), "more than a sentence"),
        ("notfound", "notfound"),
        ("Not found.", "notfound"),
        ("None", "notfound"),
        ("\\text{N/A}", "notfound"),
        ("proof", "proof"),
        ("$\\text{Proof.}$", "proof"),
        ("True", "true or false"),
        ("false", "true or false"),
        ("", "no answer"),
        ("$ $", "no answer"),
        ("\\boxed{}", "no answer"),
        ("...", "no answer"),
        ('["34"]', "a list"),
        ('{"inputs": ["1"]}', "an object"),
        ("\frac{1}{2}", "a control character"),
        ("2 \times 3", "a control character"),
    ],
)
def test_what_is_no_answer_is_named(gold: str, reason: str) -> None:
    assert fault(gold) == reason


@pytest.mark.parametrize(
    "gold",
    [
        "0",
        "-1",
        "x",
        "\\boxed{5}",
        "$\\boxed{\\text{no solution}}$",
        "1, 2",
        "[1, 2]",
        "\\emptyset",
        ">",
        "∞",
        MATRIX,
        "12 \\text{ red marbles}",
        "5 cm. wide",
        "3:45 p.m.",
        "x < 1 \\text{ or } x > 2",
        "Dr. Who",
        "U.S. dollars",
        "1,000",
        "f(x) = x^2 \\text{ for all real numbers } x \\text{ with } x > 0",
        "The blue whale is the largest animal.",
    ],
)
def test_what_may_be_an_answer_is_not(gold: str) -> None:
    assert fault(gold) is None


def test_of_kind_text_words_are_answers() -> None:
    assert [fault(gold, "text") for gold in ("True", "none", "proof", "", "{}")] == [
        None,
        None,
        None,
        "no answer",
        "no answer",
    ]


@pytest.mark.skipif(not DATA.is_dir(), reason="the public sets are not beside the repository")
def test_of_public_sets_of_good_golds_nothing_is_left_out() -> None:
    for name in ("eval_math500", "eval_minerva", "eval_olympiad", "eval_amc"):
        loaded = load_source(f"{DATA}/{name}.jsonl.gz")
        assert (loaded.rows, dict(loaded.unusable)) == (len(loaded.placed), {})


def rows(path: Path, *golds: Any, **more: Any) -> str:
    lines = [json.dumps({"problem": f"p{n}", "answer": gold} | more) + "\n" for n, gold in enumerate(golds)]
    path.write_text("".join(lines))
    return str(path)


def test_up_to_a_tenth_is_left_out_counted_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = rows(tmp_path / "set.jsonl", *["1"] * 17, "proof", None, *["2"])
    with caplog.at_level(logging.WARNING):
        loaded = load_source(spec)
    assert (loaded.rows, len(loaded.placed), dict(loaded.unusable)) == (20, 18, {"proof": 1, "no answer": 1})
    assert "left out: 2 of 20 rows can't be used (1 proof, 1 no answer): " in caplog.text
    assert f"{spec}:18: the gold 'proof' is a proof" in caplog.text


def test_above_a_tenth_the_source_is_refused_with_three_places_and_may_still_be_taken(tmp_path: Path) -> None:
    spec = rows(tmp_path / "set.jsonl", *["1"] * 14, "", "$", "", None, ".", "2")
    with pytest.raises(Refused, match=r"5 of 20 rows can't be used \(5 no answer\)") as caught:
        load_problems(spec)
    said = str(caught.value)
    assert "\n" not in said
    assert [f"set.jsonl:{n}" in said for n in (15, 16, 17, 18)] == [True, True, True, False]
    assert said.endswith("leave them out with `unusable=0.25`, or mend the rows")
    assert len(load_problems(f"{spec}?unusable=0.25")) == 15
    assert (caught.value.loaded.rows, dict(caught.value.loaded.unusable)) == (20, {"no answer": 5})


def test_a_silent_gold_is_refused_with_the_option_that_reads_it(tmp_path: Path) -> None:
    spec = rows(tmp_path / "gsm8k.jsonl", *[f"{n}+1 = <<{n}+1={n + 1}>>{n + 1}\n#### {n + 1}" for n in range(4)])
    with pytest.raises(Refused, match="4 worked solution") as caught:
        load_problems(spec)
    assert "these look like worked solutions: add `?answer=answer|after:####`" in str(caught.value)
    assert [p.answers for p in load_problems(f"{spec}?answer=answer|after:####")] == [["1"], ["2"], ["3"], ["4"]]


@pytest.mark.parametrize(
    ("gold", "mend"),
    [
        ("A long way.\nThe answer is: 7", "add `?answer=answer|after:The answer is:`"),
        ("<think>Is it? It may be.</think>\n7", "add `?answer=answer|after:</think>`"),
        (True, "add `?kind=text`"),
        ("['1', '2']", "`|joined` where all are needed"),
        ("notfound", "add `?where=answer!=notfound`"),
    ],
)
def test_the_likely_mend_follows_from_the_golds(gold: Any, mend: str, tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        load_problems(rows(tmp_path / "set.jsonl", gold, gold))
    assert mend in str(caught.value)


def test_a_source_of_which_nothing_can_be_used_is_not_read_to_its_end(tmp_path: Path) -> None:
    spec = rows(tmp_path / "set.jsonl", *["proof"] * 1500, "1")
    with pytest.raises(Refused, match="1,000 of 1,000 rows"):
        load_problems(spec)


def test_golds_of_a_kind_that_is_not_ours_are_not_judged(tmp_path: Path) -> None:
    from chorus.protocol.graders import RowNeeds

    spec = rows(tmp_path / "set.jsonl", "proof. And more.\nAnd more.", kind="essay")
    assert load_problems(spec, RowNeeds({"essay": ()}))[0].answers == ["proof. And more.\nAnd more."]
