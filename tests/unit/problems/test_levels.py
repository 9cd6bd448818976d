"""Levels by the table of arXiv 2504.00829: every line of it, and the same outcome for the same measurements."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorus.problems.levels import Rate, assign_level, assign_levels, total


def rate(p: float | None, samples: int = 8) -> Rate | None:
    return None if p is None else Rate(samples, round(p * samples))


def level(
    small: float,
    medium: float | None = None,
    large: float | None = None,
    strongest: float | None = None,
    **options: object,
) -> str | None:
    of_small = rate(small)
    assert of_small
    rates = (rate(medium), rate(large), rate(strongest))
    return assign_level("a problem", of_small, *rates, **options).level  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("small", "medium", "large", "wanted"),
    [
        (0.5, 1, None, "L1"),
        (0, 1, None, "L2"),
        (0, 0.5, None, "L2"),
        (0.25, 0.75, None, "L2"),
        (1, 1, None, None),
        (0, 0, 0, "L3"),
        # Beyond the examples of the specification:
        (0.5, None, None, "L1"),
        (0.5, 0, 0, "L1"),
        (0, 0.125, 1, "L2"),
        (1, None, None, None),
        (1, 0.5, 0, None),
        (0, 0, None, None),
        (0, None, None, None),
        (0, None, 0, "L3"),
    ],
)
def test_each_line_of_the_table(small: float, medium: float | None, large: float | None, wanted: str | None):
    assert level(small, medium, large) == wanted


def test_where_both_solve_it_in_part_the_recipe_may_say_l1():
    assert level(0.25, 0.75, both_partial="L1") == "L1"
    assert level(0, 0.75, both_partial="L1") == "L2"


def test_a_rate_is_partial_from_one_sample_on():
    assert assign_level("p", Rate(8, 1)).level == "L1"
    assert assign_level("p", Rate(8, 7)).level == "L1"
    assert assign_level("p", Rate(1000, 999)).level == "L1"


@pytest.mark.parametrize("rates", [(0, 0, 0), (0, 0, 0.5), (0.5, 1, 1), (0, 0.5, 1), (1, 1, 1)])
def test_what_the_strongest_never_solves_is_left_out_and_what_it_solves_once_is_not(rates: tuple[float, ...]):
    assert level(*rates, strongest=0) is None
    assert level(*rates, strongest=0.125) == level(*rates)


rates = st.one_of(st.none(), st.integers(0, 4).map(lambda correct: Rate(4, correct)))


@given(st.integers(0, 4), rates, rates, rates, st.integers(0, 9), st.booleans())
def test_every_problem_has_one_outcome_whatever_was_measured(
    small: int, medium: Rate | None, large: Rate | None, strongest: Rate | None, seed: int, code: bool
):
    of = [{"p": rate} if rate else {} for rate in (medium, large, strongest)]
    first, again = (
        assign_levels({"p": Rate(4, small)}, *of, seed=seed, code={"p"} if code else ())[0] for _ in range(2)
    )
    assert first == again
    assert first.reason
    if first.level == "L1":
        assert 0 < small < 4
    if first.level == "L2":
        assert small < 4
        assert medium is not None
        assert medium.correct
    if first.level == "L3":
        assert small == 0
        assert large is not None
    if first.level is not None:
        assert strongest is None or strongest.correct


def test_of_what_only_the_large_model_solves_half_of_the_math_and_a_tenth_of_the_code_stay():
    names = {f"set/{k}": Rate(8, 0) for k in range(2000)}
    code = {name for name in names if int(name.split("/")[1]) % 2}
    assigned = assign_levels(names, names, {name: Rate(8, 4) for name in names}, code=code)
    kept = {a.id for a in assigned if a.level == "L3"}
    assert 450 < len(kept - code) < 550
    assert 70 < len(kept & code) < 130


def only_large(seed: int, n: int = 2000) -> set[str]:
    names = {f"set/{k}": Rate(8, 0) for k in range(n)}
    assigned = assign_levels(names, names, {name: Rate(8, 4) for name in names}, seed=seed)
    assert {a.level for a in assigned} == {"L3", None}
    return {a.id for a in assigned if a.level == "L3"}


def test_half_of_what_only_the_large_model_solves_stays_and_the_seed_says_which():
    first, again, other = only_large(0), only_large(0), only_large(1)
    assert first == again
    assert 900 < len(first) < 1100
    assert 400 < len(first & other) < 600  # independent halves


def test_a_problem_keeps_its_level_when_others_come_or_go():
    assert only_large(0, 500) == {name for name in only_large(0, 2000) if int(name.split("/")[1]) < 500}


def test_the_order_of_the_measurements_does_not_matter():
    lines = [(f"p{k % 7}", Rate(4, k % 5)) for k in range(50)]
    shuffled = random.Random(3).sample(lines, len(lines))
    assert assign_levels(total(lines), {}, {}) == assign_levels(total(shuffled), {}, {})


def test_measurements_of_one_problem_add_up():
    assert total([("p", Rate(8, 0)), ("q", Rate(8, 8)), ("p", Rate(4, 1))]) == {"p": Rate(12, 1), "q": Rate(8, 8)}
    assert Rate(12, 3).value == 0.25
