"""How large a number at least is, from its text alone: what no computer evaluates, no computer has to.

Towers of powers, factorials, binomial coefficients and products of digits, and nothing else: for those a lower
bound is arithmetic with logarithms, and a number with more digits than any plain gold is not that gold.

>>> least_digits("9^{9^{9^{9}}}") > 10**300
True
>>> round(least_digits("70!"))
100
>>> least_digits("9^{9}-9^{9}") is None
True
"""

from __future__ import annotations

import math
import re

MAX_CHARS = 200
INFINITE = math.inf

_NUMBER = re.compile(r"\d{1,100}")


def least_digits(text: str) -> float | None:
    """The common logarithm of the number, or of less; None when the text is anything else than described above."""
    if len(text) > MAX_CHARS:
        return None
    reader = _Reader(text.replace(" ", "").replace("\\cdot", "*").replace("\\times", "*"))
    try:
        found = reader.product()
    except (ValueError, RecursionError):
        return None
    return found if reader.at == len(reader.text) else None


class _Reader:
    """Recursive descent; every method returns a common logarithm and raises ValueError for what it does not know."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def product(self) -> float:
        total = self.power()
        while self._take("*"):
            total += self.power()
        return total

    def power(self) -> float:
        base = self.atom()
        while self._take("!"):
            base = _factorial(base)
        if not self._take("^"):
            return base
        exponent = self.power()
        return base * 10**exponent if exponent < 300 else (INFINITE if base > 0 else base)

    def atom(self) -> float:
        for opening, closing in (("(", ")"), ("{", "}")):
            if self._take(opening):
                inner = self.product()
                self._expect(closing)
                return inner
        if self._take("\\binom"):
            return self._binomial()
        if (number := _NUMBER.match(self.text, self.at)) is None or int(number.group()) == 0:
            raise ValueError(self.text)
        self.at = number.end()
        return math.log10(int(number.group()))

    def _binomial(self) -> float:
        logs = []
        for _ in range(2):
            self._expect("{")
            logs.append(self.product())
            self._expect("}")
        top, bottom = logs
        if not 0 <= bottom < top < 300:
            raise ValueError(self.text)
        return 10**bottom * (top - bottom)  # (n over k) is at least (n/k) to the k

    def _take(self, what: str) -> bool:
        if self.text.startswith(what, self.at):
            self.at += len(what)
            return True
        return False

    def _expect(self, what: str) -> None:
        if not self._take(what):
            raise ValueError(self.text)


def _factorial(log: float) -> float:
    if log < 15:
        return math.lgamma(round(10**log) + 1) / math.log(10)
    return INFINITE if log > 300 else 10**log  # n! is more than 10 to the n for such n
