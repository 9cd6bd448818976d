"""Whether a mathematical answer is one of the golds. Imported by the grader processes only (sympy).

`paper` asks math-verify alone, as published. `train` and `strict` first decide by rules that need no algebra,
and ask math-verify only for what is left:

    normal forms equal > a number against a number > words > an equation chain > math-verify, piece by piece

math-verify's own timeouts use signals; they are off here, because the process limit is the limit. MemoryError
and RecursionError during a comparison travel: they are a verifier's failure, not a wrong answer.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from math_verify import parse, verify
from sympy import Basic, Expr, Float, MatrixBase

from reward_server.cleanup import normalise, squeeze, unwrap
from reward_server.extraction import Extraction, Mode, extract, last_box
from reward_server.numbers import Number, read_number, rounds_to, same_number
from reward_server.units import split_unit

logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it warns about every disabled timeout
logging.getLogger("latex2sympy2_extended").setLevel(logging.CRITICAL)

MAX_ANSWER_CHARS = 2000  # a longer text is prose or an attack, and parsing it costs the whole time limit
_EQUALS = re.compile(r"(?<![<>!\\:=])=(?!=)")
_NAME = re.compile(r"(?:[^\d+*/^=<>,;\-]|_\{?\d+\}?|\([^=]*\))+")  # f(x), \angle ABC, a_1, P(A \cup B), Area
_WORD = re.compile(r"[A-Za-z][A-Za-z' -]+")
_ORDERED = re.compile(r"^[(\[].*[)\]]$", re.DOTALL)


@dataclass(frozen=True)
class Comparison:
    """The outcome for one gold: equal or not, the rule that decided, and its reason in words."""

    equal: bool
    rule: str
    reason: str


@dataclass(frozen=True)
class MathGrade:
    """The grade of one completion and the way to it."""

    verdict: str  # correct | wrong | no_answer
    extraction: Extraction
    comparisons: tuple[Comparison, ...]  # one a gold, up to the first that matches

    @property
    def rule(self) -> str:
        return self.comparisons[-1].rule if self.comparisons else "extraction"


def grade_math(completion: str, golds: Sequence[str], mode: Mode) -> MathGrade:
    """Grade a completion; any gold that matches makes it correct."""
    found = extract(completion, mode, parses=is_expression)
    if not found.text:
        return MathGrade("no_answer", found, ())
    comparisons: list[Comparison] = []
    for gold in golds:
        comparisons.append(compare(found.text, gold, mode))
        if comparisons[-1].equal:
            return MathGrade("correct", found, tuple(comparisons))
    return MathGrade("wrong", found, tuple(comparisons))


def compare(answer: str, gold: str, mode: Mode) -> Comparison:
    """Compare an extracted answer with one gold (bare, `$...$` or boxed)."""
    if "boxed" in gold:
        gold = last_box(gold) or gold
    if len(answer) > max(MAX_ANSWER_CHARS, 4 * len(gold)):
        return Comparison(False, "length", f"{len(answer)} characters are no answer; nothing was compared")
    if mode == "paper":
        return _by_library(_boxed(answer), _boxed(gold), "as published")
    return _by_rules(normalise(answer), normalise(gold))


@lru_cache(maxsize=256)
def is_expression(text: str) -> bool:
    """Whether a text can be read as mathematics: a number, or something that math-verify parses."""
    if len(text) > MAX_ANSWER_CHARS or not (text := normalise(text)):
        return False
    return read_number(text) is not None or any(isinstance(p, (Basic, MatrixBase)) for p in _parsed(_boxed(text)))


def _by_rules(answer: str, gold: str) -> Comparison:
    if squeeze(answer) == squeeze(gold) and gold:
        return Comparison(True, "exact", "the same text after clean-up")
    gold_number, answer_number = read_number(gold), read_number(answer)
    if gold_number and answer_number:
        return _by_number(answer_number, gold_number)
    if (decided := _by_unit(answer, gold)) is not None:
        return decided
    if _WORD.fullmatch(gold) and _WORD.fullmatch(answer):
        equal = gold.casefold() == answer.casefold()
        return Comparison(equal, "words", "the same words" if equal else "other words")
    if (decided := _by_equation(answer, gold)) is not None:
        return decided
    if gold_number is not None and not gold_number.percent and re.search(r"\\?%$", answer):
        return Comparison(False, "percent", "the answer is in percent, the gold is not")
    if gold_number is not None and not _ORDERED.match(gold) and re.search(r"[,;]|\\text\{ *(?:or|and) *\}", answer):
        return Comparison(False, "several", "several values where the gold is one number")
    if gold_number is not None and gold_number.decimals:
        return _by_rounding(answer, gold, gold_number)
    return _by_library(_boxed(answer), _boxed(gold), "after clean-up")


def _by_number(answer: Number, gold: Number) -> Comparison:
    if same_number(gold, answer):
        return Comparison(True, "number", "the same number")
    if answer.percent and not gold.percent:
        return Comparison(False, "percent", "the answer is in percent, the gold is not")
    return Comparison(False, "number", "another number")


def _by_unit(answer: str, gold: str) -> Comparison | None:
    """Numbers with units: a unit may be missing on one side, and must be the same when both have one."""
    (gold_value, gold_unit), (answer_value, answer_unit) = split_unit(gold), split_unit(answer)
    if not gold_unit and not answer_unit:
        return None
    if gold_unit and answer_unit and gold_unit != answer_unit:
        return Comparison(False, "unit", f"the unit is {answer_unit!r}, the gold's is {gold_unit!r}")
    inner = _by_rules(answer_value, gold_value)
    return Comparison(inner.equal, inner.rule, f"{inner.reason}, units set aside")


def _by_equation(answer: str, gold: str) -> Comparison | None:
    """`x = 5` is the answer 5, `17 = 42` is not the answer 42: a leading name aside, each side must be it."""
    if _EQUALS.search(gold) or not _EQUALS.search(answer) or re.search(r"[,;]|\\text\{ *(?:or|and) *\}", answer):
        return None
    sides = [side.strip() for side in _EQUALS.split(answer)]
    if _NAME.fullmatch(sides[0]):
        sides = sides[1:]
    if not all(sides):
        return Comparison(False, "equation", "a side of the equation is empty")
    for side in reversed(sides):
        inner = _by_rules(side, gold)
        if not inner.equal:
            return Comparison(False, "equation", f"the side {side[:80]!r} of the equation is not the gold")
    return Comparison(True, "equation", "every side of the equation is the gold")


def _by_rounding(answer: str, gold: str, number: Number) -> Comparison:
    """A decimal gold stands for what rounds to it; the answer may be an expression such as `\\sqrt{2}`."""
    for parsed in _parsed(_boxed(answer)):
        if isinstance(parsed, Expr) and not parsed.free_symbols:
            value = parsed.doit().evalf(20)
            if isinstance(value, Float) and rounds_to(number, _exact(value)):
                return Comparison(True, "rounding", "the answer rounds to the gold")
    return _by_library(_boxed(answer), _boxed(gold), "after clean-up")


def _exact(value: Float) -> Fraction:
    """A sympy Float from its mantissa and exponent, no string in between."""
    sign, mantissa, exponent, _ = value._mpf_
    if abs(exponent) > 2000:
        return Fraction(0)
    return (-1) ** sign * Fraction(int(mantissa)) * Fraction(2) ** exponent


def _by_library(answer: str, gold: str, how: str) -> Comparison:
    for gold_parsed in _parsed(gold):
        for answer_parsed in _parsed(answer):
            if _same(gold_parsed, answer_parsed):
                return Comparison(True, "math-verify", f"math-verify finds them equal, {how}")
    return Comparison(False, "math-verify", f"math-verify finds no equality, {how}")


def _same(gold: Any, answer: Any) -> bool:
    # Sympy refuses many senseless pairs (a set minus a matrix) by raising; that pair is then not equal.
    try:
        return verify(gold, answer, timeout_seconds=None, raise_on_error=True)
    except (MemoryError, RecursionError):
        raise
    except Exception:
        return False


@lru_cache(maxsize=512)
def _parsed(boxed: str) -> tuple[Any, ...]:
    # Never str() one of these: for some expressions it takes exponential time.
    return tuple(parse(boxed, parsing_timeout=0))


def _boxed(text: str) -> str:
    return text if "\\boxed" in text else f"\\boxed{{{unwrap(text)}}}"
