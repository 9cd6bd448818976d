"""Formulas read and compared with sympy, by numbers first and by math-verify where numbers do not decide.

    constants          both evaluated, to 400 digits where 60 agree: equal or not
    in some variables  both evaluated at fixed points: a difference at one decides, agreement at enough decides
    all else           math-verify's comparison (relations, sets, sums, what evaluates nowhere)

Without an imaginary unit everything is real: odd roots of negative numbers are, and points where a side is not count
for nothing. Reading goes to latex2sympy directly: math-verify's `parse` searches a text for answers and drops letters
that it takes for units, and both are done before in this service. `published` is math-verify as arXiv 2602.03190
calls it.

MemoryError and RecursionError travel, also out of math-verify, which turns them into "not equal": they are a
verifier's failure, not a wrong answer.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import lru_cache, wraps
from itertools import accumulate, permutations
from typing import Any

import math_verify.grader
import math_verify.parser
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, NormalizationConfig, latex2sympy, normalize_latex
from math_verify import parse, verify
from mpmath.libmp import NoConvergence
from sympy import Add, Basic, Expr, Float, I, MatrixBase, PoleError, Rational, Symbol, binomial, factorial2
from sympy.matrices.expressions import MatrixExpr
from sympy.polys.polyerrors import BasePolynomialError

from chorus.reward_server.graders.math.exact import exact
from chorus.reward_server.graders.math.letters import as_letters
from chorus.reward_server.graders.math.marks import DOUBLE_FACTORIAL, marked
from chorus.reward_server.graders.math.numerics import same_by_numbers, to_number
from chorus.reward_server.graders.math.real import canonical

logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it warns about every disabled timeout
logging.getLogger("latex2sympy2_extended").setLevel(logging.CRITICAL)

_INDEX = re.compile(r"_\s*\{\s*i\s*=|\\(?:sum|prod)(?:_\{?i(?![a-z]))")
_COMPLEX = re.compile(r"(?<![A-Za-z\\])i(?![A-Za-z])|\\imath|\\sqrt\s*\{?\s*-|\\(?:text|operatorname)\s*\{\s*cis\s*\}")
_ANGLE = re.compile(r"(\d+(?:\.\d+)?)\s*\^\s*\{?\s*\\circ\s*\}?")
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])|\{\s*cis\s*\}")
_CIS = re.compile(
    r"\\text\s*\{\s*cis\s*\}\s*(?:\(((?:[^()]|\([^()]*\))*)\)|(\\frac\{[^{}]*\}\{[^{}]*\}|\d*\s*\\(?:pi|theta)(?:/\d+)?))"
)
_LOG, _LN = re.compile(r"\\log(?![A-Za-z]|\s*_)"), re.compile(r"\\ln(?![A-Za-z])")
_CONSTANT = re.compile(r"(?<![\\A-Za-z])(?:[CcKk]|[CcKk]_\{?\d\}?)(?![A-Za-z_])")
_VARIABLES = frozenset("xyztse")
MAX_CONSTANTS = 3  # whose names may be exchanged
MAX_DEPTH = 40  # of brackets: the grammar takes seconds for hundreds
MAX_WORDS = 40  # a text of more is prose, which the grammar would take for a product of its letters
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{4,}")
_LATEX = NormalizationConfig(basic_latex=True, malformed_operators=True, nits=True, boxed="none")
_CONVERSION = ConversionConfig(lowercase_symbols=False)
# What sympy raises about pairs that make no sense (a set minus a matrix, a series without an expansion): not equal.
_SENSELESS = (
    ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError,
    BasePolynomialError, NoConvergence, PoleError,
)  # fmt: skip

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
    if (known := exact(text)) is not None and known.bottom.bit_length() + known.top.bit_length() < 4000:
        return known.fraction()
    read = formula(text)
    if not isinstance(read, Expr) or read.free_symbols:
        return None
    number = to_number(canonical(read), {})
    return _exact(number) if isinstance(number, (Float, Rational)) else None


def same_formula(answer: str, gold: str) -> bool:
    """Whether two texts are the same mathematics."""
    answer, gold = _natural(answer, gold), _natural(gold, answer)
    is_complex = any(_COMPLEX.search(text) and not _INDEX.search(text) for text in (answer, gold))
    gold_read, answer_read = formula(gold, is_complex), formula(answer, is_complex)
    if gold_read is None or answer_read is None:
        return False
    try:
        if not is_complex:
            gold_read, answer_read = canonical(gold_read), canonical(answer_read)
        decided = _by_value(answer_read, gold_read, gold, is_complex)
    except _SENSELESS:
        return False
    return _verify(gold_read, answer_read) if decided is None else decided


def _natural(text: str, other: str) -> str:
    r"""A `\log` without a base is the natural one where the other text speaks of `\ln`, and common otherwise."""
    if _LOG.search(text) and _LN.search(other) and not (_LN.search(text) or _LOG.search(other)):
        return _LOG.sub(r"\\ln", text)
    return text


def _by_value(answer: Any, gold: Any, gold_text: str, is_complex: bool) -> bool | None:
    """None where numbers do not decide; of a matrix times a number sympy would look for one without an end."""
    if isinstance(gold, MatrixExpr) or isinstance(answer, MatrixExpr):
        return None
    decided = same_by_numbers(answer, gold, is_complex)
    if decided is not True and (_same_family(answer, gold, gold_text, is_complex) or _same_solutions(answer, gold)):
        return True
    return decided


def published(answer: str, gold: str) -> bool:
    """math-verify on two boxed texts, as the paper's reward calls it: any pair of candidates."""
    candidates = _watched(parse)(gold, parsing_timeout=0), _watched(parse)(answer, parsing_timeout=0)
    return any(_verify(g, a) for g in candidates[0] for a in candidates[1])


