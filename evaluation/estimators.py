"""The numbers of an evaluation as pure functions: averages, pass@k, majority votes, confidence intervals."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import numpy as np

Average = Literal["macro", "micro"]
VOTES_DRAWN = 256  # subsets that stand for all subsets of k votes
RESAMPLES = 2000  # of the bootstrap


def macro_micro(sizes: Sequence[int], accuracies: Sequence[float]) -> tuple[float, float]:
    """(mean over benchmarks, mean over questions) of the benchmarks' accuracies, in their unit."""
    weighted = sum(size * accuracy for size, accuracy in zip(sizes, accuracies, strict=True))
    return sum(accuracies) / len(accuracies), weighted / sum(sizes)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that k samples drawn from n without replacement hold one of the c right ones (arXiv 2107.03374)."""
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n; got n = {n}, c = {c}, k = {k}")
    return 1.0 if n - c < k else 1.0 - math.comb(n - c, k) / math.comb(n, k)


def majority(clusters: Sequence[int | None], accuracies: Sequence[float]) -> float:
    """Chance that the largest cluster of answers is right; clusters of one size share the vote.

    None has no answer and no vote; where nobody votes, the result is 0. A cluster is right by the mean of its
    answers' grades, since equality by the verifier need not be transitive.
    """
    votes: dict[int, list[float]] = defaultdict(list)
    for cluster, accuracy in zip(clusters, accuracies, strict=True):
        if cluster is not None:
            votes[cluster].append(accuracy)
    most = max(map(len, votes.values()), default=0)
    winners = [sum(v) / most >= 0.5 for v in votes.values() if len(v) == most]
    return sum(winners) / len(winners) if winners else 0.0


def maj_at_k(clusters: Sequence[int | None], accuracies: Sequence[float], k: int, seed: int) -> float:
    """`majority` of k of the n samples: of all where k = n, else the mean over VOTES_DRAWN subsets."""
    n = len(clusters)
    if k == n:
        return majority(clusters, accuracies)
    rng = np.random.default_rng(seed)
    drawn = (rng.permutation(n)[:k] for _ in range(VOTES_DRAWN))
    return float(np.mean([majority([clusters[i] for i in pick], [accuracies[i] for i in pick]) for pick in drawn]))


def bootstrap_interval(
    benchmarks: Sequence[Sequence[float]], average: Average, seed: int, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the macro or micro average when the problems of each benchmark are drawn again.

    `benchmarks`: per benchmark one value a problem (its accuracy, a mean over samples or runs). It says how far
    other problems of the kind would move the figure; the spread over runs is another matter.
    """
    rng = np.random.default_rng(seed)
    means, sizes = [], []
    for values in benchmarks:
        problems = np.asarray(values, dtype=np.float64)
        chosen = rng.integers(0, len(problems), (RESAMPLES, len(problems)))
        means.append(problems[chosen].mean(axis=1))
        sizes.append(len(problems))
    weights = None if average == "macro" else np.asarray(sizes, dtype=np.float64)
    resampled = np.average(np.stack(means), axis=0, weights=weights)
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
