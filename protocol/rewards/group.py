"""The rewards of a group's samples, with what a sample is paid for its place in the group and in the run.

    short        shorter than the other right answers of its group     only while `gates.short`
    cosine       the fewer tokens the more                             only while `gates.cosine`
    interleaved  sub-answers on the way to a right final one           only while `gates.interleaved`

Whether a gate is open depends on the steps before (learner/training/control.py) and stands in the step's record, so
that whoever composes the step's rewards again composes the same.

>>> [round(s, 6) for s in short_scores(ShortSpec(), [120, 260, 400, 90], [1.0, 1.0, 1.0, 0.0])]
[0.5, 0.0, -0.5, 0.0]
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, Self

from chorus.protocol.rewards.compose import RewardParts, compose
from chorus.protocol.rewards.spec import CosineSpec, InterleavedSpec, RewardSpec, ShortSpec

_BEST = 0.5  # of the length reward: the shortest's
_EPSILON = 1e-5  # Short-RL's: no division by 0 where all are of one length


@dataclass(frozen=True)
class Gates:
    """Which of the gated parts a step pays. Closed gates change nothing where the part is not asked for."""

    short: bool = True
    cosine: bool = True
    interleaved: bool = True

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Self:
        """As the step had them. A record without them is of a run that has no such part."""
        return cls(**{name: record.get(f"{name}_gate") != 0 for name in GATED})


GATED = tuple(field.name for field in fields(Gates))  # and the names of their tables in [reward]
OPEN = Gates()


class _Grade(Protocol):
    @property
    def verdict(self) -> str: ...
    @property
    def accuracy(self) -> float | None: ...
    @property
    def format(self) -> float | None: ...
    @property
    def scores(self) -> dict[str, float | None] | None: ...
    @property
    def sub_answers(self) -> list[int] | None: ...


class _Sample(Protocol):
    """A `Sample` of messages.py, which stands on this."""

    @property
    def grade(self) -> Any: ...
    @property
    def n_tokens(self) -> int: ...
    @property
    def finish_reason(self) -> str: ...


def compose_group(spec: RewardSpec, samples: Sequence[_Sample], gates: Gates = OPEN) -> list[RewardParts]:
    """The reward of each sample of one group."""
    grades: list[_Grade] = [s.grade for s in samples]
    lengths = [s.n_tokens for s in samples]
    paid: list[dict[str, float]] = [{} for _ in samples]
    if spec.short and gates.short:
        scores = short_scores(spec.short, lengths, [g.accuracy for g in grades])
        for own, score in zip(paid, scores, strict=True):
            own["short"] = spec.short.weight * score
    if spec.cosine and gates.cosine:
        for own, n_tokens in zip(paid, lengths, strict=True):
            own["cosine"] = cosine_term(spec.cosine, n_tokens)
    if spec.interleaved and gates.interleaved:
        for own, g in zip(paid, grades, strict=True):
            own["interleaved"] = _interleaved(spec.interleaved, g)
    return [
        compose(
            *(spec, g.accuracy, g.format, s.n_tokens, g.scores),
            verdict=g.verdict,
            truncated=s.finish_reason == "length",
            paid=own,
        )
        for s, g, own in zip(samples, grades, paid, strict=True)
    ]


def short_scores(spec: ShortSpec, lengths: Sequence[int], accuracies: Sequence[float | None]) -> list[float]:
    """Short-RL's s of each sample, before its weight; 0 for a wrong one, and for one without a grade."""
    counted = [a is not None and (a >= 1.0 or not spec.only_right) for a in accuracies]
    known = [n for n, counts in zip(lengths, counted, strict=True) if counts]
    shortest, longest = min(known, default=0), max(known, default=0)
    scores = []
    for n, accuracy, counts in zip(lengths, accuracies, counted, strict=True):
        score = _BEST - (n - shortest) / (longest - shortest + _EPSILON)
        if spec.band and n <= shortest + spec.tolerance_tokens:
            score = _BEST
        right = accuracy is not None and accuracy >= 1.0
        scores.append(score if right else min(0.0, score) if counts else 0.0)
    return scores


def cosine_term(spec: CosineSpec, n_tokens: int) -> float:
    """What a completion of `n_tokens` tokens gets. Past the longest it gets no less than at it."""
    if spec.max_tokens is None:
        raise ValueError("reward.cosine.max_tokens is not set: take it from sampling.max_tokens")
    share = min(1.0, n_tokens / spec.max_tokens)
    return spec.weight * (spec.eta_min + 0.5 * (spec.eta_max - spec.eta_min) * (1 + math.cos(math.pi * share)))


def sub_answer_score(spec: InterleavedSpec, places: Sequence[int]) -> float:
    """For the place of each gold sub-answer among the sample's own, from 1; 0: it is not among them."""
    found = [place for place in places if place > 0]
    if not places or not found:
        return 0.0
    if len(found) == len(places) and spec.design != "partial":
        return spec.base
    if spec.design == "all_or_none":
        return 0.0
    share = spec.base / len(places)
    return share * (len(found) if spec.design == "partial" else sum(1 / place for place in found))


def _interleaved(spec: InterleavedSpec, grade: _Grade) -> float:
    """Nothing unless the final answer is right, and the format too."""
    right = grade.accuracy is not None and grade.accuracy >= 1.0
    formed = grade.format is not None and grade.format >= 1.0
    return sub_answer_score(spec, grade.sub_answers or []) if right and formed else 0.0
