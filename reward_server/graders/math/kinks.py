"""Where a formula may bend or jump, and points on both sides of there: |x|, max, min, roundings, even roots of sums.

Two formulas with such a part may agree on whole stretches of the line and differ beyond.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, cycle, islice, product
from typing import Any

from sympy import Abs, Add, Integer, Max, Min, Pow, Rational, ceiling, floor, sign

MAX_SIGNED = 3  # variables that have each sign on their own; the others share theirs
MAX_BENDS = 6  # arguments whose zeros are looked for
_BENDING = (Abs, Max, Min, floor, ceiling, sign)
_SIZES = (
    (Rational(7, 5), Rational(23, 9), Rational(4, 13), Rational(31, 11)),
    (Integer(2), Integer(3), Integer(1), Integer(5)),
    (Integer(1000), Integer(10), Integer(1001), Integer(100)),
    (Integer(0), Integer(1000), Integer(0), Integer(3)),
)
_STEPS = (Rational(-1, 3), Integer(0), Rational(1, 3))


def bends(expression: Any) -> list[Any]:
    """Its parts that bend or jump somewhere."""
    roots = [p for p in expression.atoms(Pow) if isinstance(p.exp, Rational) and p.exp.q % 2 == 0]
    parts = [*expression.atoms(*_BENDING), *(root for root in roots if isinstance(root.base, Add))]
    return [part for part in parts if part.free_symbols]


def points(parts: list[Any], symbols: list[Any]) -> Iterator[dict[Any, Any]]:
    """Points with all signs, near and far, and on and beside the zeros of the parts' linear arguments."""
    signed = min(len(symbols), MAX_SIGNED)
    for sizes, signs in product(_SIZES, product((1, -1), repeat=signed)):
        pairs = zip(symbols, islice(cycle(sizes), len(symbols)), cycle(signs), strict=False)
        yield {symbol: size * sign for symbol, size, sign in pairs}
    start = dict(zip(symbols, cycle(_SIZES[0]), strict=False))
    for argument in [argument for part in parts for argument in _arguments(part)][:MAX_BENDS]:
        for symbol in argument.free_symbols:
            if (zero := _zero(argument, symbol, start)) is not None:
                yield from (start | {symbol: zero + step} for step in _STEPS)


def _arguments(part: Any) -> list[Any]:
    """What changes its sign where the part bends."""
    arguments: tuple[Any, ...] = part.args
    if isinstance(part, (Max, Min)):
        return [one - other for one, other in combinations(arguments, 2)]
    return [arguments[0]]


def _zero(argument: Any, symbol: Any, start: dict[Any, Any]) -> Any:
    """Where an argument that is linear in a symbol vanishes, the others being as at the start."""
    slope = argument.diff(symbol)
    if slope.has(symbol):
        return None
    slope, height = slope.xreplace(start), argument.xreplace(start)
    return start[symbol] - height / slope if slope.is_Rational and slope != 0 and height.is_Rational else None
