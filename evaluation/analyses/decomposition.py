"""What a gain in accuracy is made of: sharper on what was solved before, or more solved. arXiv 2505.22756.

The paper's protocol samples 64 answers at each of twelve temperatures; its estimators are not published, so these are
ours. Counts are right answers of n, by problem.

>>> base, trained = ({"p": c, "q": d, "r": e} for c, d, e in ((0, 1, 16), (0, 8, 16)))
>>> found = decompose(base, trained, 16)
>>> round(found.precision[0], 3), found.precision[1], [round(c, 3) for c in found.coverage[16]], found.new_solve
(0.354, 0.5, [0.667, 0.667], [])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from chorus.evaluation.analyses.paired import interval
from chorus.evaluation.estimators import pass_at_k

SAMPLES = 64  # arXiv 2505.22756
TEMPERATURES = (0.001, 0.003, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2)  # arXiv 2505.22756
Counts = Mapping[str, int]


@dataclass(frozen=True)
class Decomposition:
    """(base, trained) where there are two. precision: mean share of right answers. coverage: by k, chance that one of k
    is right. covered, newly: what the problems that base solves at least once, and those that only trained does, add
    to the gain in precision; lost ones are among the covered. gain_interval: of precision's; wall_interval: of the gain
    in coverage at the largest k. new_solve, lost_solve: problems of which only trained, or only base, has a right
    answer."""

    problems: int
    samples: int
    precision: tuple[float, float]
    gain_interval: tuple[float, float]
    coverage: dict[int, tuple[float, float]]
    wall_interval: tuple[float, float]
    covered: float
    newly: float
    new_solve: list[str]
    lost_solve: list[str]

    @property
    def gain(self) -> float:
        return self.precision[1] - self.precision[0]

    @property
    def wall(self) -> bool:
        """Whether nothing shows that training covers more: the interval of that gain includes 0."""
        low, high = self.wall_interval
        return low <= 0 <= high


def decompose(base: Counts, trained: Counts, samples: int, seed: int = 0) -> Decomposition:
    """Over the problems that both have. Raises ValueError where there is none."""
    both = sorted(base.keys() & trained.keys())
    if not both:
        raise ValueError("base and trained have no problem in common")
    pairs = [(base[id], trained[id]) for id in both]
    gains = np.array([(after - before) / samples for before, after in pairs])
    covers = {k: [tuple(pass_at_k(samples, c, k) for c in pair) for pair in pairs] for k in powers(samples)}
    was_covered = np.array([before > 0 for before, _ in pairs])
    return Decomposition(
        len(both),
        samples,
        (fmean(before / samples for before, _ in pairs), fmean(after / samples for _, after in pairs)),
        interval(gains, seed),
        {k: (fmean(b for b, _ in values), fmean(t for _, t in values)) for k, values in covers.items()},
        interval([t - b for b, t in covers[samples]], seed),
        covered=float(gains[was_covered].sum() / len(both)),
        newly=float(gains[~was_covered].sum() / len(both)),
        new_solve=[id for id, (before, after) in zip(both, pairs, strict=True) if not before and after],
        lost_solve=[id for id, (before, after) in zip(both, pairs, strict=True) if before and not after],
    )


def powers(n: int) -> list[int]:
    """1, 2, 4, ... and n."""
    return sorted({1 << i for i in range(n.bit_length()) if 1 << i <= n} | {n})


def slope(temperatures: Sequence[float], accuracies: Sequence[float]) -> float | None:
    """Of accuracy over temperature, by least squares: how much heat costs. None for fewer than two temperatures.

    >>> slope([0.0, 0.5, 1.0], [0.75, 0.5, 0.25])
    -0.5
    """
    if len(set(temperatures)) < 2:
        return None
    return round(float(np.polyfit(temperatures, accuracies, 1)[0]), 12)
