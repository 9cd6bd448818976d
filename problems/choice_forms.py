"""Multiple choice in other forms: its options in another order, or as an open question. CrossThink, arXiv 2504.13941.

    Which gas do plants take up?          Which gas do plants take up?
                                     ─▶   answer: carbon dioxide                       `as_open`
    (A) oxygen
    (B) carbon dioxide               ─▶   (A) carbon dioxide (B) oxygen, answer A      `shuffled`, permutation [1, 0]

A question whose stem speaks of its options has no open form. The gold of an open one is the text of its option: graded
as mathematics where that is a number, as text else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

from chorus.problems.adapters.choices import LETTERS, Options, with_options
from chorus.protocol.messages import Problem

_OPTION = re.compile(r"\(([A-Z])\) (.*)")
_NUMBER = re.compile(r"\$?\s*[-+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:\s*/\s*\d+|[eE][-+]?\d+)?\s*\$?")
_REFERS = re.compile(
    r"\b(?:(?:which|any|one|all|none|each)\s+(?:\w+\s+)?of\s+(?:these|those|them|the\s+above)|the\s+(?:following|above)"
    r"|(?:the|these|those)\s+(?:\w+\s+)?(?:options?|choices|alternatives|statements)|options?\s+[A-E]"
    r"|which\s+(?:one|option|choice|statement|pair)|(?:choose|select|pick)\s+(?:the|an?|one|all)"
    r"|(?:is|are)\s+(?:not\s+)?(?:true|false|correct|incorrect)|except|(?:least|most)\s+likely|best\s+\w+s)\b"
    r"|\([a-e]\)|_{2,}",
    re.IGNORECASE,
)
_OF_OTHERS = re.compile(
    r"(?:all|none|both|neither|either|any|some)\s+of\s+(?:the|these|them)\b|\b(?:both|neither)\b.*\b[A-E]\b",
    re.IGNORECASE,
)


def split_options(problem: str) -> tuple[str, list[str]]:
    """(stem, options) of a text as `with_options` wrote it; no options where it holds none."""
    lines = problem.split("\n")
    first = len(lines)
    while first and _OPTION.fullmatch(lines[first - 1]):
        first -= 1
    found = [match for line in lines[first:] if (match := _OPTION.fullmatch(line))]
    lettered = "".join(match[1] for match in found) == LETTERS[: len(found)]
    if len(found) < 2 or not lettered or first < 2 or lines[first - 1]:
        return problem, []
    return "\n".join(lines[: first - 1]), [match[2] for match in found]


def refers_to_options(problem: str) -> bool:
    """Whether a multiple-choice question says nothing without its options: it speaks of them, one of them speaks of the
    others, or it is no question."""
    stem, options = split_options(problem)
    if "?" not in stem or _REFERS.search(stem) or "NOT" in stem.split():
        return True
    return any(_OF_OTHERS.match(option) for option in options)


def as_open(problem: Problem) -> Problem | None:
    """The question without its options; None where it has none, refers to them, or names no gold among them."""
    stem, options = split_options(problem.problem)
    if problem.kind != "choice" or not options or refers_to_options(problem.problem):
        return None
    golds = [options[at] for answer in problem.answers if 0 <= (at := LETTERS.find(answer)) < len(options)]
    if len(golds) != len(problem.answers) or not golds:
        return None
    kind = "math" if all(_NUMBER.fullmatch(gold) for gold in golds) else "text"
    return problem.model_copy(update={"problem": stem, "answers": golds, "kind": kind})


def shuffled(problem: Problem, seed: int) -> tuple[Problem, list[int]]:
    """The question with its options in another order, and that order: new option k is the old option permutation[k].

    The order is a function of the seed and the problem's id. A problem without options stays as it is.
    """
    stem, options = split_options(problem.problem)
    order = list(range(len(options)))
    Random(f"{seed}/{problem.id}").shuffle(order)
    return _reordered(problem, stem, options, order), order


def _reordered(problem: Problem, stem: str, options: Sequence[str], order: Sequence[int]) -> Problem:
    if not order:
        return problem
    texts = tuple(options[k] for k in order)
    answers = [LETTERS[order.index(LETTERS.index(answer))] for answer in problem.answers]
    text = with_options(stem, Options(("",) * len(texts), texts))
    return problem.model_copy(update={"problem": text, "answers": answers})
