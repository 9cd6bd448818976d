"""Filters of rollouts, as a page's address and a command line spell them, as one SQL condition with bound parameters.

    step=5  step=5:50  step=5,50     a number, a range with either end open, or several
    template=abel&template=formal    any of these
    q=three apples                   texts that hold all of these words, whatever their case
    -> ("step BETWEEN ? AND ? AND ...", [5, 50, ...])

No word of a filter ever becomes part of the SQL but names from the tables below.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

NUMBERS = {
    "step": "step",
    "staleness": "staleness",
    "level": "level",
    "hint": "hint_ratio",
    "length": "tokens",
    "reward": "reward",
    "accuracy": "accuracy",
    "format": "format",
    "advantage": "advantage",
    "group": '"group"',
    "sample": "sample",
}
WORDS = {"template": "template", "verdict": "verdict", "domain": "domain", "problem": "problem_id"}
WORDS |= {"generator": "generator", "kind": "kind"}
YES_NO = {"truncated": "truncated", "disputed": "disputed", "greedy": "(temperature = 0)"}
FILTERS = (*NUMBERS, *WORDS, *YES_NO, "q")
SORTS = {
    **{name: name for name in ("step", "group", "sample", "template", "verdict", "problem_id", "level", "domain")},
    **{name: name for name in ("reward", "accuracy", "format", "advantage", "staleness", "tokens", "entropy")},
    **{name: name for name in ("hint_ratio", "ratio", "generator", "grade_ms")},
    "length": "tokens",
    "problem": "problem_id",
    "hint": "hint_ratio",
}
# What a table shows; the arrays come with a single group.
SHOWN = (
    *("step", "group", "sample", "position", "problem_id", "template", "kind", "level", "domain", "hint_ratio"),
    *("verdict", "reward", "accuracy", "format", "overlong", "advantage", "extracted", "reason", "gold", "text"),
    *("tokens", "truncated", "finish_reason", "staleness", "oldest_step", "generator", "entropy", "ratio"),
    *("disputed", "shadow", "scores", "terms"),
)
MOST_ROWS = 1000


class BadFilter(ValueError):
    """What was asked can't be understood; its words are for the one who asked."""


@dataclass(frozen=True)
class Question:
    """A condition, its parameters, and an order; both are made of this module's own names."""

    where: str = "TRUE"
    parameters: list[object] = field(default_factory=list)
    order: str = "step DESC, position, sample"


def question(filters: Mapping[str, Sequence[str]], sort: str = "") -> Question:
    """From names to what was given for each. Raises BadFilter."""
    conditions, parameters = [], []
    for name, values in filters.items():
        for condition, given in _conditions(name, [value for value in values if value != ""]):
            conditions.append(condition)
            parameters += given
    return Question(" AND ".join(conditions) or "TRUE", parameters, _order(sort))


def _conditions(name: str, values: Sequence[str]) -> list[tuple[str, list[object]]]:
    if not values:
        return []
    if name in NUMBERS:
        pieces = [piece for value in values for piece in value.split(",") if piece.strip()]
        tests = [_number(name, piece.strip()) for piece in pieces]
        return [("(" + " OR ".join(test for test, _ in tests) + ")", [p for _, given in tests for p in given])]
    if name in WORDS:
        return [(f"{WORDS[name]} IN ({', '.join('?' * len(values))})", list(values))]
    if name in YES_NO:
        known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if values[0].lower() not in known:
            raise BadFilter(f"{name}: {values[0][:40]!r} is neither true nor false")
        return [(f"{YES_NO[name]} = ?", [known[values[0].lower()]])]
    if name == "q":
        return [("contains(lower(text), ?)", [word.lower()]) for value in values for word in value.split()]
    raise BadFilter(f"{name[:40]!r} is no filter; there are {', '.join(FILTERS)}")


def _number(name: str, piece: str) -> tuple[str, list[object]]:
    column = NUMBERS[name]
    low, colon, high = piece.partition(":")
    if not colon:
        return f"{column} = ?", [_read(name, low)]
    if low and high:
        return f"{column} BETWEEN ? AND ?", [_read(name, low), _read(name, high)]
    if low or high:
        return f"{column} {'>=' if low else '<='} ?", [_read(name, low or high)]
    return f"{column} IS NOT NULL", []


def _read(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadFilter(f"{name}: {text[:40]!r} is no number; give one, or a range such as 5:50")
    return number


def _order(sort: str) -> str:
    name = sort.removeprefix("-")
    if not sort:
        return Question.order
    if name not in SORTS:
        raise BadFilter(f"sort: {name[:40]!r} is no column to sort by; there are {', '.join(SORTS)}")
    return f'"{SORTS[name]}" {"DESC" if sort.startswith("-") else "ASC"} NULLS LAST, step DESC, position, sample'
