"""Online hints: a ratio follows its problem's own pass rate, stays within bounds, falls to 0, and survives a crash."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorus.learner.curriculum.hints import OnlineRatios
from chorus.protocol.config.curriculum import OnlineHints
from chorus.protocol.runtime.exits import CannotGoOn

STEPS = 100
EARLY = 1  # the bound is still max


def ratios(folder: Path | None = None, **fields: float) -> OnlineRatios:
    found = OnlineRatios(OnlineHints.model_validate(fields), STEPS)
    if folder is not None:
        found.open(folder / "hints.jsonl")
    return found


def test_a_problem_that_keeps_failing_gets_more_of_its_solution_up_to_the_maximum() -> None:
    online, seen = ratios(start=0.5, move=0.125, max=0.75), []
    for index in range(5):
        ratio = online.wanted("p", EARLY)
        seen.append(ratio)
        online.observe(index, "p", ratio, 0.0)
    assert seen == [0.5, 0.625, 0.75, 0.75, 0.75]
    assert online.wanted("q", EARLY) == 0.5, "problems do not move each other"


def test_a_problem_that_is_solved_gets_less_down_to_none() -> None:
    online, seen = ratios(start=0.25, move=0.125, high=0.5), []
    for index in range(4):
        ratio = online.wanted("p", EARLY)
        seen.append(ratio)
        online.observe(index, "p", ratio, 0.5)
    assert seen == [0.25, 0.125, 0.0, 0.0]


def test_between_the_two_bounds_of_accuracy_the_ratio_stays() -> None:
    online = ratios(start=0.5, low=0.1, high=0.6)
    online.observe(0, "p", 0.5, 0.3)
    assert online.wanted("p", EARLY) == 0.5


def test_groups_under_way_together_move_their_problem_once() -> None:
    online = ratios(start=0.5, move=0.125)
    for index in range(4):
        online.observe(index, "p", 0.5, 0.0)
    assert online.wanted("p", EARLY) == 0.625


def test_the_bound_falls_to_0_and_stays_there() -> None:
    online = ratios(max=0.75, move=0.125, unhinted_after=0.8)
    bounds = [online.bound(step) for step in range(1, STEPS + 1)]
    assert bounds[0] == 0.75
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[40] == 0.375, "half-way to the end of hints, half of the maximum"
    assert bounds[79] == 0.125
    assert set(bounds[80:]) == {0.0}
    assert online.wanted("p", 81) == 0.0


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, STEPS), st.floats(0, 1)), max_size=80))
def test_whatever_happens_a_ratio_is_a_multiple_within_the_bound_of_its_step(
    story: list[tuple[str, int, float]],
) -> None:
    online = ratios(start=0.5, move=0.125, max=0.75)
    for index, (problem, step, accuracy) in enumerate(story):
        ratio = online.wanted(problem, step)
        assert 0 <= ratio <= online.bound(step) <= 0.75
        assert (ratio / 0.125).is_integer()
        online.observe(index, problem, ratio, accuracy)


def test_a_resumed_learner_knows_every_ratio_and_takes_no_group_twice(tmp_path: Path) -> None:
    first = ratios(tmp_path)
    first.observe(3, "p", 0.5, 0.0)
    first.observe(4, "q", 0.5, 1.0)
    again = ratios(tmp_path)
    assert [again.wanted(id, EARLY) for id in "pqr"] == [0.625, 0.375, 0.5]
    again.observe(3, "p", 0.625, 0.0)  # read once more after the crash
    assert again.wanted("p", EARLY) == 0.625
    assert len((tmp_path / "hints.jsonl").read_text().splitlines()) == 2


def test_a_line_that_a_crash_cut_short_is_forgotten_and_the_next_one_is_whole(tmp_path: Path) -> None:
    ratios(tmp_path).observe(3, "p", 0.5, 0.0)
    with (tmp_path / "hints.jsonl").open("a") as file:
        file.write('{"index": 4, "id": "p", "ne')
    again = ratios(tmp_path)
    assert again.wanted("p", EARLY) == 0.625
    again.observe(4, "p", 0.625, 1.0)
    assert [json.loads(line)["next"] for line in (tmp_path / "hints.jsonl").read_text().splitlines()] == [0.625, 0.5]


def test_a_damaged_file_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "hints.jsonl").write_text('{"index": 4, "id": "p", "next": 0.5}\n{"index": 5}\n')
    with pytest.raises(CannotGoOn, match=r"hints.jsonl:2: no observation \('next'\); remove the line"):
        ratios(tmp_path)


def test_what_is_logged_says_from_where_to_where_and_why(tmp_path: Path) -> None:
    ratios(tmp_path).observe(7, "p", 0.5, 0.125)
    assert json.loads((tmp_path / "hints.jsonl").read_text()) == {
        "index": 7,
        "id": "p",
        "ratio": 0.5,
        "accuracy": 0.125,
        "next": 0.5,
    }
