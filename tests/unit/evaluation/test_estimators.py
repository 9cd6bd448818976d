"""Averages, pass@k, majority votes and intervals against published numbers, enumeration and the normal law."""

from __future__ import annotations

import math
import tomllib
from itertools import combinations

import pytest

from chorus.evaluation.estimators import bootstrap_interval, macro_micro, maj_at_k, majority, pass_at_k
from chorus.evaluation.report.comparisons import PAPER
from chorus.evaluation.suite import load_suite

SIZES = [30, 83, 500, 272, 675]
# arXiv 2602.03190's table; macro and micro recomputed by hand from its entries and the sizes, to two digits.
PUBLISHED = [
    ([16.7, 43.4, 61.8, 15.1, 28.4], 33.08, 37.36),
    ([23.3, 49.9, 75.4, 26.3, 38.3], 42.64, 48.43),
    ([20.0, 53.0, 74.2, 25.7, 37.6], 42.10, 47.74),
    ([23.3, 50.6, 75.4, 26.8, 41.3], 43.48, 49.85),
    ([20.0, 53.0, 77.6, 30.1, 38.7], 43.88, 50.07),
    ([23.3, 54.9, 76.9, 26.0, 39.4], 44.10, 49.60),
    ([23.3, 53.5, 78.4, 31.3, 39.4], 45.18, 50.93),
    ([20.0, 49.4, 80.4, 29.7, 41.2], 44.14, 51.79),
]


@pytest.mark.parametrize(("accuracies", "macro", "micro"), PUBLISHED)
def test_macro_and_micro_averages_are_those_of_the_published_table(
    accuracies: list[float], macro: float, micro: float
) -> None:
    found = macro_micro(SIZES, accuracies)
    assert found == (pytest.approx(macro, abs=0.005001), pytest.approx(micro, abs=0.005001))


def test_the_published_rows_that_a_report_shows_are_the_published_table() -> None:
    paper = tomllib.loads(PAPER.read_text(encoding="utf-8"))
    assert [row["accuracy"] for row in paper["row"]] == [accuracies for accuracies, _, _ in PUBLISHED]
    for row, (_, macro, micro) in zip(paper["row"], PUBLISHED, strict=True):
        assert row["macro"] == pytest.approx(macro, abs=0.051)
        assert row["micro"] == pytest.approx(micro, abs=0.051)
    suite = load_suite(paper["suite"])
    assert [b.name for b in suite.benchmark] == paper["benchmarks"]
    assert [b.problems for b in suite.benchmark] == SIZES


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"),
    [(8, 2, 1, 0.25), (8, 2, 4, 0.785714), (8, 0, 4, 0.0), (8, 6, 4, 1.0), (16, 1, 8, 0.5)],
)
def test_pass_at_k_is_the_unbiased_estimator(n: int, c: int, k: int, expected: float) -> None:
    assert pass_at_k(n, c, k) == pytest.approx(expected, abs=5e-7)


def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer() -> None:
    right = [True] * 3 + [False] * 6
    subsets = list(combinations(right, 4))
    assert pass_at_k(9, 3, 4) == pytest.approx(sum(any(s) for s in subsets) / len(subsets))
    with pytest.raises(ValueError, match="got n = 4, c = 1, k = 5"):
        pass_at_k(4, 1, 5)


@pytest.mark.parametrize(
    ("clusters", "accuracies", "expected"),
    [
        ([0, 0, 1], [1.0, 1.0, 0.0], 1.0),
        ([0, 1, 1], [1.0, 0.0, 0.0], 0.0),
        ([0, 1, 2], [1.0, 0.0, 0.0], 1 / 3),  # a tie is shared
        ([None, None, 1], [0.0, 0.0, 1.0], 1.0),  # no answer has no vote
        ([None, None], [0.0, 0.0], 0.0),
    ],
)
def test_the_majority_is_the_largest_cluster_of_equal_answers(
    clusters: list[int | None], accuracies: list[float], expected: float
) -> None:
    assert majority(clusters, accuracies) == pytest.approx(expected)


def test_maj_at_k_approaches_the_mean_over_all_subsets_and_repeats_itself() -> None:
    clusters, accuracies = [0, 0, 0, 1, 1, 2, None, 3], [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    subsets = list(combinations(range(8), 4))
    exact = sum(majority([clusters[i] for i in s], [accuracies[i] for i in s]) for s in subsets) / len(subsets)
    assert maj_at_k(clusters, accuracies, 4, seed=1) == pytest.approx(exact, abs=0.1)  # 3 standard errors of 256 draws
    assert maj_at_k(clusters, accuracies, 4, seed=1) == maj_at_k(clusters, accuracies, 4, seed=1)
    assert maj_at_k(clusters, accuracies, 8, seed=1) == 1.0
    assert maj_at_k(clusters, accuracies, 1, seed=1) == pytest.approx(3 / 8, abs=0.1)


def test_the_interval_of_one_benchmark_is_that_of_the_normal_law_where_it_is_large() -> None:
    n, p = 1000, 0.3
    low, high = bootstrap_interval([[1.0] * 300 + [0.0] * 700], "micro", seed=0)
    half = 1.959964 * math.sqrt(p * (1 - p) / n)
    assert (low, high) == (pytest.approx(p - half, abs=0.004), pytest.approx(p + half, abs=0.004))


def test_intervals_are_seeded_and_vanish_where_nothing_varies() -> None:
    values = [[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    assert bootstrap_interval(values, "macro", 3) == bootstrap_interval(values, "macro", 3)
    assert bootstrap_interval(values, "macro", 3) != bootstrap_interval(values, "macro", 4)
    assert bootstrap_interval([[0.5] * 4, [0.5] * 9], "macro", 3) == (0.5, 0.5)


def test_a_small_benchmark_widens_the_macro_average_more_than_the_micro_average() -> None:
    small, large = [1.0, 0.0] * 5, [1.0, 0.0] * 500
    macro, micro = (bootstrap_interval([small, large], average, 0) for average in ("macro", "micro"))
    assert macro[1] - macro[0] > 3 * (micro[1] - micro[0])
