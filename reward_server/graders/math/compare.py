"""Whether a mathematical answer is one of the golds. Imported by the grader processes only (sympy).

`paper` asks math-verify alone, as published: one gold, the last. `train` and `strict` go through rules (`rules.py`),
each of which decides or passes on; what is left goes to algebra. docs/grading.md is the policy in words.
MemoryError and RecursionError travel: they are a verifier's failure, not a wrong answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from chorus.reward_server.graders.boxes import answer_box, boxes, joined, last_box, with_labels
from chorus.reward_server.graders.extraction import Extraction, Mode, extract, extract_parts
from chorus.reward_server.graders.math.algebra import parses, published
from chorus.reward_server.graders.math.forms import read_time
from chorus.reward_server.graders.math.normalise import normalise, unwrap
from chorus.reward_server.graders.math.numbers import read_number, read_ratio
from chorus.reward_server.graders.math.rules import Comparison, algebra, by_rules
from chorus.reward_server.graders.math.shapes import read_shape
from chorus.reward_server.graders.math.units import split_unit
from chorus.reward_server.graders.places import Place
from chorus.reward_server.graders.policy import Policy

__all__ = ["MAX_ANSWER_CHARS", "Comparison", "MathGrade", "compare", "grade_math", "is_expression"]

MAX_ANSWER_CHARS = 2000  # a longer text is prose or an attack, and parsing it costs the whole time limit
_PERCENT_SIGN = re.compile(r"\s*(?:\\?%|\\text\s*\{\s*(?:\\?%|per ?cent)\s*\}|(?<=[\d} ])per ?cent)$")


@dataclass(frozen=True)
class MathGrade:
    """The grade of one completion and the way to it."""

    verdict: str  # correct | wrong | no_answer
    extraction: Extraction
    comparisons: tuple[Comparison, ...]  # one a gold, up to the first that matches

    @property
    def rule(self) -> str:
        return self.comparisons[-1].rule if self.comparisons else "extraction"


def grade_math(
    completion: str,
    golds: Sequence[str],
    mode: Mode,
    *,
    place: Place | None = None,
    policy: Policy = Policy(),  # noqa: B008 - frozen
) -> MathGrade:
    """Grade a completion; any gold that matches makes it correct (in `paper` mode the last gold is the gold)."""
    found = extract(completion, mode, parses=is_expression, place=place, pay_unfinished=policy.unfinished_reasoning)
    if not found.text:
        return MathGrade("no_answer", found, ())
    comparisons: list[Comparison] = []
    for gold in golds[-1:] if mode == "paper" else golds:
        comparisons.append(compare(found.text, gold, mode, policy))
        if comparisons[-1].equal:
            return MathGrade("correct", found, tuple(comparisons))
        if mode == "train" and (parts := _in_parts(completion, found, gold)) is not None:
            again = compare(parts.text, gold, mode, policy)
            if again.equal:
                return MathGrade("correct", parts, (*comparisons[:-1], again))
    return MathGrade("wrong", found, tuple(comparisons))


def compare(answer: str, gold: str, mode: Mode, policy: Policy = Policy()) -> Comparison:  # noqa: B008 - frozen
    """Compare an extracted answer with one gold (bare, `$...$` or boxed)."""
    if mode == "paper":
        if "boxed" in gold:
            gold = last_box(gold) or gold
    else:
        gold = bare_gold(gold)
    if len(answer) > max(MAX_ANSWER_CHARS, 4 * len(gold)):
        return Comparison(False, "length", f"{len(answer)} characters are no answer; nothing was compared")
    if mode == "paper":
        return algebra(published(_boxed(answer), _boxed(gold)), "as published")
    answer, gold = normalise(answer), normalise(gold)
    compared = by_rules(answer, gold)
    if not compared.equal and mode == "train" and policy.percent_sign_optional:
        return _without_percent_sign(answer, gold) or compared
    return compared


@lru_cache(maxsize=1024)
def bare_gold(gold: str) -> str:
    """The gold without its boxes; several boxes are one list."""
    if "boxed" not in gold or (last := answer_box(gold)) is None:
        return gold
    spans = joined(gold, last)
    if len(spans) == 1:
        every = [span for span in boxes(gold) if not (last[0] <= span[0] <= last[1] or span[0] <= last[0] <= span[1])]
        spans = [*every[::-1], last]
    return ", ".join(dict.fromkeys(with_labels(gold, spans)))


@lru_cache(maxsize=256)
def is_expression(text: str) -> bool:
    """Whether a text can be read as mathematics: a number, or something that sympy can read."""
    if len(text) > MAX_ANSWER_CHARS or not (text := normalise(text)):
        return False
    if read_number(text) is not None or read_shape(text) is not None or read_ratio(text) is not None:
        return True
    value, unit = split_unit(text)
    return (bool(unit) and read_number(value) is not None) or read_time(text) is not None or parses(text)


def _in_parts(completion: str, found: Extraction, gold: str) -> Extraction | None:
    """The answer read once more as so many boxes as the gold has parts; None where that reads nothing else."""
    if "," not in gold and "and" not in gold and ";" not in gold and "boxed" not in gold and "pm" not in gold:
        return None
    shape = read_shape(normalise(bare_gold(gold)))
    if shape is None or shape.kind == "matrix" or len(shape.items) < 2:
        return None
    parts = extract_parts(completion, found, len(shape.items))
    return parts if parts is not None and parts.text != found.text else None


def _without_percent_sign(answer: str, gold: str) -> Comparison | None:
    """`10\\%` for a gold `10`: in what percent, the question said. A gold below one may be the share itself."""
    sign = _PERCENT_SIGN.search(answer)
    number = read_number(gold) if sign else None
    if sign is None or number is None or number.percent or abs(number.value) < 1:
        return None
    inner = by_rules(answer[: sign.start()], gold)
    return Comparison(True, "percent", "the gold's question names the percent sign") if inner.equal else None


def _boxed(text: str) -> str:
    return text if "\\boxed" in text else f"\\boxed{{{unwrap(text)}}}"
