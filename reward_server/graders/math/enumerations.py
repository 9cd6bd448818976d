r"""Lists that dots shorten and sets of integers that a condition describes, written out item by item.

>>> enumerated("1, 3, \\ldots, 11")
'1, 3, 5, 7, 9, 11'
>>> enumerated("\\{x \\in \\mathbb{Z} \\mid -1 \\le x < 2\\}")
'\\{-1, 0, 1\\}'
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from itertools import pairwise

from sympy import Interval, Set, oo

from chorus.reward_server.graders.math.asides import split_condition
from chorus.reward_server.graders.math.comparison import Ask, Comparison
from chorus.reward_server.graders.math.domains import has_relation, read_domain
from chorus.reward_server.graders.math.numbers import read_number
from chorus.reward_server.graders.math.shapes import split_top

MAX_ITEMS = 1000
_DOTS = re.compile(r"\s*,\s*\\ldots\s*,?\s*(?=[-+\d\\])")
_BRACKETS = re.compile(r"(?P<open>\\\{|\(|\[|)(?P<inner>.*?)(?P<close>\\\}|\)|\]|)", re.DOTALL)
_INTEGERS = r"\\mathbb\s*\{?\s*Z\s*\}?(?P<part>\s*(?:\^|_)\s*\{?\s*(?:[+*]|>\s*0|\\ge\s*0)\s*\}?)?"
_BUILDER = re.compile(
    rf"\\\{{\s*(?P<name>[A-Za-z])\s*\\in(?![a-z])\s*{_INTEGERS}\s*(?:\\mid(?![a-z])|:|\||,)\s*(?P<condition>.+)\\\}}",
    re.DOTALL,
)


def by_enumeration(answer: str, gold: str, ask: Ask) -> Comparison | None:
    """Both written out; another form of the same set is for the rules behind this one."""
    written = enumerated(answer), enumerated(gold)
    if written == (answer, gold) or any("\\ldots" in text for text in written):
        return None
    inner = ask(*written)
    return Comparison(True, "enumeration", "the same items, written out") if inner.equal else None


def enumerated(text: str) -> str:
    """The text with its items one by one; as it is where it says no such list or its items are too many."""
    if "\\ldots" in text:
        return _without_dots(text)
    if (builder := _BUILDER.fullmatch(text)) is not None:
        return _integers(builder["condition"], builder["part"]) or text
    if has_relation(text):
        plain, _, kind = split_condition(text)
        if kind.startswith("Z") and plain != text:
            return _integers(plain, kind[1:]) or text
    return text


def _without_dots(text: str) -> str:
    whole = _BRACKETS.fullmatch(text)
    items = split_top(_DOTS.sub(", \\\\ldots, ", whole["inner"])) if whole else []
    if whole is None or items.count("\\ldots") != 1:
        return text
    at = items.index("\\ldots")
    before, after = _numbers(items[:at]), _numbers(items[at + 1 :])
    if not before or not after:
        return text
    every = _arithmetic(before, after)
    return f"{whole['open']}{', '.join(map(_written, every))}{whole['close']}" if every else text


def _numbers(items: list[str]) -> list[Fraction]:
    found = [read_number(item) for item in items]
    return [n.value for n in found if n is not None] if all(n is not None and not n.percent for n in found) else []


def _arithmetic(before: list[Fraction], after: list[Fraction]) -> list[Fraction]:
    """All terms of the progression; none where the terms shown are of no single one."""
    steps = {b - a for terms in (before, after) for a, b in pairwise(terms)}
    if not steps and before[0].denominator == after[0].denominator == 1:
        steps = {Fraction(1)}  # 1, ..., 10
    if len(steps) != 1 or not (step := steps.pop()):
        return []
    count = (after[-1] - before[0]) / step
    if count.denominator != 1 or not len(before) + len(after) - 1 <= count < MAX_ITEMS:
        return []
    if step != 1 and len(before) == 2 and _may_be_geometric(before, after):
        return []
    return [before[0] + k * step for k in range(int(count) + 1)]


def _may_be_geometric(before: list[Fraction], after: list[Fraction]) -> bool:
    """Whether `2, 4, ..., 16` may go on with 8."""
    ratio = before[1] / before[0] if before[0] else Fraction(0)
    if not ratio or abs(ratio) == 1 or after[-1] / before[1] <= 0:
        return False
    power = math.log(after[-1] / before[1]) / math.log(abs(ratio))
    return power > 0 and before[1] * ratio ** round(power) == after[-1]


def _written(number: Fraction) -> str:
    if number.denominator == 1:
        return str(number)
    return f"{'-' if number < 0 else ''}\\frac{{{abs(number.numerator)}}}{{{number.denominator}}}"


def _integers(condition: str, part: str | None) -> str:
    """The integers that a condition on one letter leaves, as a set; "" where they are not bounded."""
    if (read := read_domain(condition)) is None:
        return ""
    domain: Set = read[0].intersect(Interval(1, oo)) if part and re.search(r"[+*>]", part) else read[0]
    if domain.is_empty is not False:
        return ""
    low, high = domain.inf, domain.sup
    if not (low.is_finite and high.is_finite and high - low < MAX_ITEMS):
        return ""
    items = [n for n in range(math.ceil(low), math.floor(high) + 1) if domain.contains(n) == True]  # noqa: E712
    return f"\\{{{', '.join(map(str, items))}\\}}"
