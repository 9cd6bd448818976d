"""Paired comparisons: the same problems asked in two ways, or of two models. arXiv 2506.04723.

>>> found = paired({"a": 1, "b": 0, "c": 1, "d": 1}, {"a": 1, "b": 1, "c": 1, "d": 0})
>>> found.delta, found.gained, found.lost
(0.0, 1, 1)
>>> solved_chains([[1, 1], [1, 0, 1], [0]])
(0.3333333333333333, [None, 2, 1])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from chorus.evaluation.estimators import RESAMPLES

SOLVED = 0.5  # of its samples right: then a problem counts as solved where it is asked for yes or no. Ours


@dataclass(frozen=True)
class Paired:
    """Over the problems that both have. delta: mean accuracy of the first less that of the second, with the 95 %
    interval of drawing the problems again, pairs together. gained, lost: problems that only one of them solves."""

    problems: int
    first: float
    second: float
    delta: float
    interval: tuple[float, float]
    gained: int
    lost: int


def paired(first: Mapping[str, float], second: Mapping[str, float], seed: int = 0) -> Paired | None:
    """Of accuracies by problem; None where no problem has both."""
    both = sorted(first.keys() & second.keys())
    if not both:
        return None
    a, b = [float(first[id]) for id in both], [float(second[id]) for id in both]
    differences = np.array(a) - np.array(b)
    solved = [(x >= SOLVED, y >= SOLVED) for x, y in zip(a, b, strict=True)]
    return Paired(
        len(both),
        fmean(a),
        fmean(b),
        float(differences.mean()),
        interval(differences, seed),
        gained=sum(x and not y for x, y in solved),
        lost=sum(y and not x for x, y in solved),
    )


def interval(values: Sequence[float] | np.ndarray, seed: int, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the mean when the values, one a problem, are drawn again."""
    known = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(known), (RESAMPLES, len(known)))
    low, high = np.quantile(known[drawn].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def solved_chains(chains: Sequence[Sequence[float]]) -> tuple[float, list[int | None]]:
    """(share of the chains whose every link is solved, for each the first link that is not, from 1, or None)."""
    failures = [next((k for k, right in enumerate(chain, 1) if right < SOLVED), None) for chain in chains]
    return (fmean(failure is None for failure in failures) if failures else 0.0), failures
