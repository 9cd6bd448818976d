r"""Exact values of texts that hold rational numbers and nothing else: sums, products, powers, factorials, binomials.

Integers of some hundred thousand digits are decided here in milliseconds, where an algebra system evaluates to a few
digits or runs out of time. What would need more than MAX_BITS is not computed.

>>> exact("\\frac{3^{60}+1}{2}") == exact("\\frac{3^{60}-1}{2}")
False
>>> exact("1-2^{-100}").fraction()
Fraction(1267650600228229401496703205375, 1267650600228229401496703205376)
>>> exact("x+1") is None
True
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

MAX_CHARS = 400
MAX_BITS = 4_000_000  # of one number: 1.2 million digits
MAX_DEPTH = 40
_SMALL_BITS = 20_000  # up to here a fraction is reduced
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?|\.\d+)|(?P<command>\\(?:frac|binom|sqrt|cdot|times|div|lfloor|rfloor"
    r"|lceil|rceil)(?![a-zA-Z]))"
    r"|(?P<sign>[-+*/^!(){}\[\]|]))"
)
_CLOSING = {"(": ")", "{": "}", "[": "]", "|": "|", "\\lfloor": "\\rfloor", "\\lceil": "\\rceil"}


class _NoNumber(Exception):
    """The text is no such number, or a larger one than is computed."""


@dataclass(frozen=True)
class Exact:
    """A rational number that need not be reduced; `decimal`: its text has a decimal point."""

    top: int
    bottom: int = 1
    decimal: bool = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Exact) and self.top * other.bottom == other.top * self.bottom

    def __hash__(self) -> int:
        return hash(self.fraction())

    def fraction(self) -> Fraction:
        return Fraction(self.top, self.bottom)


@lru_cache(maxsize=256)
def exact(text: str) -> Exact | None:
    """The rational number that a normalised text stands for, or None."""
    if len(text) > MAX_CHARS or not _COULD_BE.fullmatch(text):
        return None
    try:
        reader = _Reader(text)
        value = reader.sum()
        if reader.at < len(reader.tokens):
            return None
    except _NoNumber:
        return None
    return Exact(value.top, value.bottom, "." in text)


_COULD_BE = re.compile(
    r"(?:[-+*/^!(){}\[\]|\s\d.]|\\(?:frac|binom|sqrt|cdot|times|div|lfloor|rfloor|lceil|rceil)(?![a-zA-Z]))+"
)


class _Reader:
    """Recursive descent over the tokens."""

    def __init__(self, text: str) -> None:
        self.tokens: list[str] = []
        at = 0
        text = text.rstrip()
        while at < len(text):
            if (token := _TOKEN.match(text, at)) is None:
                raise _NoNumber
            self.tokens.append(token.group().strip())
            at = token.end()
        self.at = 0
        self.depth = 0

    def sum(self) -> Exact:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _NoNumber
        total = self.signed()
        while self.next in ("+", "-"):
            sign = self.take()
            term = self.product()
            if sign == "-":
                term = Exact(-term.top, term.bottom)
            total = _sum(total, term)
        self.depth -= 1
        return total

    def signed(self) -> Exact:
        negative = False
        while self.next in ("+", "-"):
            negative ^= self.take() == "-"
        value = self.product()
        return Exact(-value.top, value.bottom) if negative else value

    def product(self) -> Exact:
        plain = self.next[:1].isdigit()
        total = self.power()
        divided = False
        while True:
            if self.next in ("*", "\\cdot", "\\times"):
                self.take()
                total, plain = _product(total, self.signed_power()), False
            elif self.next in ("/", "\\div"):
                self.take()
                total, plain, divided = _quotient(total, self.signed_power()), False, True
            elif plain and self.next == "\\frac" and total.bottom == 1:
                total, plain = _sum(total, self._mixed()), False
            elif self.next in ("(", "\\frac", "\\binom", "\\sqrt") and not divided:
                total, plain = _product(total, self.power()), False
            else:
                return total

    def signed_power(self) -> Exact:
        if self.next == "-":
            self.take()
            value = self.power()
            return Exact(-value.top, value.bottom)
        return self.power()

    def power(self) -> Exact:
        base = self.atom()
        while self.next == "!":
            self.take()
            base = _double_factorial(base) if self._taken("!") else _factorial(base)
        if self.next != "^":
            return base
        self.take()
        exponent = self._exponent()
        if self.next == "!":
            raise _NoNumber
        return _power(base, exponent)

    def _exponent(self) -> Exact:
        if self.next == "-":
            self.take()
            value = self.power()
            return Exact(-value.top, value.bottom)
        return self.power()

    def atom(self) -> Exact:
        token = self.take()
        if token[:1].isdigit() or token[:1] == ".":
            if len(token) > MAX_CHARS:
                raise _NoNumber
            value = Fraction(token)
            return Exact(value.numerator, value.denominator)
        if token in ("(", "{", "["):
            return self._until(_CLOSING[token])
        if token == "|":
            value = self._until("|")
            return Exact(abs(value.top), value.bottom)
        if token in ("\\lfloor", "\\lceil"):
            value = self._until(_CLOSING[token])
            return Exact(value.top // value.bottom if token == "\\lfloor" else -(-value.top // value.bottom))
        if token == "\\frac":
            return _quotient(self._group(), self._group())
        if token == "\\binom":
            return _binomial(self._group(), self._group())
        if token == "\\sqrt":
            degree = self._until("]") if self._taken("[") else Exact(2)
            return _root(self._group(), degree)
        raise _NoNumber

    @property
    def next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        if self.at >= len(self.tokens):
            raise _NoNumber
        self.at += 1
        return self.tokens[self.at - 1]

    def _taken(self, token: str) -> bool:
        if self.next != token:
            return False
        self.at += 1
        return True

    def _until(self, closing: str) -> Exact:
        value = self.sum()
        if self.take() != closing:
            raise _NoNumber
        return value

    def _group(self) -> Exact:
        if self.take() != "{":
            raise _NoNumber
        return self._until("}")

    def _mixed(self) -> Exact:
        r"""`1\frac{1}{2}` is one and a half; `2\frac{3}{2}` and `2\frac{1+1}{3}` could be products."""
        self.take()
        top, bottom = self._plain_group(), self._plain_group()
        if not 0 < top < bottom or self.next in ("^", "!", "(", "\\frac", "\\cdot", "\\times", "*", "/"):
            raise _NoNumber
        return Exact(top, bottom)

    def _plain_group(self) -> int:
        opening, digits, closing = self.take(), self.take(), self.take()
        if opening != "{" or closing != "}" or not digits.isdigit():
            raise _NoNumber
        return int(digits) if len(digits) < 20 else 0


def _bits(value: Exact) -> int:
    return value.top.bit_length() + value.bottom.bit_length()


def _checked(top: int, bottom: int) -> Exact:
    if bottom == 0:
        raise _NoNumber
    if bottom < 0:
        top, bottom = -top, -bottom
    bits = top.bit_length() + bottom.bit_length()
    if bits > MAX_BITS:
        raise _NoNumber
    if bottom != 1 and bits < _SMALL_BITS:
        common = math.gcd(top, bottom)
        top, bottom = top // common, bottom // common
    return Exact(top, bottom)


def _sum(one: Exact, other: Exact) -> Exact:
    if _bits(one) + _bits(other) > MAX_BITS:
        raise _NoNumber
    if one.bottom == other.bottom:
        return _checked(one.top + other.top, one.bottom)
    return _checked(one.top * other.bottom + other.top * one.bottom, one.bottom * other.bottom)


def _product(one: Exact, other: Exact) -> Exact:
    if _bits(one) + _bits(other) > MAX_BITS:
        raise _NoNumber
    return _checked(one.top * other.top, one.bottom * other.bottom)


def _quotient(one: Exact, other: Exact) -> Exact:
    return _product(one, Exact(other.bottom, other.top) if other.top else _raise())


def _raise() -> Exact:
    raise _NoNumber


def _power(base: Exact, exponent: Exact) -> Exact:
    degree = exponent.bottom
    if degree != 1:
        if exponent.top % degree == 0:
            exponent, degree = Exact(exponent.top // degree), 1
        elif degree > 64:
            raise _NoNumber
        else:
            base, exponent = _root(base, Exact(degree)), Exact(exponent.top)
    if base.bottom == 1 and base.top in (0, 1, -1):
        if base.top == 0 and exponent.top <= 0:
            raise _NoNumber
        return Exact(base.top if exponent.top % 2 or base.top == 0 else 1)
    size = max(abs(base.top).bit_length(), base.bottom.bit_length())
    if size * abs(exponent.top) > MAX_BITS:
        raise _NoNumber
    top, bottom = base.top ** abs(exponent.top), base.bottom ** abs(exponent.top)
    return _checked(top, bottom) if exponent.top >= 0 else _checked(bottom, top)


def _whole(value: Exact) -> int:
    if value.top % value.bottom or value.top < 0:
        raise _NoNumber
    return value.top // value.bottom


def _factorial(value: Exact) -> Exact:
    number = _whole(value)
    if number.bit_length() > 24 or number * number.bit_length() > MAX_BITS:
        raise _NoNumber
    return Exact(math.factorial(number))


def _double_factorial(value: Exact) -> Exact:
    number = _whole(value)
    if number > 10_000:
        raise _NoNumber
    return Exact(math.prod(range(number, 0, -2)))


def _binomial(above: Exact, below: Exact) -> Exact:
    n, k = _whole(above), _whole(below)
    if n > 200_000:
        raise _NoNumber
    return Exact(math.comb(n, k))


def _root(value: Exact, degree: Exact) -> Exact:
    """A root that is rational; odd roots of negative numbers are real."""
    n = _whole(degree)
    if not 2 <= n <= 64 or (value.top < 0 and n % 2 == 0) or _bits(value) > _SMALL_BITS:
        raise _NoNumber
    common = math.gcd(value.top, value.bottom)
    top, bottom = _integer_root(abs(value.top) // common, n), _integer_root(value.bottom // common, n)
    return Exact(-top if value.top < 0 else top, bottom)


def _integer_root(number: int, n: int) -> int:
    if n == 2:
        root = math.isqrt(number)
    else:
        low, high = 0, 1 << (number.bit_length() // n + 1)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if middle**n <= number else (low, middle - 1)
        root = low
    if root**n != number:
        raise _NoNumber
    return root
