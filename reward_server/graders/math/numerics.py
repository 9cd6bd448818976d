"""Two formulas told apart by numbers: constants to hundreds of digits, formulas in variables at fixed points."""

from __future__ import annotations

from functools import lru_cache
from itertools import cycle, islice
from typing import Any

from sympy import (
    Add,
    Derivative,
    Expr,
    Float,
    Integer,
    Integral,
    Limit,
    Mod,
    Pow,
    Product,
    Rational,
    Sum,
    log,
    nan,
    oo,
    zoo,
)
from sympy.core.function import AppliedUndef

from chorus.reward_server.graders.math import kinks

DIGITS = 60
CLOSE = Rational(1, 10**40)  # of the larger one
FINE_DIGITS = 400  # where DIGITS agree
FINE = Rational(1, 10**300)
CLOSE_FLOAT = Rational(1, 10**11)  # a Float in a formula was read with 15 digits
MIN_POINTS = 4  # agreements that make an identity
MAX_TERMS = 2000  # of a sum that is added up
# Values for the variables, in the order of their names: below and above one, no simple relations, and each variable
# negative at one of the first MIN_POINTS.
_POINTS = tuple(
    tuple(Rational(n, d) for n, d in point)
    for point in (
        ((7, 5), (23, 9), (4, 13), (31, 11), (17, 6), (8, 3)),
        ((3, 11), (5, 7), (29, 8), (2, 9), (13, 17), (6, 19)),
        ((-9, 7), (19, 12), (-2, 17), (15, 4), (-8, 3), (21, 5)),
        ((37, 10), (-11, 8), (5, 3), (-16, 7), (9, 20), (-14, 9)),
        ((-4, 15), (-7, 13), (-25, 6), (-3, 8), (-12, 5), (-1, 6)),
        ((12, 23), (41, 7), (8, 9), (14, 3), (5, 16), (26, 11)),
        ((53, 12), (1, 14), (33, 10), (6, 7), (47, 9), (2, 25)),
    )
)
# Where the formula has a value at few of those: larger ones, then whole numbers.
_MORE_POINTS = tuple(
    tuple(Rational(n, d) for n, d in point)
    for point in (
        ((61, 3), (97, 4), (143, 6), (79, 2), (211, 5), (163, 7)),
        ((17, 8), (43, 3), (59, 2), (101, 3), (37, 4), (71, 6)),
        ((3, 1), (5, 1), (2, 1), (7, 1), (4, 1), (6, 1)),
        ((4, 1), (7, 1), (3, 1), (5, 1), (2, 1), (9, 1)),
        ((5, 1), (3, 1), (8, 1), (2, 1), (6, 1), (4, 1)),
        ((8, 1), (6, 1), (5, 1), (9, 1), (3, 1), (7, 1)),
    )
)


def same_by_numbers(answer: Any, gold: Any, is_complex: bool) -> bool | None:
    """Equal, different, or None where numbers do not decide."""
    if not (isinstance(answer, Expr) and isinstance(gold, Expr)):
        return None
    if isinstance(answer, (Integer, Rational)) and isinstance(gold, (Integer, Rational)):
        return bool(answer == gold)
    if any(part.has(Derivative, Integral, Limit, AppliedUndef, nan, zoo, oo) for part in (answer, gold)):
        return None
    sums = answer.has(Sum, Product) or gold.has(Sum, Product)
    if sums and not (_adds_up(answer) and _adds_up(gold)):
        return bool(answer == gold)
    if sums and not (_is_short(answer) and _is_short(gold)):
        return None
    symbols: list[Any] = sorted(answer.free_symbols | gold.free_symbols, key=str)
    if not symbols:
        return _same_constants(answer, gold, is_complex)
    if len(symbols) > len(_POINTS[0]):
        return None
    agree = _agree(answer, gold, symbols, is_complex, sums)
    parts = [] if sums or is_complex or not agree else [*kinks.bends(answer), *kinks.bends(gold)]
    if parts and any(_same_at(answer, gold, at, is_complex) is False for at in kinks.points(parts, symbols)):
        return False
    return agree


def _agree(answer: Any, gold: Any, symbols: list[Any], is_complex: bool, sums: bool) -> bool | None:
    """Whether they agree at MIN_POINTS of the points; None where too few of them have values."""
    agreements = 0
    for points in (() if sums else _POINTS, _MORE_POINTS[2:] if sums else _MORE_POINTS):
        for point in points:
            at = dict(zip(symbols, islice(cycle(point), len(symbols)), strict=True))
            same = _same_at(answer, gold, at, is_complex)
            if same is False:
                return False
            agreements += same is True
            if agreements >= MIN_POINTS:
                return True
    return None