def parses(text: str) -> bool:
    """Whether a text is a formula."""
    return isinstance(formula(text), (Basic, MatrixBase))


def _same_family(answer: Any, gold: Any, gold_text: str, is_complex: bool) -> bool:
    """Whether they differ in the name of a constant of integration: a term `+ C`, beside another variable."""
    if not _CONSTANT.search(gold_text) or not (isinstance(gold, Add) and isinstance(answer, Add)):
        return False
    of_gold = [s for s in gold.args if isinstance(s, Symbol) and _CONSTANT.fullmatch(str(s))]
    of_answer = [s for s in answer.args if isinstance(s, Symbol) and s not in gold.free_symbols]
    if len(of_gold) != 1 or len(of_answer) != 1 or of_gold[0] in answer.free_symbols or len(gold.free_symbols) < 2:
        return False
    return same_by_numbers(answer.xreplace({of_answer[0]: of_gold[0]}), gold, is_complex) is True


def _same_solutions(answer: Any, gold: Any) -> bool:
    """Whether they differ in the names of arbitrary constants alone: `A e^x + B` and `C_1 e^x + C_2`."""
    if not (isinstance(answer, Expr) and isinstance(gold, Expr)):
        return False
    theirs = sorted((s for s in gold.free_symbols if _CONSTANT.fullmatch(str(s))), key=str)
    shared = gold.free_symbols - set(theirs)
    ours = sorted(answer.free_symbols - shared, key=str)
    if not shared or not theirs or len(ours) != len(theirs):
        return False
    names: Iterable[tuple[Any, ...]] = [tuple(theirs)]
    if not _arbitrary(gold, theirs, shared) or any(str(s)[1:2] not in ("", "_") or str(s) in _VARIABLES for s in ours):
        if [str(s).casefold() for s in ours] != [str(s).casefold() for s in theirs]:
            return False  # others may be given by the problem, and only their case is free
    else:
        names = permutations(theirs)
    renamed = (dict(zip(ours, order, strict=True)) for order in names)
    return any(same_by_numbers(answer.xreplace(each), gold, False) is True for each in renamed)


def _arbitrary(gold: Any, constants: list[Any], variables: set[Any]) -> bool:
    """Whether they are those of a general solution: C, or C_1, C_2, ..., of the first degree, beside x or t alone.
    `C_1 V` is the charge of one of two capacitors, `k x` the pull of a spring."""
    names = {str(s) for s in constants}
    known = names == {"C"} or all(name[:2] in ("C_", "c_") for name in names)
    if not known or len(names) > MAX_CONSTANTS or not {str(s) for s in variables} <= {"x", "t"}:
        return False
    return not any(gold.diff(constant).free_symbols & set(constants) for constant in constants)


@lru_cache(maxsize=512)
def _read(text: str, is_complex: bool) -> Any:
    if len(_WORD.findall(text)) > MAX_WORDS or _depth(text) > MAX_DEPTH:
        return None
    if _TRIGONOMETRIC.search(text):
        text = _ANGLE.sub(r"(\1 \\cdot \\frac{\\pi}{180})", text)
        text = _CIS.sub(r"(\\cos(\1\2)+i\\sin(\1\2))", text)
    text = normalize_latex(as_letters(marked(text), is_complex), _LATEX)
    # Never str() what this returns: for some expressions it takes exponential time.
    is_real = None if is_complex else True
    read = latex2sympy(
        text, is_real=is_real, convert_degrees=False, normalization_config=None, conversion_config=_CONVERSION
    )
    if DOUBLE_FACTORIAL in text and isinstance(read, Basic):
        read = read.replace(
            lambda part: isinstance(part, binomial) and str(part.args[1]) == DOUBLE_FACTORIAL,
            lambda part: factorial2(part.args[0]),
        )
    if is_complex and isinstance(read, (Basic, MatrixBase)):
        read = read.xreplace({Symbol("i"): I})
    return read


def _depth(text: str) -> int:
    """Brackets that are open at once, at most."""
    return max(accumulate(((c in "([{") - (c in ")]}") for c in text), initial=0))


def _exact(number: Any) -> Fraction | None:
    """A sympy Float from its mantissa and exponent, no string in between."""
    if isinstance(number, Rational):
        return Fraction(int(number.p), int(number.q))
    sign, mantissa, exponent, _ = number._mpf_
    if abs(exponent) > 2000:
        return None
    return (-1) ** sign * Fraction(int(mantissa)) * Fraction(2) ** exponent


def _verify(gold: Any, answer: Any) -> bool:
    try:
        return _watched(verify)(gold, answer, timeout_seconds=None, raise_on_error=True)
    except _SENSELESS:
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
