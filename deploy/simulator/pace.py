"""How fast the parts of a run are, as far as a simulation must know. Times in seconds, lengths in completion tokens."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

_DRAWN_GROUPS = 2048  # from single lengths


@dataclass(frozen=True)
class Lengths:
    """One group's completions: the longest decides when the group is done, the total what it costs."""

    longest: int
    total: int

    @property
    def sequences(self) -> float:
        """How many of its samples run at once, on average over the group's life."""
        return self.total / self.longest


@dataclass(frozen=True)
class EngineSpeed:
    """How long one decode step takes, by the number of sequences that run at once.

    `points` are (sequences, seconds), sequences ascending; between them a straight line. Below the first point a step
    takes as long as there. Beyond the last one the engine gives no more tokens a second: what is more waits its turn.

        >>> EngineSpeed(((1, 0.010), (100, 0.030))).step_s(100)
        0.03
    """

    points: tuple[tuple[float, float], ...]

    @staticmethod
    def from_rates(rates: Sequence[tuple[float, float]]) -> EngineSpeed:
        """Of a measured curve: (sequences at once, tokens a second in total)."""
        return EngineSpeed(tuple((n, n / rate) for n, rate in sorted(rates)))

    def step_s(self, sequences: float) -> float:
        first, last = self.points[0], self.points[-1]
        if sequences <= first[0]:
            return first[1]
        if sequences >= last[0]:
            return last[1] * sequences / last[0]
        for (n0, s0), (n1, s1) in pairwise(self.points):
            if sequences <= n1:
                return s0 + (s1 - s0) * (sequences - n0) / (n1 - n0)
        raise AssertionError("points are not ascending")

    def rate(self, sequences: float) -> float:
        """Tokens a second, all sequences together."""
        return sequences / self.step_s(sequences)


@dataclass(frozen=True)
class Pace:
    """What a simulation is told of speeds.

    learner: seconds a trained token, one value a recorded step (a step's work beside waiting, checkpoints included).
    pause_s: an engine stands still for new weights; sync_s is the whole of it, weight check included; both were
    measured with `fleet` generators. link_s: one copy of the weights on the learner's link, by which each further
    generator makes everybody's weights later, while all sample on.
    accepted: share of the finished groups that dynamic sampling keeps.
    fresh: the first token of a group that was admitted at a step's end comes after that step's weights, not before.
    """

    groups: tuple[Lengths, ...]
    engine: EngineSpeed
    learner: tuple[float, ...]
    grade_s: float = 0.0
    pause_s: float = 0.0
    sync_s: float = 0.0
    link_s: float = 0.0
    fleet: float = 1.0
    accepted: float = 1.0
    fresh: bool = True

    def later_with(self, generators: int) -> float:
        return self.link_s * max(0.0, generators - self.fleet)

    def sync_with(self, generators: int) -> float:
        return max(self.sync_s, self.pause_s) + self.later_with(generators)


def groups_of(recorded: Sequence[Sequence[int]], group_size: int, max_tokens: int, seed: int) -> tuple[Lengths, ...]:
    """Groups as they were recorded, if the run asks for such; else drawn from their single lengths, cut at max_tokens.

    recorded: [groups][samples]. Samples of one problem are more alike than drawn ones, whose longest comes out a
    little too long.
    """
    if all(len(group) == group_size and max(group) <= max_tokens for group in recorded):
        return tuple(Lengths(max(group), sum(group)) for group in recorded)
    lengths = [min(length, max_tokens) for group in recorded for length in group]
    rng = random.Random(seed)
    drawn = (rng.choices(lengths, k=group_size) for _ in range(_DRAWN_GROUPS))
    return tuple(Lengths(max(group), sum(group)) for group in drawn)
