"""Difficulty levels from measured pass rates: arXiv 2504.00829, with the choices that it leaves open.

    strongest  small    medium     large     level
    0          any      any        any       none: nobody has shown that it can be solved
    any other  1        any        any       none: too easy, nothing is left to learn
    any other  partial  partial    any       L2 (`both_partial`), or L1 where the recipe says so
    any other  partial  any other  any       L1
    any other  0        above 0    any       L2
    any other  0        0 or none  0         L3
    any other  0        0 or none  above 0   L3 for a share of them, half of the math and a tenth of the code; none for
                                             the others
    any other  0        0 or none  none      none: not measured with a model that could tell

Read from top to bottom, the first line that fits decides. The paper's models are of 1.5B, 7B and 32B, the strongest is
R1. A rate of n samples is known to 1/n: `0` means none of n, `1` all of n. Which ones of the last kind but one stay
depends on the seed and the problem's id alone: the same measurements give the same levels on every machine, in whatever
order they come.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Level = Literal["L1", "L2", "L3"]
KEPT_SHARE = 0.5  # of the problems that only the large model solves; arXiv 2504.00829
KEPT_CODE_SHARE = 0.1  # of programs


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
    strongest: Rate | None = None,
    seed: int = 0,
    both_partial: Literal["L1", "L2"] = "L2",
    kept_share: float = KEPT_SHARE,
) -> Assigned:
    """The level of one problem; a function of its arguments alone."""
    if strongest is not None and not strongest.correct:
        return Assigned(problem_id, None, "the strongest never solves it")
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
    if _number(problem_id, seed) < kept_share:
        return Assigned(problem_id, "L3", f"only large solves it; of the {kept_share:.0%} that stay")
    return Assigned(problem_id, None, f"only large solves it; of the {1 - kept_share:.0%} that go")


def assign_levels(
    small: Mapping[str, Rate],
    medium: Mapping[str, Rate],
    large: Mapping[str, Rate],
    strongest: Mapping[str, Rate] | None = None,
    seed: int = 0,
    both_partial: Literal["L1", "L2"] = "L2",
    code: Collection[str] = (),
) -> list[Assigned]:
    """All problems that the small model was asked, sorted by id. code: the ids of those whose answer is a program."""
    rates = (medium, large, strongest or {})
    return [
        assign_level(
            *(problem_id, small[problem_id], *(of.get(problem_id) for of in rates)),
            seed=seed,
            both_partial=both_partial,
            kept_share=KEPT_CODE_SHARE if problem_id in code else KEPT_SHARE,
        )
        for problem_id in sorted(small)
    ]


def total(rates: Iterable[tuple[str, Rate]]) -> dict[str, Rate]:
    """Measurements of one model by problem; several of one problem add up."""
    found: dict[str, Rate] = {}
    for problem_id, rate in rates:
        found[problem_id] = found[problem_id] + rate if problem_id in found else rate
    return found


def _number(problem_id: str, seed: int) -> float:
    """From 0 to 1, the same on every machine."""
    digest = hashlib.blake2b(f"{seed}/{problem_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64
