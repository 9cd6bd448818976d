"""Numbers in a base, and ratios: texts with rules of their own. No sympy here.

>>> read_based("10101_{2}")
Based(digits='10101', base=2)
>>> read_ratio("3 : 4")
('3', '4')
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_BASED = re.compile(
    r"\(?\s*(?P<digits>[0-9A-Z][0-9A-Z ,]*)\s*\)?\s*_\s*"
    r"(?:\{\s*(?:\\text\s*\{)?\s*(?P<base>\w+)\s*\}?\s*\}|(?P<digit>\d))"
)
_WORDS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_WORDS |= {"eleven": 11, "twelve": 12, "sixteen": 16}
_MAX_BASE = 36


@dataclass(frozen=True)
class Based:
    """Digits in a base."""

    digits: str
    base: int


def read_based(text: str) -> Based | None:
    """`2516_8`, `A2F_{16}`, `(101)_{\\text{two}}`; None for anything else (`x_1`, `a_2`)."""
    if (match := _BASED.fullmatch(text)) is None:
        return None
    digits = re.sub(r"[ ,]", "", match["digits"]).lstrip("0") or "0"
    name = match["base"] or match["digit"]
    base = int(name) if name.isdigit() else _WORDS.get(name.lower(), 0)
    if not any(c.isdigit() for c in match["digits"]) or not 2 <= base <= _MAX_BASE:
        return None
    return Based(digits, base) if all(int(c, _MAX_BASE) < base for c in digits) else None


def read_ratio(text: str) -> tuple[str, ...] | None:
    """The terms of `a : b : c`, or None. A time of day reads as one too: its terms must agree as well."""
    terms = [term.strip() for term in re.split(r":|\\colon(?![a-z])", text)]
    plain = all(re.fullmatch(r"[^\s=<>{}()]+|\\frac\{\d+\}\{\d+\}|\\sqrt\{\d+\}", term) for term in terms)
    return tuple(terms) if len(terms) > 1 and plain else None
