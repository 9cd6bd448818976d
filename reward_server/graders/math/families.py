r"""Values that a whole number runs through: `\frac{\pi}{4}+k\pi, k \in \mathbb{Z}`, and residue classes.

One set has many such writings: the start may be any of its values, the letter's sign is free, and a family is the union
of slower ones. Two sets are the same when their values within a common period are.

>>> by_family("-1+4k, k \\in \\mathbb{Z}", "n \\equiv 3 (mod 4)", None).equal
True
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from itertools import chain
from typing import Any

from sympy import Expr, N, Pow, Rational, Symbol, cancel, expand

from chorus.reward_server.graders.math.algebra import formula
from chorus.reward_server.graders.math.asides import split_condition, undescribed
from chorus.reward_server.graders.math.comparison import Ask, Comparison
from chorus.reward_server.graders.math.shapes import read_shape, split_top, unnamed

MAX_VALUES = 360  # of a common period
MAX_CHARS = 300
DIGITS = 40
_DEGREES = re.compile(r"(\d+(?:\.\d+)?|\))\s*\^\s*\{?\s*\\circ\s*\}?")
_NAME = re.compile(r"\s*[A-Za-z]\s*(?:=|\\in(?![a-z]))\s*|\s*[A-Za-z]\s*(?P<other>\\ne)(?![a-z])\s*")
_INTERVAL = re.compile(r"(?P<left>[(\[])(?P<ends>.*)(?P<right>[)\]])", re.DOTALL)
_RESIDUES = re.compile(
    r"(?:(?P<name>[A-Za-z])\s*\\equiv\s*)?(?P<residues>[^=]{1,80}?)\s*\(mod (?P<modulus>\d{1,9})\s*\)"
)
_UNION = re.compile(r"\\cup(?![a-z])")
_SPLIT = re.compile(r"(?<=\))\s*(?:,|;|\\text\s*\{\s*(?:and|or)\s*\})\s*")


@dataclass(frozen=True)
class _Family:
    """`start` and every whole multiple of `step` from there; intervals have a `length`, and `kind` says which ends are
    theirs, or that the values are left out."""

    start: Any
    step: Any
    length: Any = 0
    kind: str = ""


def by_family(answer: str, gold: str, _: Ask | None) -> Comparison | None:
    """Whether both run through the same values; no other verdict than that they do."""
    if not any("\\in" in text or "nteger" in text or "(mod " in text for text in (answer, gold)):
        return None
    if max(len(answer), len(gold)) > MAX_CHARS:
        return None
    of_answer, of_gold = _read(answer), _read(gold)
    if of_answer is None or of_gold is None or not (of_answer[1] or of_gold[1]):
        return None
    if not _same(of_answer[0], of_gold[0]):
        return None
    return Comparison(True, "family", "the same values, over all whole numbers")


def _read(text: str) -> tuple[list[_Family], bool] | None:
    """The families of an answer, and whether it says that its letter is a whole number."""
    if "(mod " in text:
        return (residues, True) if (residues := _classes(text)) else None
    plain, letters, kind = split_condition(undescribed(text))
    if kind not in ("Z", ""):
        return None
    shape = read_shape(plain)
    items = unnamed(shape.items) if shape and shape.kind in ("list", "set") else _UNION.split(plain)
    families = [_families(item, letters) for item in items]
    return ([*chain(*families)], kind == "Z") if all(families) else None


def _classes(text: str) -> list[_Family]:
    """`x \\equiv 1, 3 (mod 8)`, also as a list of such; nothing where a residue is no number."""
    found: list[_Family] = []
    for piece in _SPLIT.split(text):
        read = _RESIDUES.fullmatch(piece.strip())
        if read is None:
            return []
        shape = read_shape(read["residues"])
        for residue in shape.items if shape else (read["residues"],):
            start = formula(re.sub(r"^\s*[A-Za-z]\s*\\equiv\s*", "", residue))
            if start is None or getattr(start, "is_Integer", False) is not True:
                return []
            found.append(_Family(start, Rational(int(read["modulus"]))))
    return found if all(family.step for family in found) else []


def _families(text: str, letters: str) -> list[_Family]:
    """Of a value, with its name or left out by it, or of an interval; with `(-1)^k` one for each parity."""
    name = _NAME.match(text)
    kind, text = (name["other"] or "") if name else "", text[name.end() :] if name else text
    if not kind and (interval := _INTERVAL.fullmatch(text.strip())) is not None:
        ends = [_linear(end, letters) for end in split_top(interval["ends"], ",;")]
        if len(ends) == 2:
            pairs = [(low, high) for low, high in zip(*ends, strict=False) if cancel(low.step - high.step) == 0]
            kind = interval["left"] + interval["right"]
            return [_Family(low.start, low.step, N(high.start - low.start, DIGITS), kind) for low, high in pairs]
    return [_Family(found.start, found.step, 0, kind) for found in _linear(text, letters)]


def _linear(text: str, letters: str) -> list[_Family]:
    """A formula that is linear in its one letter, or is so where that is even and where it is odd."""
    if "^\\circ" in text.replace(" ", "").replace("{", ""):
        text = _DEGREES.sub(r"\1\\cdot\\frac{\\pi}{180}", text)
    read = formula(text)
    if not isinstance(read, Expr) or len(read.free_symbols) != 1:
        return []
    (letter,) = read.free_symbols
    if str(letter) in "xy" or (letters and str(letter) != letters):
        return []  # y = 2x+1 is a function, of whole numbers too
    whole = Symbol("whole", integer=True)
    turning = any(power.base == -1 for power in read.atoms(Pow))
    parts = [2 * whole, 2 * whole + 1] if turning else [whole]
    found: list[_Family] = []
    for part in parts:
        replaced: Any = read.subs(letter, part)
        step = replaced.diff(whole)
        if step.free_symbols or not step.is_real or not step.is_nonzero:
            return []
        found.append(_Family(expand(replaced).subs(whole, 0), step))
    return found


def _same(ours: list[_Family], theirs: list[_Family]) -> bool:
    """Whether the values are the same on a circle as long as the steps' common period."""
    unit = theirs[0].step
    steps = [cancel(family.step / unit) for family in (*ours, *theirs)]
    if not all(isinstance(step, Rational) for step in steps):
        return False
    lengths = [abs(Fraction(int(step.p), int(step.q))) for step in steps]
    period = reduce(_common, lengths)
    if any(period / length > MAX_VALUES for length in lengths):
        return False
    circles = [
        [
            _Family(value, length, family.length, family.kind)
            for value in _values(N(family.start / unit, DIGITS), length, period)
        ]
        for family, length in zip((*ours, *theirs), lengths, strict=True)
    ]
    one, other = [*chain(*circles[: len(ours)])], [*chain(*circles[len(ours) :])]
    return _covers(one, other, period) and _covers(other, one, period)


def _common(one: Fraction, other: Fraction) -> Fraction:
    return Fraction(math.lcm(one.numerator, other.numerator), math.gcd(one.denominator, other.denominator))


def _values(start: Any, step: Fraction, period: Fraction) -> list[Any]:
    return [start + Rational(k * step.numerator, step.denominator) for k in range(int(period / step))]


def _covers(one: list[_Family], other: list[_Family], period: Fraction) -> bool:
    return all(any(_alike(a, b) and _near(a.start - b.start, period) for a in one) for b in other)


def _alike(one: _Family, other: _Family) -> bool:
    return one.kind == other.kind and abs(one.length - other.length) < 10 ** (5 - DIGITS)


def _near(difference: Any, period: Fraction) -> bool:
    turns = difference / Rational(period.numerator, period.denominator)
    return bool(abs(turns - round(turns)) < 10 ** (5 - DIGITS))
