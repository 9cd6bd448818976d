"""Problems asked with the first part of their reference solution, as QuestA trains on them (problems/hints.py)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from chorus.problems.hints import HintUnit, hint_prefix, hint_refusal, with_hint
from chorus.protocol.messages import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def hinted(
    problems: Sequence[Problem],
    ratio: float,
    unit: HintUnit,
    tokenizer: PreTrainedTokenizerFast,
    reject_if_answer_in_hint: bool = True,
) -> tuple[list[tuple[Problem, str]], Counter[str]]:
    """Each problem with the text that asks it, and the reasons why others can't be asked that way.

    A training run leaves the same problems out where its `curriculum.hints.reject_if_answer_in_hint` is the same.
    """
    if not ratio:
        return [(problem, problem.problem) for problem in problems], Counter()

    def token_ends(text: str) -> list[int]:
        encoded: Any = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return [end for _, end in encoded["offset_mapping"]]

    asked: list[tuple[Problem, str]] = []
    refused: Counter[str] = Counter()
    for problem in problems:
        prefix = hint_prefix(problem, ratio, unit, token_ends)
        if (reason := hint_refusal(problem, prefix, reject_if_answer_in_hint)) is not None:
            refused[reason] += 1
        else:
            asked.append((problem, with_hint(problem.problem, prefix)))
    return asked, refused
