"""Difficulty levels from measured pass rates: arXiv 2504.00829, with the choices that its dataset card leaves open.

    small    medium     large     level
    1        any        any       none: too easy, nothing is left to learn
    partial  partial    any       L2 (`both_partial`), or L1 where the recipe says so
    partial  any other  any       L1
    0        above 0    any       L2
    0        0 or none  0         L3
    0        0 or none  above 0   L3 for one half of them, none for the other
    0        0 or none  none      none: not measured with a model that could tell

Read from top to bottom, the first line that fits decides. The paper's models are of 1.5B, 7B and 32B. A rate of n
samples is known to 1/n: `0` means none of n, `1` all of n. Which half of the last kind stays depends on the seed and
the problem's id alone: the same measurements give the same levels on every machine, in whatever order they come.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Level = Literal["L1", "L2", "L3"]
KEPT_SHARE = 0.5  # of the problems that only the large model solves


@dataclass(frozen=True)
class Rate:
    """`correct` of `samples` answers."""

    samples: int
    correct: int

    @property
    def value(self) -> float:
        return self.correct / self.samples

    @property
    def partial(self) -> bool:
        return 0 < self.correct < self.samples

    def __add__(self, other: Rate) -> Rate:
        return Rate(self.samples + other.samples, self.correct + other.correct)


@dataclass(frozen=True)
class Assigned:
    """A problem's level, None where it is left out, and why."""

    id: str
    level: Level | None
    reason: str


def assign_level(
    problem_id: str,
    small: Rate,
    medium: Rate | None = None,
    large: Rate | None = None,
    seed: int = 0,
    both_partial: Literal["L1", "L2"] = "L2",
) -> Assigned:
    """The level of one problem; a function of its arguments alone."""
    if small.correct == small.samples:
        return Assigned(problem_id, None, "always solved")
    if small.partial:
        if medium is not None and medium.partial:
            return Assigned(problem_id, both_partial, "small and medium solve it in part")
        return Assigned(problem_id, "L1", "small solves it in part")
    if medium is not None and medium.correct:
        return Assigned(problem_id, "L2", "medium solves it, small never")
    if large is None:
        return Assigned(problem_id, None, "never solved, and not measured with a large model")
    if not large.correct:
        return Assigned(problem_id, "L3", "never solved")
    if _is_kept(problem_id, seed):
        return Assigned(problem_id, "L3", "only large solves it; of the half that stays")
    return Assigned(problem_id, None, "only large solves it; of the half that goes")


def assign_levels(
    small: Mapping[str, Rate],
    medium: Mapping[str, Rate],
    large: Mapping[str, Rate],
    seed: int = 0,
    both_partial: Literal["L1", "L2"] = "L2",
) -> list[Assigned]:
    """All problems that the small model was asked, sorted by id."""
    return [
        assign_level(problem_id, small[problem_id], medium.get(problem_id), large.get(problem_id), seed, both_partial)
        for problem_id in sorted(small)
    ]


def total(rates: Iterable[tuple[str, Rate]]) -> dict[str, Rate]:
    """Measurements of one model by problem; several of one problem add up."""
    found: dict[str, Rate] = {}
    for problem_id, rate in rates:
        found[problem_id] = found[problem_id] + rate if problem_id in found else rate
    return found


def _is_kept(problem_id: str, seed: int) -> bool:
    number = int.from_bytes(hashlib.blake2b(f"{seed}/{problem_id}".encode(), digest_size=8).digest(), "little")
    return number < KEPT_SHARE * 2**64
