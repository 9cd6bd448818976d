r"""Quantities that a question asks for, whose names hold digits: `f(1)+f(2)`, `|z_1-z_2|`, `\int_0^2 f(x)\,dx`.

Nothing here can be computed: each term has an unknown function or a letter with an index, and no number stands beside
it. `2x`, `x^2` and `\int_0^2 x\,dx` are no names: what equals them is a statement about x, right or wrong.
"""

from __future__ import annotations

import re

_GREEK = r"\\(?:alpha|beta|gamma|lambda|mu|omega|phi|rho|sigma|tau|theta|xi)"
_LETTER = rf"(?:[A-DF-Za-df-hj-z]|{_GREEK})"
_INDEX = r"(?:\s*_\s*(?:\{[\w+-]{1,6}\}|\w))"
_ARGUMENT = r"(?:\s*'*\s*\([^()=<>]{1,20}\))"
_INDEXED = rf"{_LETTER}{_INDEX}{_ARGUMENT}?"
_CALLED = rf"[f-huvFGHPQS]{_ARGUMENT}"
_UNKNOWN = rf"(?:{_INDEXED}|{_CALLED})"
_PRODUCT = rf"{_UNKNOWN}(?:\s*(?:\\cdot(?![a-z]))?\s*{_UNKNOWN}){{0,3}}"
_SUM = rf"-?\s*{_PRODUCT}(?:\s*[-+]\s*(?:{_PRODUCT}|\\ldots)){{0,8}}"
_POWER = rf"{_UNKNOWN}(?:\s*\^\s*(?:\d|\{{\s*\d\s*\}}))?"
_POWERS = rf"{_POWER}(?:\s*[-+]\s*{_POWER}){{1,8}}"  # x_1^2+x_2^2; a power alone may be meant to be solved
_BOUND = r"\s*(?:\{[^{}]{1,30}\}|\\infty(?![a-z])|\w)"
_OPERATOR = rf"\\(?:int|sum|prod|lim|max|min|sup|inf)(?![a-z])(?:\s*[_^]{_BOUND}){{0,2}}"
_QUANTITY = re.compile(
    rf"\s*(?:{_SUM}|{_POWERS}|\|\s*{_SUM}\s*\||{_OPERATOR}\s*\(?\s*{_SUM}\s*\)?\s*(?:d\s*[a-z])?"
    r"|\\sigma\s*\^\s*(?:2|\{\s*2\s*\}))\s*"
)


def is_quantity(text: str) -> bool:
    return len(text) < 200 and _QUANTITY.fullmatch(text) is not None
