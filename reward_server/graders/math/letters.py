r"""Letters that the parser of formulas takes for something else.

The small gamma is its gamma function or Euler's constant, `e` and `E` with an index nothing at all, `I` the imaginary
unit, and a `d` makes a differential of whatever follows, be it `\sqrt`. They get signs that nobody uses.

>>> as_letters(r"1-\gamma v")
'1-\\Game  v'
>>> as_letters(r"d\sqrt{2}"), as_letters(r"x\,dx+y\,dy")
('{d}\\sqrt{2}', 'x\\,dx+y\\,dy')
"""

from __future__ import annotations

import re

_SIGNS = {
    "\\gamma": "\\Game ", "\\Gamma": "\\Finv ", "\\aleph": "\\bigstar ", "e": "\\eth ", "E": "\\mho ", "I": "\\Bbbk ",
}  # fmt: skip
_GAMMA = re.compile(r"\\(?:gamma|aleph|Gamma(?!\s*\())(?![A-Za-z])")
_INDEXED = re.compile(r"(?<![\\A-Za-z])[eE](?=_)")
_POWER = re.compile(r"\^\s*e(?![A-Za-z_])")
# Letters side by side, and whether something follows that a `d` at their end would take along.
_PRODUCT = re.compile(r"(?<![\\A-Za-z])(?<!_\{)(?<!text\{)([A-Za-z]{1,3})(?![A-Za-z])(?=\s*(\\?[A-Za-z])?)")
_OF = re.compile(
    r"(?<![\\A-Za-z])[A-Za-z]{0,2}?d\s*([A-Za-z](?![A-Za-z])|\\(?!cdot|times|frac|sqrt|pi(?![a-z]))[a-z]+)"
)
_CALCULUS = re.compile(r"\\(?:int|oint|iint)(?![a-z])|d[^{}]{0,40}\}\s{0,3}\{\s{0,3}d|d\w{0,9}\s{0,3}/\s{0,3}d")


def as_letters(text: str, is_complex: bool = False) -> str:
    """The text with signs of their own for these letters. is_complex: whether `I` may be the imaginary unit."""
    if "\\" in text:
        text = _GAMMA.sub(_sign, text)
    if "_" in text:
        text = _INDEXED.sub(_sign, text)
    if "^" in text:
        text = _POWER.sub("^{e}", text)
    if "I" in text and not is_complex:
        text = _PRODUCT.sub(lambda found: found.group().replace("I", _SIGNS["I"]), text)
    # `f dx` is a product of three; with two of them, in an integral or a derivative, they are differentials.
    if "d" in text and not _CALCULUS.search(text) and len(set(_OF.findall(text))) < 2:
        text = _PRODUCT.sub(_factors, text)
    return text


def _sign(found: re.Match[str]) -> str:
    return _SIGNS[found.group()]


def _factors(found: re.Match[str]) -> str:
    letters = found.group()
    if found[2] is not None:
        return letters.replace("d", "{d}")
    return letters[:-1].replace("d", "{d}") + letters[-1]
