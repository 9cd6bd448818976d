"""How the parts of a reward make one number: pure, configured by data, the same on every side.

The reward server composes what it knows of one completion (accuracy, format); the learner composes again with
what only it knows (lengths), and its total is the one that trains. A verifier failure is not a wrong answer:

>>> compose(RewardSpec(), accuracy=1.0, format=0.75).total
1.75
>>> compose(RewardSpec(compose="format_gated"), accuracy=0.0, format=1.0).total
0.0
>>> compose(RewardSpec(), accuracy=None, format=1.0).total is None
True

A user's own graders add to it by their weights; one that failed masks the sample as the verifier's failure does:

>>> spec = RewardSpec(terms=(Term(grader="short", weight=0.5),))
>>> compose(spec, accuracy=1.0, format=0.0, scores={"short": 0.5}).total
1.25
>>> compose(spec, accuracy=1.0, format=0.0, scores={"short": None}).total is None
True
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Composition = Literal["additive", "format_gated", "accuracy_only", "accuracy_and_format", "sparkle"]


class OverlongSpec(BaseModel):
    """DAPO's soft overlong penalty (arXiv 2503.14476): 0 up to `max_tokens - buffer_tokens`, then linear.

    At `max_tokens` the penalty is `-factor`; a completion that is longer still pays proportionally more.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens: int = Field(gt=0)
    buffer_tokens: int = Field(gt=0)
    factor: float = Field(default=1.0, ge=0.0)

    @model_validator(mode="after")
    def _buffer_fits(self) -> Self:
        if self.buffer_tokens > self.max_tokens:
            raise ValueError(
                f"buffer_tokens is {self.buffer_tokens}, more than max_tokens {self.max_tokens}: "
                "even an empty completion would be punished; make the buffer smaller"
            )
        return self


class Term(BaseModel):
    """A user's own grader as a part of the reward: `weight` times its score. Weight 0 logs it and pays nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    grader: str = Field(description="the name of one of [[reward.graders]]")
    weight: float = 1.0


class RewardSpec(BaseModel):
    """Which composition, and its numbers.

    * `additive`: accuracy + format_weight x format, format paid whether or not the answer is right
      (prompt augmentation, arXiv 2602.03190; its weight is 1)
    * `format_gated`: the format is paid only when the answer is right
    * `accuracy_only`: the format is measured and logged, never paid
    * `accuracy_and_format`: 1 for a right answer in a whole format, 0 for all else (CrossThink, arXiv 2504.13941)
    * `sparkle`: 2 for that, 1 for a right answer in another format, -1 for a wrong one (SPARKLE, arXiv 2506.04723)

    `terms` add to each of them, whether or not the answer is right.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    compose: Composition = "additive"
    format_weight: float = Field(default=1.0, ge=0.0)
    overlong: OverlongSpec | None = None
    terms: tuple[Term, ...] = ()

    @model_validator(mode="after")
    def _each_term_once(self) -> Self:
        names = [term.grader for term in self.terms]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"terms: {twice!r} stands there twice; add up its weights")
        return self


@dataclass(frozen=True)
class RewardParts:
    """The total and what it was made of. `None`: not known (no verdict, no template, no length).

    terms: what each term paid, its weight counted in; None where its grader failed.
    """

    total: float | None
    accuracy: float | None
    format: float | None
    overlong: float | None
    terms: dict[str, float | None] = field(default_factory=dict)


def overlong_penalty(spec: OverlongSpec, n_tokens: int) -> float:
    """The penalty of a completion of `n_tokens` tokens: 0 or negative."""
    over_tokens = n_tokens - (spec.max_tokens - spec.buffer_tokens)
    return min(-over_tokens / spec.buffer_tokens * spec.factor, 0.0)


def compose(
    spec: RewardSpec,
    accuracy: float | None,
    format: float | None,
    n_tokens: int | None = None,
    scores: Mapping[str, float | None] | None = None,
) -> RewardParts:
    """The reward of one completion.

    accuracy: 0..1, or None when the verifier failed; the total is None then, and the sample must be masked.
    format: 0..1, or None without a template; counts 0.
    n_tokens: the completion's length; without it (the reward server) the overlong part is None and not added.
    scores: of the graders that are terms; one that is missing or None failed, and what is paid with a weight then
    leaves no total either.
    """
    overlong = None
    if spec.overlong is not None and n_tokens is not None:
        overlong = overlong_penalty(spec.overlong, n_tokens)
    terms = {term.grader: _times(term.weight, (scores or {}).get(term.grader)) for term in spec.terms}
    failed = any(term.weight and terms[term.grader] is None for term in spec.terms)
    if accuracy is None or failed:
        return RewardParts(None, accuracy, format, overlong, terms)
    total = _answer(spec, accuracy, format) + (overlong or 0.0)
    total += sum(paid for paid in terms.values() if paid is not None)
    return RewardParts(total, accuracy, format, overlong, terms)


def _answer(spec: RewardSpec, accuracy: float, format: float | None) -> float:
    """What an answer and its format earn by themselves."""
    right, formed = accuracy >= 1.0, format is None or format >= 1.0
    if spec.compose == "accuracy_and_format":
        return float(right and formed)
    if spec.compose == "sparkle":
        return (2.0 if formed else 1.0) if right else -1.0
    pays_format = spec.compose == "additive" or (spec.compose == "format_gated" and right)
    return accuracy + (spec.format_weight * (format or 0.0) if pays_format else 0.0)


def _times(weight: float, score: float | None) -> float | None:
    return None if score is None else weight * score
