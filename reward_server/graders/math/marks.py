r"""Marks that make another thing of a letter, and that the parser of formulas drops or takes for something else.

A primed letter, the order of a derivative (`f^{(3)}`) and the product of two vectors get names of their own, a double
factorial becomes a binomial, and a transposition a power, so that it is seen at all.

>>> marked("y''+y=0")
'y_{primed2}+y=0'
>>> marked("A^T B")
'A^{(T)} B'
>>> without_vectors(r"\vec b \times \vec a")
'(-v_{crossab})'
"""

from __future__ import annotations

import re

DOUBLE_FACTORIAL = "n_{doublefactorial}"  # the lower part of a binomial that stands for one
_LETTER = r"(?<![\\A-Za-z])(?P<letter>[A-Za-z])(?:_(?:\{(?P<braced>\w+)\}|(?P<index>\w)))?\s*"
_PRIMES = re.compile(rf"{_LETTER}(?P<primes>'+|\^\s*(?:\\prime(?![a-z])|\{{\s*(?:(?:'|\\prime(?![a-z]))\s*)+\}}))")
_PRIME = re.compile(r"'|\\prime")
_ORDER = re.compile(rf"{_LETTER}\^\s*\{{\s*\((?P<order>\d{{1,2}}\)\s*\}}|[a-z]\)\s*\}}(?=\s*\())")
_TRANSPOSED = re.compile(r"\^\s*(?:T(?![A-Za-z])|\{\s*T\s*\})")
_ADJOINT = re.compile(r"\^\s*(?:\\dagger(?![a-z])|\{\s*\\dagger\s*\})")
_TWICE = re.compile(r"(?P<of>\((?:[^()]|\([^()]*\))*\)|(?<![A-Za-z\\])[A-Za-z]|\d+)\s*!!(?!!)")
_TEXT = re.compile(r"\\text\s*\{[^{}]*\}")
_VECTOR = r"\\(?:vec|mathbf|boldsymbol|bm)\s*(?:\{\s*([A-Za-z])\s*\}|(?<=vec)\s*([a-z])(?![A-Za-z])|(?<=vec )([a-z]))"
_CROSS = re.compile(rf"{_VECTOR}\s*\\times(?![a-z])\s*{_VECTOR}")


def marked(text: str) -> str:
    """The text with its marks as names. Raises ValueError where a prime belongs to no letter."""
    if "'" in text or "\\prime" in text:
        text = _PRIMES.sub(lambda found: _named(found, f"primed{len(_PRIME.findall(found['primes']))}"), text)
        if _PRIME.search(_TEXT.sub("", text)):
            raise ValueError("a prime that belongs to no letter")
    if "^" in text:
        text = _ORDER.sub(lambda found: _named(found, "primed" + re.sub(r"\W", "", found["order"])), text)
        text = _ADJOINT.sub("^{(T_{adjoint})}", _TRANSPOSED.sub("^{(T)}", text))
    if "!!" in text:
        text = _TWICE.sub(lambda found: f"\\binom{{{found['of']}}}{{{DOUBLE_FACTORIAL}}}", text)
    return text


def without_vectors(text: str) -> str:
    """The text with a name for each product of two vectors; turned round it has the other sign."""
    return _CROSS.sub(_crossed, text) if "\\times" in text else text


def _named(found: re.Match[str], mark: str) -> str:
    return f"{found['letter']}_{{{found['braced'] or found['index'] or ''}{mark}}}"


def _crossed(found: re.Match[str]) -> str:
    letters = [letter for letter in found.groups() if letter]
    name = f"v_{{cross{''.join(sorted(letters))}}}"
    return name if letters == sorted(letters) else f"(-{name})"