def to_number(expression: Any, at: dict[Any, Any], digits: int = DIGITS) -> Any:
    """The number that an expression is at a point; None when it has none there, or no finite one."""
    try:
        number = expression.xreplace(at) if at else expression
        if number.has(Sum, Product):
            if not _adds_up(number):
                return None
            number = number.doit()
        if number.has(Mod):
            number = number.doit()
        if not isinstance(number, (Integer, Rational)):
            number = number.evalf(digits)
        written_out = number.is_Number or all(part.is_Number for part in number.as_real_imag())
        return number if written_out and number.is_finite and number.is_comparable is not None else None
    except (ArithmeticError, AttributeError, NotImplementedError, TypeError, ValueError):
        return None  # sympy refuses to put numbers there


def _same_constants(answer: Any, gold: Any, is_complex: bool) -> bool | None:
    first = _same_at(answer, gold, {}, is_complex)
    if first is not True or answer.has(Float) or gold.has(Float):
        return first
    fine = _same_at(answer, gold, {}, is_complex, FINE_DIGITS, FINE)
    return bool(answer == gold) if fine and (_hides_a_term(answer) or _hides_a_term(gold)) else fine


def _hides_a_term(constant: Any) -> bool:
    """Whether one of its sums has a term too small for FINE to see: `1 - 10^{-1000}`."""
    for part in constant.atoms(Add):
        sizes = [abs(number) for term in part.args if (number := to_number(term, {}, 15)) is not None]
        sizes = [size for size in sizes if size.is_comparable and size != 0]
        if sizes and min(sizes) < FINE * max(sizes):
            return True
    return False


def _same_at(
    answer: Any, gold: Any, at: dict[Any, Any], is_complex: bool, digits: int = DIGITS, close: Any = CLOSE
) -> bool | None:
    """Equal or different at a point; None where a side has no value there, or no real one and should."""
    a, g = to_number(answer, at, digits), to_number(gold, at, digits)
    if a is None or g is None:
        return None
    if isinstance(a, Rational) and isinstance(g, Rational):
        return bool(a == g)
    if not is_complex and not (a.is_real and g.is_real and _is_real_inside(answer, at) and _is_real_inside(gold, at)):
        return None
    difference, size = abs(a - g), max(abs(a), abs(g))
    if not (difference.is_comparable and size.is_comparable):
        return None
    if answer.has(Float) or gold.has(Float):
        close = CLOSE_FLOAT
    if difference > close * size:
        size = max(size, _largest_term(answer, at), _largest_term(gold, at))
        if difference > close * size:
            return False
    return None if size > 10 ** (digits - 10) else True  # the digits that differ may lie beyond those evaluated


def _is_real_inside(expression: Any, at: dict[Any, Any]) -> bool:
    """Whether what stands under its roots and in its logarithms is positive there, so that no step leaves the reals."""
    for base in _roots_and_logarithms(expression):
        number = to_number(base, at, 15)
        if number is not None and (not number.is_comparable or number < 0):
            return False
    return True


@lru_cache(maxsize=128)
def _roots_and_logarithms(expression: Any) -> tuple[Any, ...]:
    if not expression.free_symbols:
        return ()
    powers = [p.base for p in expression.atoms(Pow) if not p.exp.is_integer and p.base.is_nonnegative is not True]
    logarithms = [part.args[0] for part in expression.atoms(log)]
    return tuple(base for base in [*powers, *logarithms] if base.free_symbols)


def _largest_term(expression: Any, at: dict[Any, Any]) -> Any:
    """Of a sum that may cancel to nothing: what its rounding is to be measured by."""
    if not isinstance(expression, Add) or len(expression.args) > 50:
        return Integer(0)
    sizes = [abs(number) for term in expression.args if (number := to_number(term, at)) is not None]
    return max((size for size in sizes if size.is_comparable), default=Integer(0))


def _adds_up(expression: Any) -> bool:
    """Whether each of its sums and products with numbered terms has few, or polynomial and geometric ones."""
    for part in expression.atoms(Sum, Product):
        for limit in part.limits:
            length = limit[-1] - limit[1] if len(limit) == 3 else oo
            if not length.is_number or length.is_infinite or length <= MAX_TERMS:
                continue
            powers = [p for p in part.function.atoms(Pow) if p.exp.has(limit[0])]
            is_geometric = all(not p.base.has(limit[0]) and p.exp.diff(limit[0]).is_number for p in powers)
            plain = part.function.xreplace(dict.fromkeys(powers, Integer(1)))
            if isinstance(part, Product) or not is_geometric or not plain.is_polynomial(limit[0]):
                return False
    return True


def _is_short(expression: Any) -> bool:
    """Whether its sums and products have numbered or few terms, so that they can be added up at whole numbers."""
    for part in expression.atoms(Sum, Product):
        for _, low, high in (limit for limit in part.limits if len(limit) == 3):
            length = high - low
            if length.is_number and not (length.is_comparable and -1 <= length <= MAX_TERMS):
                return False
        if any(len(limit) != 3 for limit in part.limits):
            return False
    return True
