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

>>> from chorus.protocol.rewards.spec import Term
>>> spec = RewardSpec(terms=(Term(grader="short", weight=0.5),))
>>> compose(spec, accuracy=1.0, format=0.0, scores={"short": 0.5}).total
1.25
>>> compose(spec, accuracy=1.0, format=0.0, scores={"short": None}).total is None
True
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from chorus.protocol.rewards.spec import OverlongSpec, PointsSpec, RewardSpec


@dataclass(frozen=True)
class RewardParts:
    """The total and what it was made of. `None`: not known (no verdict, no template, no length).

    terms: what each term paid, its weight counted in; None where its grader failed. paid: what the sample got for its
    place in its group and in the run (group.py), by name.
    """

    total: float | None
    accuracy: float | None
    format: float | None
    overlong: float | None
    terms: dict[str, float | None] = field(default_factory=dict)
    paid: dict[str, float] = field(default_factory=dict)


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
    *,
    verdict: str | None = None,
    truncated: bool = False,
    paid: Mapping[str, float] | None = None,
) -> RewardParts:
    """The reward of one completion.

    accuracy: 0..1, or None when the verifier failed; the total is None then, and the sample must be masked.
    format: 0..1, or None without a template; counts 0.
    n_tokens: the completion's length; without it (the reward server) the overlong part is None and not added.
    scores: of the graders that are terms; one that is missing or None failed, and what is paid with a weight then
    leaves no total either.
    verdict: tells a wrong answer from none, where they get different points. truncated: it was cut off. paid: further
    parts, which are added.
    """
    overlong = None
    if spec.overlong is not None and n_tokens is not None:
        overlong = overlong_penalty(spec.overlong, n_tokens)
    terms = {term.grader: _times(term.weight, (scores or {}).get(term.grader)) for term in spec.terms}
    more = dict(paid or {})
    failed = any(term.weight and terms[term.grader] is None for term in spec.terms)
    if accuracy is None or failed:
        return RewardParts(None, accuracy, format, overlong, terms, more)
    total = _answer(spec, accuracy, format, verdict) + (overlong or 0.0) + sum(more.values())
    total += sum(value for value in terms.values() if value is not None)
    if truncated and spec.stop_properly is not None:
        total = spec.stop_properly if spec.stop_properly < 0 else total * spec.stop_properly
    return RewardParts(total, accuracy, format, overlong, terms, more)


def _answer(spec: RewardSpec, accuracy: float, format: float | None, verdict: str | None) -> float:
    """What an answer and its format earn by themselves."""
    if spec.points is not None:
        return _points(spec.points, accuracy, format, verdict)
    right, formed = accuracy >= 1.0, format is None or format >= 1.0
    if spec.compose == "accuracy_and_format":
        return float(right and formed)
    if spec.compose == "sparkle":
        return (2.0 if formed else 1.0) if right else -1.0
    pays_format = spec.compose == "additive" or (spec.compose == "format_gated" and right)
    return accuracy + (spec.format_weight * (format or 0.0) if pays_format else 0.0)


def _points(points: PointsSpec, accuracy: float, format: float | None, verdict: str | None) -> float:
    formed = format is None or format >= 1.0
    answer = points.right if accuracy >= 1.0 else points.no_answer if verdict == "no_answer" else points.wrong
    if not formed and points.formless is not None:
        answer = points.formless
    return answer + (0.0 if format is None else points.format_right if formed else points.format_wrong)


def _times(weight: float, score: float | None) -> float | None:
    return None if score is None else weight * score
