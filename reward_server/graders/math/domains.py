"""Parts of the real line, written as intervals, unions of them, or inequalities in one variable.

>>> same_domain("x < 2 or x > 3", "(-\\\\infty,2)\\\\cup(3,\\\\infty)")
True
>>> same_domain("(1,2)", "(1,3)") is None  # points, perhaps
True
"""

from __future__ import annotations

import re
from functools import reduce
from typing import Any

from sympy import Complement, FiniteSet, Integer, Intersection, Interval, Reals, Set, Union, oo

from chorus.reward_server.graders.math.algebra import formula
from chorus.reward_server.graders.math.shapes import split_top

_SIGNS = {
    "<": "<",
    "\\lt": "<",
    ">": ">",
    "\\gt": ">",
    "\\le": "<=",
    "\\ge": ">=",
    "<=": "<=",
    ">=": ">=",
    "\\ne": "!=",
}
_MIRROR = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!="}
_RELATION = re.compile(r"<=|>=|<|>|\\(?:lt|gt|le|ge|ne)(?![a-z])")
_TELLING = re.compile(
    _RELATION.pattern + r"|\\(?:cup|cap|setminus|backslash)(?![a-z])|\\mathbb\s*\{?\s*R|[(\[,]\s*[+-]?\s*\\infty"
)
_OR = re.compile(r"\\cup(?![a-z])|\\text\s*\{\s*or\s*\}|(?<![A-Za-z\\])or(?![A-Za-z])|\\(?:lor|vee)(?![a-z])")
_AND = re.compile(r"\\cap(?![a-z])|\\text\s*\{\s*and\s*\}|(?<![A-Za-z\\])and(?![A-Za-z])|\\(?:land|wedge)(?![a-z])")
_MINUS = re.compile(r"\\(?:setminus|backslash)(?![a-z])|-\s*(?=\\\{)")
_REALS = re.compile(r"(?:\\mathbb\s*\{?\s*R\s*\}?|\\R(?![a-z])|R)(?:\s*\^\s*\{?\s*(?P<half>[+-])\s*\}?)?")
_INTERVAL = re.compile(r"(?P<left>[(\[])(?P<ends>.*)(?P<right>[)\]])", re.DOTALL)
_MEMBER = re.compile(r"\s*([A-Za-z])\s*\\in(?![a-z])\s*(?!\\mathbb\s*\{?\s*[NZQC])")
_BUILDER = re.compile(
    r"\\\{\s*(?P<name>[A-Za-z])\s*(?:\\in(?![a-z])\s*(?:\\mathbb\s*\{?\s*R\s*\}?|R))?\s*(?:\\mid(?![a-z])|:|\|)\s*(?P<condition>.+)\\\}",
    re.DOTALL,
)
_VARIABLE = re.compile(r"\|?\s*(?P<name>[A-Za-z])\s*\|?")


def same_domain(answer: str, gold: str) -> bool | None:
    """Whether both are the same part of the line; None when one is no domain, or neither certainly one."""
    if not (_TELLING.search(answer) or _TELLING.search(gold)) or "\\ldots" in answer + gold:
        return None
    if (of_gold := read_domain(gold)) is None or (of_answer := read_domain(answer)) is None:
        return None
    (gold_set, gold_name), (answer_set, answer_name) = of_gold, of_answer
    if gold_name and answer_name and gold_name != answer_name:
        return False
    return gold_set == answer_set or gold_set.symmetric_difference(answer_set).is_empty is True


def has_relation(text: str) -> bool:
    """Whether an inequality (or a `not equal`) stands in a text."""
    return _RELATION.search(text) is not None


def joint(text: str) -> str:
    """The word that joins conditions: "and", "or", or "" where there is neither or both."""
    words = bool(_AND.search(text)), bool(_OR.search(text))
    return {(True, False): "and", (False, True): "or"}.get(words, "")


