"""Formulas read and compared with sympy, by numbers first and by math-verify where numbers do not decide.

    constants          both evaluated to 40 digits: equal or not
    in some variables  both evaluated at fixed points: a difference at one decides, agreement at enough decides
    all else           math-verify's comparison (relations, sets, sums, what evaluates nowhere)

Reading goes to latex2sympy directly: math-verify's `parse` searches a text for answers and drops letters that it
takes for units, and both are done before in this service. `published` is math-verify as arXiv 2602.03190 calls it.

MemoryError and RecursionError travel, also out of math-verify, which turns them into "not equal": they are a
verifier's failure, not a wrong answer.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache, wraps
from typing import Any

import math_verify.grader
import math_verify.parser
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, NormalizationConfig, latex2sympy, normalize_latex
from math_verify import parse, verify
from sympy import Basic, Expr, Float, I, Integer, Integral, Limit, MatrixBase, Product, Rational, Sum, Symbol, nan, zoo
from sympy.core.function import AppliedUndef

logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it warns about every disabled timeout
logging.getLogger("latex2sympy2_extended").setLevel(logging.CRITICAL)

_DIGITS = 40
_CLOSE = Rational(1, 10**25)
_CLOSE_FLOAT = Rational(1, 10**11)  # a Float in a formula was read with 15 digits
_MIN_POINTS = 4  # agreements that make an identity
_COMPLEX = re.compile(r"(?<![A-Za-z\\])i(?![A-Za-z])|\\(?:mathrm|text|mathbf)\{i\}|\\imath|\\sqrt\s*\{?\s*-")
_ANGLE = re.compile(r"(\d+(?:\.\d+)?)\s*\^\s*\{?\s*\\circ\s*\}?")
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_LATEX = NormalizationConfig(basic_latex=True, malformed_operators=True, nits=True, boxed="none")
_CONVERSION = ConversionConfig(lowercase_symbols=False)
# Values for the variables, in the order of their names: both signs, below and above one, no simple relations.
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

_exhausted: list[BaseException] = []


def formula(text: str, is_complex: bool = False) -> Any:
    """The text as sympy reads it, or None. Raises MemoryError, RecursionError."""
    try:
        return _read(text, is_complex)
    except (MemoryError, RecursionError):
        raise
    except Exception:  # the grammar, and what sympy refuses to build
        return None


def value(text: str) -> Fraction | None:
    """The real number that a text without variables stands for, to 40 digits; None when it is none."""
    read = formula(text)
    if not isinstance(read, Expr) or read.free_symbols:
        return None
    number = _evaluate(read, {})
    return _exact(number) if isinstance(number, Float) else None


def same_formula(answer: str, gold: str) -> bool:
    """Whether two texts are the same mathematics."""
    is_complex = _COMPLEX.search(answer) is not None or _COMPLEX.search(gold) is not None
    gold_read, answer_read = formula(gold, is_complex), formula(answer, is_complex)
    if gold_read is None or answer_read is None:
        return False
    if (decided := _same_by_numbers(answer_read, gold_read)) is not None:
        return decided
    return _verify(gold_read, answer_read)


def published(answer: str, gold: str) -> bool:
    """math-verify on two boxed texts, as the paper's reward calls it: any pair of candidates."""
    candidates = _watched(parse)(gold, parsing_timeout=0), _watched(parse)(answer, parsing_timeout=0)
    return any(_verify(g, a) for g in candidates[0] for a in candidates[1])


def parses(text: str) -> bool:
    """Whether a text is a formula."""
    return isinstance(formula(text), (Basic, MatrixBase))


@lru_cache(maxsize=512)
def _read(text: str, is_complex: bool) -> Any:
    if _TRIGONOMETRIC.search(text):
        text = _ANGLE.sub(r"(\1 \\cdot \\frac{\\pi}{180})", text)
    text = normalize_latex(text, _LATEX)
    # Never str() what this returns: for some expressions it takes exponential time.
    is_real = None if is_complex else True
    read = latex2sympy(
        text, is_real=is_real, convert_degrees=False, normalization_config=None, conversion_config=_CONVERSION
    )
    if is_complex and isinstance(read, (Basic, MatrixBase)):
        read = read.xreplace({Symbol("i"): I})
    return read


def _same_by_numbers(answer: Any, gold: Any) -> bool | None:
    """Equal, different, or None where numbers do not decide."""
    if not (isinstance(answer, Expr) and isinstance(gold, Expr)):
        return None
    if isinstance(answer, (Integer, Rational)) and isinstance(gold, (Integer, Rational)):
        return bool(answer == gold)
    if any(part.has(Sum, Product, Integral, Limit, AppliedUndef, nan, zoo) for part in (answer, gold)):
        return None
    symbols: list[Any] = sorted(answer.free_symbols | gold.free_symbols, key=str)
    close = _CLOSE_FLOAT if answer.has(Float) or gold.has(Float) else _CLOSE
    agreements = 0
    for point in _POINTS if symbols else ((),):
        if len(symbols) > len(_POINTS[0]):
            return None
        at = dict(zip(symbols, point, strict=False))
        a, g = _evaluate(answer, at), _evaluate(gold, at)
        if a is None or g is None:
            continue
        difference, size = abs(a - g), max(abs(a), abs(g))
        if not (difference.is_comparable and size.is_comparable):
            continue
        if difference > close * max(size, close):
            return False
        if size > 10 ** (_DIGITS - 10):
            return None  # the digits that differ may lie beyond those evaluated
        agreements += 1
    return True if agreements >= (_MIN_POINTS if symbols else 1) else None


def _evaluate(expression: Any, at: dict[Any, Any]) -> Any:
    """The number that an expression is at a point; None when it is not finite."""
    number = expression.xreplace(at).evalf(_DIGITS) if at else expression.evalf(_DIGITS)
    return number if number.is_number and number.is_finite and number.is_comparable is not None else None


def _exact(number: Float) -> Fraction | None:
    """A sympy Float from its mantissa and exponent, no string in between."""
    sign, mantissa, exponent, _ = number._mpf_
    if abs(exponent) > 2000:
        return None
    return (-1) ** sign * Fraction(int(mantissa)) * Fraction(2) ** exponent


def _verify(gold: Any, answer: Any) -> bool:
    # Sympy refuses many senseless pairs (a set minus a matrix) by raising; that pair is then not equal.
    try:
        return _watched(verify)(gold, answer, timeout_seconds=None, raise_on_error=True)
    except (MemoryError, RecursionError):
        raise
    except Exception:
        return False


def _watched(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of math-verify, raising what ran out inside it although the library went on."""

    def watched(*args: Any, **kwargs: Any) -> Any:
        _exhausted.clear()
        result = function(*args, **kwargs)
        if _exhausted:
            raise _exhausted[0]
        return result

    return watched


def _reporting(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def reporting(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (MemoryError, RecursionError) as error:
            _exhausted.append(error)
            raise

    return reporting


# The two places where math-verify meets what a completion can make expensive, and swallows every exception.
math_verify.parser.parse_latex_cached = _reporting(math_verify.parser.parse_latex_cached)
math_verify.grader.simplify = _reporting(math_verify.grader.simplify)
