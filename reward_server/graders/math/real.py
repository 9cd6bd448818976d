"""Formulas as they are meant over the real numbers, in sympy's terms, which are complex.

Sympy's `(-8)**(1/3)` is a complex number; a formula without an imaginary unit means -2. A decimal is the number that
it writes, not a binary one near it. The index of a sum has no name of its own.
"""

from __future__ import annotations

from typing import Any

from sympy import Abs, Basic, Derivative, Expr, Float, Function, MatrixBase, Pow, Product, Rational, Sum, Symbol, sign
from sympy import Integral as Integral_

MAX_NODES = 2000
MAX_NAMED = 50


def canonical(read: Any) -> Any:
    """The formula with real odd roots, exact decimals, nameless indices and derivatives taken of known functions."""
    if isinstance(read, MatrixBase):
        return read.applyfunc(canonical)
    if not isinstance(read, Basic) or not read.has(Float, Pow, Sum, Product, Integral_, Derivative):
        return read
    if read.has(Float):
        read = read.xreplace({number: _decimal(number) for number in read.atoms(Float)})
    if read.has(Derivative):
        read = read.replace(Derivative, _derivative)
    if isinstance(read, Expr) and read.has(Sum, Product, Integral_):
        read = _nameless(read)
    odd = [p for p in read.atoms(Pow) if _is_odd_root(p)]
    if odd and len(odd) < MAX_NODES:
        read = read.replace(_is_odd_root, _real_root)
    return read


def _derivative(function: Any, *variables: Any) -> Any:
    """The derivative; where the variable does not occur, that of an unknown function, which is no constant."""
    variable = variables[0][0]
    if function.has(variable) or (function.is_real and not function.free_symbols):  # `I` is a current
        return Derivative(function, *variables).doit()
    if len(function.free_symbols) + function.count_ops() > MAX_NAMED:  # the names of some take exponential time
        return Derivative(Function("unknown")(variable), *variables)
    return Symbol(f"derivative of {function} by {variables}", real=True)


def _decimal(number: Any) -> Any:
    text = str(number)
    return Rational(text) if len(text) < 40 and number.is_finite else number


def _is_odd_root(part: Any) -> bool:
    """A power that is complex where its base is negative, and need not be."""
    return (
        isinstance(part, Pow)
        and isinstance(part.exp, Rational)
        and part.exp.q % 2 == 1
        and part.exp.q > 1
        and part.base.is_nonnegative is not True
        and not part.base.is_imaginary
    )


def _real_root(part: Any) -> Any:
    size = Abs(part.base) ** part.exp
    return size if part.exp.p % 2 == 0 else sign(part.base) * size


def _nameless(read: Any, depth: int = 0) -> Any:
    """Bound variables named by their depth."""
    if not isinstance(read, Basic) or not read.args or depth > 8:
        return read
    arguments = [_nameless(argument, depth + 1) for argument in read.args]
    if isinstance(read, (Sum, Product, Integral_)):
        body, *limits = arguments
        names = {limit[0]: Symbol(f"index{depth}{k}") for k, limit in enumerate(limits)}
        return read.func(body.xreplace(names), *[tuple(part.xreplace(names) for part in limit) for limit in limits])
    return read.func(*arguments) if arguments != list(read.args) else read
