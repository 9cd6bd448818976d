"""Numbers as people write them, read exactly and without algebra.

Most golds are plain numbers; for them a Fraction decides in microseconds what sympy decides in milliseconds,
and it decides by rules that can be stated: percent is part of the value, a unit is not, a decimal gold stands
for its rounding.

>>> read_number("1 1/2").value == read_number("\\\\frac{3}{2}").value
True
>>> same_number(read_number("6.02\\\\times 10^{23}"), read_number("6.0221e23"))
True
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_NUMBER_CHARS = 64  # longer digit strings are compared as text or by sympy
MAX_EXPONENT = 400
FLOAT_DECIMALS = 6  # a decimal approximation of an exact gold needs this many places (math-verify's rounding)
ROUNDING_DIGITS = 3  # a decimal gold with at least this many significant digits stands for all that rounds to it

_UNSIGNED = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+)(?:\.\d*)?|\.\d+"
_NUMBER = re.compile(rf"(?P<sign>[+-]?)\s*(?P<mantissa>{_UNSIGNED})(?:[eE](?P<exponent>[+-]?\d{{1,4}}))?")
_SCIENTIFIC = re.compile(
    rf"(?P<sign>[+-]?)\s*(?:(?P<mantissa>{_UNSIGNED})\s*(?:\\times|\\cdot|\*|x)\s*)?"
    r"10\s*(?:\^|\*\*)\s*\{?\s*\(?(?P<exponent>[+-]?\d{1,4})\)?\s*\}?"
)
_FRACTION = re.compile(
    r"(?P<sign>[+-]?)\s*(?:(?P<whole>\d+)\s*(?:\+\s*)?)?\\frac\{\s*(?P<inner>[+-]?)(?P<top>\d+)\s*\}\{\s*(?P<bottom>\d+)\s*\}"
)
_SLASHED = re.compile(
    r"(?P<sign>[+-]?)\s*(?:(?P<whole>\d+)(?:\s+|\s*-\s*(?=\d+/\d+$)))?(?P<inner>)(?P<top>\d+)\s*/\s*(?P<bottom>\d+)"
)
_REPEATING = re.compile(
    r"(?P<sign>[+-]?)\s*(?P<whole>\d*)\.(?P<fixed>\d*)\\(?:overline|bar|dot)\s*\{\s*(?P<period>\d+)\s*\}"
)
_CURRENCY = re.compile(r"^([+-]?)\s*(?:\\?\$|\\text\{\s*\\?\$\s*\}|€|£|\\euro|\\pounds)\s*|\s*(?:\\?\$|€|£)$")
_PERCENT = re.compile(r"\s*(?:\\?%|\\text\{\s*(?:\\?%|per ?cent|percentage)\s*\}|per ?cent)$", re.IGNORECASE)
_DEGREES = re.compile(r"\s*(?:\^\s*\{?\s*\\circ\s*\}?|\\degree|\\text\{\s*degrees?\s*\}|\bdegrees?)$")


@dataclass(frozen=True)
class Number:
    """A number with what the comparison needs to know of its writing."""

    value: Fraction  # percent applied
    percent: bool = False
    decimals: int | None = None  # places after the point (in scientific notation: of the mantissa); None = exact
    unit_exponent: int = 0  # the power of ten that `decimals` counts from
    digits: int = 0  # significant digits of a decimal


def read_number(text: str) -> Number | None:
    """The number that a whole (normalised) text is, or None when it is anything else."""
    if len(text) > MAX_NUMBER_CHARS or not any(c.isdigit() for c in text):
        return None
    text = _CURRENCY.sub(r"\1", text.strip())
    percent = _PERCENT.search(text) is not None
    text = _DEGREES.sub("", _PERCENT.sub("", text)).strip()
    number = _decimal(text) or _fraction(text) or _repeating(text)
    if number is None or not percent:
        return number
    return Number(number.value / 100, True, number.decimals, number.unit_exponent - 2, number.digits)


def same_number(gold: Number, answer: Number) -> bool:
    """Whether the answer is the gold.

    Percent: an answer in percent needs a gold in percent (42 % is not 42); a gold in percent takes 42 %, 0.42
    and a bare 42, since the question asked "what percent". Rounding: see `rounds_to`.
    """
    if answer.percent and not gold.percent:
        return _equal(gold, answer)  # 42 % is 0.42 and 21/50
    if gold.percent and not answer.percent:
        bare = Number(answer.value / 100, True, answer.decimals, answer.unit_exponent - 2, answer.digits)
        return _equal(gold, answer) or _equal(gold, bare)
    return _equal(gold, answer)


def rounds_to(gold: Number, value: Fraction) -> bool:
    """Whether an exact or finer value rounds to a decimal gold at its last digit (half-way either way)."""
    needed = ROUNDING_DIGITS - 1 if gold.unit_exponent else ROUNDING_DIGITS  # scientific notation says it means it
    if gold.decimals is None or gold.digits < needed:
        return gold.value == value
    step = Fraction(10) ** (gold.unit_exponent - gold.decimals)
    return abs(gold.value - value) <= step / 2


def _equal(gold: Number, answer: Number) -> bool:
    if gold.value == answer.value:
        return True
    if gold.decimals and (answer.decimals is None or _step(answer) < _step(gold)):
        return rounds_to(gold, answer.value)
    if gold.decimals and gold.unit_exponent and answer.digits >= ROUNDING_DIGITS:
        return rounds_to(answer, gold.value)  # 6.02e23 for 6.022e23
    if gold.decimals is None and answer.decimals is not None and gold.value.denominator != 1:
        exponent = min(answer.unit_exponent - answer.decimals, -FLOAT_DECIMALS)
        enough = answer.unit_exponent - answer.decimals <= -FLOAT_DECIMALS
        return enough and abs(gold.value - answer.value) <= Fraction(10) ** exponent
    return False


def _step(number: Number) -> Fraction:
    return Fraction(10) ** (number.unit_exponent - (number.decimals or 0))


def _decimal(text: str) -> Number | None:
    match = _NUMBER.fullmatch(text) or _SCIENTIFIC.fullmatch(text)
    if match is None:
        return None
    mantissa = (match["mantissa"] or "1").replace(",", "").replace(" ", "")
    exponent = int(match["exponent"] or 0)
    if abs(exponent) > MAX_EXPONENT:
        return None
    value = Fraction(mantissa.rstrip(".") or "0") * Fraction(10) ** exponent
    if match["sign"] == "-":
        value = -value
    point = mantissa.find(".")
    decimals = len(mantissa) - point - 1 if 0 <= point < len(mantissa) - 1 else None
    if decimals is None and match["exponent"] is None:
        return Number(value)
    digits = len(mantissa.replace(".", "").lstrip("0"))
    if decimals is not None and not mantissa[point + 1 :].strip("0") and not exponent:
        return Number(value)  # 142.0 is the integer 142
    return Number(value, False, decimals, exponent, digits)


def _fraction(text: str) -> Number | None:
    match = _FRACTION.fullmatch(text) or _SLASHED.fullmatch(text)
    if match is None or int(match["bottom"]) == 0 or (match["whole"] and match["inner"]):
        return None
    value = int(match["whole"] or 0) + Fraction(int(match["top"]), int(match["bottom"]))
    negative = (match["sign"] == "-") != (match["inner"] == "-")
    return Number(-value if negative else value)


def _repeating(text: str) -> Number | None:
    """`0.1\\overline{6}` is 1/6."""
    if (match := _REPEATING.fullmatch(text)) is None:
        return None
    fixed, period = match["fixed"], match["period"]
    value = Fraction(int(match["whole"] + fixed or "0")) + Fraction(int(period), 10 ** len(period) - 1)
    value /= 10 ** len(fixed)
    return Number(-value if match["sign"] == "-" else value)