def read_domain(text: str) -> tuple[Set, str] | None:
    """(the set, the name of its variable or ""), or None when the text is no such set."""
    name = ""
    if (builder := _BUILDER.fullmatch(text)) is not None:
        name, text = builder["name"], builder["condition"]
    if (member := _MEMBER.match(text)) is not None:
        name, text = member[1], text[member.end() :]
    unions: list[Set] = []
    for part in _OR.split(text):
        pieces = [_piece(piece.strip()) for conjunct in _AND.split(part) for piece in _conjuncts(conjunct)]
        if not pieces or any(piece is None for piece in pieces):
            return None
        for _, variable in pieces:  # type: ignore[misc]
            if variable and name and variable != name:
                return None
            name = name or variable
        unions.append(reduce(Intersection, [domain for domain, _ in pieces]))  # type: ignore[misc]
    return Union(*unions), name


def _conjuncts(text: str) -> list[str]:
    """`x > 1, x < 2` are two conditions; an interval's comma is no separator."""
    return split_top(text, ",;") if _RELATION.search(text) else [text]


def _piece(text: str) -> tuple[Set, str] | None:
    if _RELATION.search(text):
        return _inequality(text)
    whole, *taken = _MINUS.split(text)
    domain = _plain(whole.strip())
    for part in taken:
        removed = _plain(part.strip())
        if domain is None or removed is None:
            return None
        domain = Complement(domain, removed)
    return None if domain is None else (domain, "")


def _plain(text: str) -> Set | None:
    if (reals := _REALS.fullmatch(text)) is not None:
        return _half_line({"+": ">", "-": "<"}[reals["half"]], Integer(0)) if reals["half"] else Reals
    if text.startswith("\\{") and text.endswith("\\}"):
        points = [_point(item) for item in split_top(text[2:-2])]
        return None if any(p is None for p in points) else FiniteSet(*points)
    if (interval := _INTERVAL.fullmatch(text)) is None:
        return None
    ends = [_point(end) for end in split_top(interval["ends"], ",;")]
    if len(ends) != 2 or any(end is None for end in ends):
        return None
    return Interval(*ends, left_open=interval["left"] == "(", right_open=interval["right"] == ")")


def _inequality(text: str) -> tuple[Set, str] | None:
    """A chain such as `1 < x \\le 2`: one side is the variable (or its absolute value), the others are numbers. Of
    `\\le 2` the variable has no name."""
    sides = [side.strip() for side in _RELATION.split(text)]
    signs = [_SIGNS[sign.group()] for sign in _RELATION.finditer(text)]
    if len(sides) == 2 and not sides[0]:
        end = _point(sides[1])
        return None if end is None else (_half_line(signs[0], end), "")
    places = [k for k, side in enumerate(sides) if _VARIABLE.fullmatch(side)]
    if len(places) != 1 or len(sides) > 3:
        return None
    (place,) = places
    domain: Set = Reals
    for k, sign in enumerate(signs):
        if place not in (k, k + 1):
            return None
        end = _point(sides[k + 1] if place == k else sides[k])
        if end is None:
            return None
        domain = Intersection(domain, _half_line(sign if place == k else _MIRROR[sign], end))
    variable = _VARIABLE.fullmatch(sides[place])
    if sides[place].startswith("|"):
        if len(sides) != 2:
            return None
        mirrored = _mirrored(signs[0] if place == 0 else _MIRROR[signs[0]], _point(sides[1 - place]))
        return None if mirrored is None else (mirrored, variable["name"])  # type: ignore[index]
    return domain, variable["name"]  # type: ignore[index]


def _half_line(sign: str, end: Any) -> Set:
    if sign == "!=":
        return Complement(Reals, FiniteSet(end))
    if sign.startswith("<"):
        return Interval(-oo, end, right_open=sign == "<")
    return Interval(end, oo, left_open=sign == ">")


def _mirrored(sign: str, end: Any) -> Set | None:
    """Where |x| stands in the relation to a number that is not negative."""
    if not end.is_nonnegative:
        return None
    if sign.startswith("<"):
        return Interval(-end, end, left_open=sign == "<", right_open=sign == "<")
    if sign.startswith(">"):
        return Union(Interval(-oo, -end, right_open=sign == ">"), Interval(end, oo, left_open=sign == ">"))
    return Complement(Reals, FiniteSet(end, -end))


def _point(text: str) -> Any:
    """A real number or an infinity, or None."""
    read = Integer(text) if re.fullmatch(r"-?\d{1,18}", text) else formula(text)
    if read is None or not getattr(read, "is_extended_real", False) or read.free_symbols:
        return None
    return read.doit()
