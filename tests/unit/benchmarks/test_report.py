"""The arithmetic of the table: spreads, ratios pair by pair, goals. What is measured is not tested here."""

from __future__ import annotations

import doctest
import json

import pytest

from chorus.benchmarks import report
from chorus.benchmarks.report import Goal, Row, Spread, at_least, at_most, figure, spread, table


def test_the_example_in_the_docstring_holds() -> None:
    assert doctest.testmod(report).failed == 0


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0, 1.0, 2.0], Spread(1.0, 2.0, 3.0)),
        ([4.0, 1.0, 2.0, 3.0], Spread(1.0, 2.5, 4.0)),
        ([7.0], Spread(7.0, 7.0, 7.0)),
    ],
)
def test_a_spread_is_minimum_median_and_maximum(values: list[float], expected: Spread) -> None:
    assert spread(values) == expected


def test_a_spread_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no measurements"):
        spread([])


def test_ratios_are_taken_pair_by_pair_so_that_load_on_a_pair_cancels() -> None:
    # The second pair ran while something else took half of the machine.
    row = Row("r", "tokens/s", ours=[90.0, 45.0, 91.0], peer=[100.0, 50.0, 100.0])
    assert row.ratio == Spread(0.9, 0.9, 0.91)


def test_a_peer_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        _ = Row("r", "s", ours=[1.0, 2.0], peer=[1.0]).ratio


def test_the_median_of_the_ratios_decides_on_the_goal() -> None:
    def verdict(goal: Goal) -> str:
        return Row("r", "s", [0.94, 0.95, 0.99], [1.0, 1.0, 1.0], goal).verdict

    assert verdict(at_least(0.95)) == "met"
    assert verdict(at_least(0.96)) == "not met"
    assert verdict(at_most(0.95)) == "met"
    assert verdict(at_most(0.94)) == "not met"


def test_without_a_peer_the_measurement_itself_is_held_against_the_goal() -> None:
    row = Row("r", "samples/s", ours=[70.0, 76.0, 80.0], goal=at_least(75))
    assert row.ratio is None
    assert row.verdict == "met"


def test_without_a_goal_there_is_no_verdict() -> None:
    assert Row("r", "s", ours=[1.0]).verdict == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12345.6, "12,346"),
        (100.0, "100"),
        (99.44, "99.4"),
        (1.3, "1.3"),
        (0.95678, "0.957"),
        (0.0012, "0.0012"),
    ],
)
def test_figures_show_three_digits(value: float, text: str) -> None:
    assert figure(value) == text


def test_the_table_shows_every_row_with_ratio_goal_and_verdict() -> None:
    rows = [
        Row("a / b", "ms", [1.0, 2.0], [2.0, 2.0], at_most(1.3), "3 MB"),
        Row("alone", "s", [4.0]),
    ]
    head, first, second = table(rows).splitlines()
    assert head.split() == ["measurement", "ours", "peer", "unit", "ratio", "goal", "note"]
    assert "0.5 / 0.75 / 1" in first
    assert "<= 1.3  met" in first
    assert first.endswith("3 MB")
    assert second.split() == ["alone", "4", "/", "4", "/", "4", "-", "s", "-", "-"]


def test_the_json_form_keeps_every_measurement() -> None:
    row = Row("a / b", "ms", [1.0, 2.0], [2.0, 2.0], at_most(1.3))
    stored = json.loads(json.dumps(row.as_dict()))
    assert stored["ours"] == [1.0, 2.0]
    assert stored["peer"] == [2.0, 2.0]
    assert stored["ratio"] == {"low": 0.5, "median": 0.75, "high": 1.0}
    assert (stored["goal"], stored["verdict"]) == ("<= 1.3", "met")
