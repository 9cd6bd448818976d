"""The figures of an evaluation, recounted by hand from a few answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluating import Recited, Reciter, TextGrading, decode, questions, spec

from chorus.evaluation.records import Spec, Store
from chorus.evaluation.runner import Question, answer_all
from chorus.evaluation.summary import summarize, table

NO_ANSWER, BROKEN = 100, 101


async def answered(folder: Path, what: Spec, asked: list[Question], engine: Reciter) -> None:
    with Store(folder, what) as store:
        await answer_all(what, asked, store, engine, TextGrading(), decode, 1, 10.0, lambda _: None)


@pytest.fixture
async def sampled(tmp_path: Path) -> Path:
    """Three problems, four samples each: 4 right; 1 right, 2 of one wrong answer; none right, cut off, failed."""
    replies = {
        0: [Recited([5, 0])] * 4,
        1: [Recited([1]), Recited([9]), Recited([9]), Recited([8])],
        2: [Recited([NO_ANSWER]), Recited([3, 3, 3], "length"), Recited([BROKEN]), Recited([4])],
    }
    what = spec(decoding="sampled", n=4, temperature=1.0)
    await answered(tmp_path, what, questions(3, levels=2), Reciter(lambda i, n: replies[i]))
    return tmp_path


async def test_sampled_answers_give_avg_pass_and_majority(sampled: Path) -> None:
    b = summarize(sampled)["benchmarks"]["sums"]
    assert b["accuracy"] == pytest.approx((4 + 1 + 0) / 12)
    assert b["pass_at"] == {"1": pytest.approx(5 / 12), "2": pytest.approx((1 + 0.5) / 3), "4": pytest.approx(2 / 3)}
    assert b["maj_at"]["4"] == pytest.approx(1 / 3)  # the second problem's vote goes to a wrong answer
    assert b["runs"] is None


async def test_lengths_truncation_formatting_and_failures_are_counted(sampled: Path) -> None:
    b = summarize(sampled)["benchmarks"]["sums"]
    assert b["tokens_mean"] == pytest.approx((8 + 4 + 6) / 12)
    assert b["tokens_max"] == 3
    assert b["truncated"] == pytest.approx(1 / 12)
    assert b["formatted"] == pytest.approx(11 / 12)
    assert b["ungraded"] == 1
    assert "the verifier failed on 1 samples; they count as not right" in table(summarize(sampled))


async def test_a_table_of_sampled_answers_says_how_they_were_drawn(sampled: Path, tmp_path: Path) -> None:
    assert "avg@4 at temperature 1, template" in table(summarize(sampled))
    what = spec(decoding="sampled", n=4, temperature=0.7, top_p=0.95)
    await answered(tmp_path / "nucleus", what, questions(1), Reciter(lambda i, n: [Recited([i])] * n))
    assert "avg@4 at temperature 0.7, top-p 0.95, template" in table(summarize(tmp_path / "nucleus"))


async def test_accuracy_by_level_is_over_that_levels_problems(sampled: Path) -> None:
    b = summarize(sampled)["benchmarks"]["sums"]
    low, high = b["by_level"]["0"].pop("interval")
    assert 0 <= low <= 0.5 <= high <= 1
    assert b["by_level"] == {
        "0": {"problems": 2, "accuracy": pytest.approx(0.5)},
        "1": {"problems": 1, "accuracy": pytest.approx(0.25), "interval": [pytest.approx(0.25)] * 2},
    }
    assert b["by_subject"] == {}


async def test_accuracy_by_subject_is_over_that_subjects_problems_and_every_run(tmp_path: Path) -> None:
    subjects = ["geometry", "algebra", "algebra", None, "algebra"]
    wrong = {(1, 0), (1, 1), (2, 1)}  # problem, run
    asked: list[int] = []

    def answer(i: int, n: int) -> list[Recited]:
        asked.append(i)
        return [Recited([99 if (i, asked.count(i) - 1) in wrong else i])]

    await answered(tmp_path, spec(n=2), questions(5, subjects=subjects), Reciter(answer))
    summary = summarize(tmp_path)
    assert summary["benchmarks"]["sums"]["by_subject"] == {
        "algebra": {"problems": 3, "accuracy": pytest.approx((0 + 1 / 2 + 1) / 3), "interval": [0.0, 1.0]},
        "geometry": {"problems": 1, "accuracy": 1.0, "interval": [1.0, 1.0]},
    }
    assert "Sums by subject: algebra 0.500 (3), geometry 1.000 (1)" in table(summary)


async def test_greedy_runs_give_a_mean_and_a_spread(tmp_path: Path) -> None:
    answers = iter([0, 1, 9, 3, 0, 9, 9, 9])  # run 0: three of four right, run 1: one
    await answered(tmp_path, spec(n=2), questions(4), Reciter(lambda i, n: [Recited([next(answers)])]))
    b = summarize(tmp_path)["benchmarks"]["sums"]
    assert b["runs"] == [0.75, 0.25]
    assert b["accuracy"] == pytest.approx(0.5)
    assert b["runs_std"] == pytest.approx(0.5 / 2**0.5)
    assert b["pass_at"] == {}
    assert "| Sums | 4 | 0.500 (" in table(summarize(tmp_path))


async def test_the_averages_of_several_benchmarks_are_over_benchmarks_and_over_problems(tmp_path: Path) -> None:
    names = ("sums", "more")
    what = spec(
        n=1,
        problems=dict.fromkeys(names, "d"),
        titles={"sums": "Sums", "more": "More"},
        expected={"sums": 9, "more": 0},
    )
    asked = questions(1) + questions(4, "more")
    right = iter([True, True, False, False, False])
    await answered(tmp_path, what, asked, Reciter(lambda i, n: [Recited([i if next(right) else 99])]))
    summary = summarize(tmp_path)
    assert summary["macro"]["accuracy"] == pytest.approx((1 + 0.25) / 2)
    assert summary["micro"]["accuracy"] == pytest.approx(2 / 5)
    text = table(summary)
    assert "| **micro average** |  | 0.400 (" in text
    assert "Sums has 9 problems where it was published, here 1." in text
