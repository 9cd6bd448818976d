"""CrossThink's four filters (arXiv 2504.13941), each by a name: what of a source is not worth training on.

    gold-in-options   multiple choice whose gold is none of its options
    needs-options     multiple choice that says nothing without its options, so that it has no open form
    short-answer      an open answer of more than 10 words, which no rule can grade
    answered          mathematics without an answer

The first and the last are faults that a source is read with: such rows are counted there, and are no problems.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from chorus.problems.adapters.choices import UNCLEAR, UNMATCHED
from chorus.problems.adapters.golds import NO_ANSWER
from chorus.problems.choice_forms import refers_to_options
from chorus.problems.sources import Placed
from chorus.protocol.messages import Problem

MOST_WORDS = 10
FILTERS = ("gold-in-options", "needs-options", "short-answer", "answered")
_AT_LOADING = {"gold-in-options": (UNMATCHED, UNCLEAR), "answered": (NO_ANSWER,)}


def refused_by(problem: Problem, filters: Collection[str]) -> str | None:
    """The first of these filters that a problem does not pass."""
    if "needs-options" in filters and problem.kind == "choice" and refers_to_options(problem.problem):
        return "needs-options"
    is_open = problem.kind in ("math", "text")
    if "short-answer" in filters and is_open and all(len(gold.split()) > MOST_WORDS for gold in problem.answers):
        return "short-answer"
    return None


def apply(
    placed: Sequence[Placed], filters: Collection[str], unusable: Counter[str]
) -> tuple[list[Placed], Counter[str]]:
    """What is left, and how many each filter left out; `unusable`: of the source's rows, by reason."""
    left_out = Counter({name: sum(unusable[reason] for reason in _AT_LOADING.get(name, ())) for name in filters})
    kept = []
    for one in placed:
        if (name := refused_by(one.problem, filters)) is None:
            kept.append(one)
        else:
            left_out[name] += 1
    return kept, left_out
