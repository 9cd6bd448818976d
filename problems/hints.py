"""Hints: the first part of a problem's reference solution, appended to the problem. QuestA, arXiv 2507.13266.

    solution   '<think>a long search</think>Add 3 and 4: 7. Then take 5 away: 2.'
    block      'Add 3 and 4: 7. Then take 5 away: 2.'         after the last </think>
    prefix     'Add 3 and 4: 7. Th'                           the first half of its characters, rounded down
    prompt     problem, a blank line, '## Hint.', the prefix

Its code cuts by characters and its text speaks of tokens; `steps` cuts between steps, `parts` into SPARKLE's four
(arXiv 2506.04723). A prefix of under 10 characters is not given, and only the blank line is appended. At ratio 0 the
problem stays as it is.

SPARKLE gives the prefix as the beginning of the assistant's answer, inside its reasoning: there every length is given.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Literal

from chorus.protocol.messages import Problem

HintUnit = Literal["characters", "tokens", "steps", "parts"]
Refusal = Literal["no_solution", "answer_not_in_solution", "answer_in_hint"]
TokenEnds = Callable[[str], Sequence[int]]  # of a text: the place after each token, in characters
HEADING = "## Hint."
LEAST_CHARACTERS = 10
PARTS = 4  # of a solution; SPARKLE
_NUMBERED = re.compile(r"(?m)^(?=[ \t]*(?:(?:Step|STEP|step)\s+)?\(?\d{1,2}[.):])")
_SENTENCE = re.compile(r".+?(?:[.!?]\s+|\Z)", re.DOTALL)


def solution_block(solution: str) -> str:
    """The clean solution: surrounding quotes removed, and what a reasoning model thought before it."""
    return solution.strip("\"'").rpartition("</think>")[2]


def token_ends(tokenizer: Any, text: str) -> list[int]:
    """The place after each token of a text, in characters; `tokenizer`: a fast one of transformers."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return [end for _, end in encoded["offset_mapping"]]


def hint_prefix(problem: Problem, ratio: float, unit: HintUnit = "characters", ends: TokenEnds | None = None) -> str:
    """The first `ratio` of the problem's solution block, rounded down to whole units; `ends` where they are tokens.

    Raises ValueError for tokens without `ends`.
    """
    block = solution_block(problem.solution or "")
    if unit == "characters":
        return block[: math.floor(ratio * len(block))]
    if unit == "steps":
        steps = solution_steps(block)
        return "".join(steps[: math.floor(ratio * len(steps))])
    if unit == "parts":
        return "".join(solution_parts(block)[: math.floor(ratio * PARTS)])
    if ends is None:
        raise ValueError("hints by tokens need the tokenizer's `ends`")
    places = ends(block)
    count = math.floor(ratio * len(places))
    return block[: places[count - 1]] if count else ""


def solution_steps(block: str) -> list[str]:
    """Lines that say something, each with the blank ones around it; of a single line, its sentences. They join to the
    block."""
    lines: list[str] = []
    for line in block.splitlines(keepends=True):
        if lines and not (line.strip() and lines[-1].strip()):
            lines[-1] += line
        else:
            lines.append(line)
    return lines if len(lines) > 1 else _SENTENCE.findall(block)


def solution_parts(block: str) -> list[str]:
    """Four parts that join to the block: its paragraphs in even groups; where it has fewer than four, its numbered
    items, or else its sentences; its lines where all these are too few. The first k parts hold no more than k quarters
    of them: those of a short one may be empty."""
    pieces = paragraphs = _paragraphs(block)
    if len(paragraphs) < PARTS:
        numbered = [piece for piece in _NUMBERED.split(block) if piece]
        pieces = numbered if len(numbered) >= PARTS else _SENTENCE.findall(block)
    if len(pieces) < PARTS:
        pieces = max((paragraphs, solution_steps(block)), key=len)
    ends = [k * len(pieces) // PARTS for k in range(PARTS + 1)]
    return ["".join(pieces[first:end]) for first, end in pairwise(ends)]


def _paragraphs(block: str) -> list[str]:
    """Each with the blank lines behind it."""
    found: list[str] = []
    for line in block.splitlines(keepends=True):
        if found and not (line.strip() and _ends_blank(found[-1])):
            found[-1] += line
        else:
            found.append(line)
    return found


def _ends_blank(text: str) -> bool:
    """Whether its last line says nothing, behind one that does."""
    lines = text.splitlines()
    return len(lines) > 1 and not lines[-1].strip() and bool(text.strip())


def with_hint(problem: str, prefix: str) -> str:
    """The problem's text as the user's turn holds it."""
    return f"{problem}\n\n" + (HEADING + prefix if len(prefix) >= LEAST_CHARACTERS else "")


def hint_refusal(
    problem: Problem, prefix: str, reject_if_answer_in_hint: bool = True, least: int = LEAST_CHARACTERS
) -> Refusal | None:
    """Why this prefix of the problem's solution is no hint to give; None where it is one.

    QuestA drops problems whose answer, as written, does not occur in the solution block. It does not look for the
    answer in the hint.
    """
    block = solution_block(problem.solution or "")
    if not block.strip():
        return "no_solution"
    if not any(answer in block for answer in problem.answers):
        return "answer_not_in_solution"
    if reject_if_answer_in_hint and answer_in_hint(problem.answers, prefix, least):
        return "answer_in_hint"
    return None


def answer_in_hint(answers: Sequence[str], prefix: str, least: int = LEAST_CHARACTERS) -> bool:
    """Whether one of the answers stands in a hint that is given, as a word or number of its own: 2 is not in 12.

    least: characters, below which a prefix is not given.
    """
    return len(prefix) >= least and any(_stands_in(answer, prefix) for answer in answers)


def _stands_in(answer: str, text: str) -> bool:
    answer = " ".join(answer.split())
    before = r"(?<!\w)(?<!\d[.,])" if answer[:1].isalnum() else ""
    after = r"(?!\w|[.,]\d)" if answer[-1:].isalnum() else ""
    return bool(answer) and re.search(before + re.escape(answer) + after, " ".join(text.split())) is not None


def hinted(
    problems: Sequence[Problem], ratio: float, unit: HintUnit, tokenizer: Any, reject_if_answer_in_hint: bool = True
) -> tuple[list[tuple[Problem, str]], Counter[str]]:
    """Each problem with the text that asks it at this ratio, and the reasons why others can't be asked that way.

    A training run leaves the same problems out where its `curriculum.hints.reject_if_answer_in_hint` is the same.
    """
    if not ratio:
        return [(problem, problem.problem) for problem in problems], Counter()
    asked: list[tuple[Problem, str]] = []
    refused: Counter[str] = Counter()
    for problem in problems:
        prefix = hint_prefix(problem, ratio, unit, partial(token_ends, tokenizer))
        if (reason := hint_refusal(problem, prefix, reject_if_answer_in_hint)) is not None:
            refused[reason] += 1
        else:
            asked.append((problem, with_hint(problem.problem, prefix)))
    return asked, refused
