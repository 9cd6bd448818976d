"""Numbers as people write them, read exactly and without algebra.

Most golds are plain numbers; for them a Fraction decides in microseconds what sympy decides in milliseconds,
and it decides by rules that can be stated: percent is part of the value, a unit is not, a decimal gold stands
for its rounding.

>>> read_number("1 1/2").value == read_number("\\\\frac{3}{2}").value
True
>>> same_number(read_number("6.02\\\\times 10^{23}"), read_number("6.0221e23"))
True

Numbers in a base, and ratios: texts with rules of their own. No sympy here.

>>> read_based("10101_{2}")
Based(digits='10101', base=2)
>>> read_ratio("3 : 4")
('3', '4')

How large a number at least is, from its text alone: what no computer evaluates, no computer has to.

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
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

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
    r"(?P<sign>[+-]?)\s*(?P<whole>\d*)\.(?P<fixed>\d*)"
    r"(?:\\(?:overline|bar|dot|overset\{\.\})\s*(?:\{\s*(?P<period>\d+)\s*\}|(?P<digit>\d))|\((?P<round>\d+)\))(?:\s*\\ldots)?"
)
_DOTTED = re.compile(  # 0.\\dot{1}4285\\dot{7}
    r"(?P<sign>[+-]?)\s*(?P<whole>\d*)\.(?P<fixed>\d*)\\dot\s*\{?\s*(?P<first>\d)\s*\}?(?P<middle>\d*)\\dot\s*\{?\s*(?P<last>\d)\s*\}?"
)
_GOES_ON = re.compile(
    r"(?P<sign>[+-]?)\s*(?P<whole>\d*)\.(?P<fixed>\d*?)"
    r"(?:(?P<period>\d{2,6}?)(?P=period)+|(?P<digit>\d)(?P=digit){2,})\s*\\ldots"
)
_CURRENCY = re.compile(r"^([+-]?)\s*(?:\\?\$|\\text\{\s*\\?\$\s*\}|€|£|\\euro|\\pounds)\s*|\s*(?:\\?\$|€|£)$")
_PERCENT = re.compile(
    r"\s*(?:\\?%|\\text\{\s*(?:\\?%|per ?cents?|percentage|pct\.?)\s*\}|per ?cents?|percentage|pct)$", re.IGNORECASE
)
_DEGREES = re.compile(r"\s*(?:\^\s*\{?\s*\\circ\s*\}?|\\degree|\\text\{\s*degrees?\s*\}|\bdegrees?)$")


@dataclass(frozen=True)
class Number:
    """A number with what the comparison needs to know of its writing."""

    value: Fraction  # percent applied
    percent: bool = False
    decimals: int | None = None  # places after the point (in scientific notation: of the mantissa); None = exact
    unit_exponent: int = 0  # the power of ten that `decimals` counts from
    digits: int = 0  # significant digits of a decimal


@lru_cache(maxsize=1024)
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
    """`0.1\\overline{6}`, `0.1\\dot{6}`, `0.1(6)` and `0.1666\\ldots` are 1/6."""
    if "." not in text:
        return None
    match = _REPEATING.fullmatch(text) or _DOTTED.fullmatch(text) or _GOES_ON.fullmatch(text)
    if match is None:
        return None
    found, fixed = match.groupdict(), match["fixed"]
    if "first" in found:
        period = match["first"] + match["middle"] + match["last"]
    else:
        period = match["period"] or found["digit"] or found["round"]
    value = Fraction(int(match["whole"] + fixed or "0")) + Fraction(int(period), 10 ** len(period) - 1)
    value /= 10 ** len(fixed)
    return Number(-value if match["sign"] == "-" else value)


_BASED = re.compile(
    r"(?P<outer>-?)\s*\(?\s*(?P<inner>-?)\s*(?P<digits>[0-9A-Za-f][0-9A-Za-f ,]*)"
    r"(?:\.(?P<fixed>[0-9A-Za-f]+))?\s*\)?\s*_\s*"
    r"(?:\{\s*(?:\\text\s*\{)?\s*(?P<base>\w+)\s*\}?\s*\}|(?P<digit>\d))"
)
_WORDS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_WORDS |= {"eleven": 11, "twelve": 12, "sixteen": 16}
_MAX_BASE = 36


@dataclass(frozen=True)
class Based:
    """Digits in a base, behind their sign, without needless zeros."""

    digits: str
    base: int


def read_based(text: str) -> Based | None:
    """`2516_8`, `-A2F_{16}`, `0.101_2`, `(101)_{\\text{two}}`; None for anything else (`x_1`, `a_2`)."""
    if (match := _BASED.fullmatch(text)) is None:
        return None
    whole, fixed = re.sub(r"[ ,]", "", match["digits"]), match["fixed"] or ""
    name = match["base"] or match["digit"]
    base = int(name) if name.isdigit() else _WORDS.get(name.lower(), 0)
    small = re.search(r"[a-f]", whole + fixed) is not None  # digits to base 16 alone: `3a_{11}` is a multiple
    if not any(c.isdigit() for c in whole) or not 2 <= base <= _MAX_BASE or (small and base != 16):
        return None
    if not all(int(c, _MAX_BASE) < base for c in whole + fixed):
        return None
    sign = "-" if (match["outer"] == "-") != (match["inner"] == "-") else ""
    whole, fixed = whole.upper().lstrip("0") or "0", fixed.upper().rstrip("0")
    return Based(f"{sign}{whole}{'.' if fixed else ''}{fixed}", base)


def read_ratio(text: str) -> tuple[str, ...] | None:
    """The terms of `a : b : c` and "a to b", or None. A time of day reads as one too: its terms must agree as well."""
    if ":" not in text and " to " not in text and "{to}" not in text.replace(" ", ""):
        return None
    text = re.sub(r"\\text\s*\{\s*to\s*\}|(?<=[\d}]) to (?=[\d\\])", ":", text)
    terms = [term.strip() for term in text.split(":")]
    plain = all(re.fullmatch(r"[^\s=<>{}()]+|\\frac\{\d+\}\{\d+\}|\\sqrt\{\d+\}", term) for term in terms)
    return tuple(terms) if len(terms) > 1 and plain else None


def same_ratio(answer: tuple[str, ...], gold: tuple[str, ...]) -> bool:
    """Whether numbers are in proportion; what can be a time of day (two digits at the end) must agree as it stands."""
    if len(answer) != len(gold) or any(re.fullmatch(r"0\d|[0-5]\d", terms[-1]) for terms in (answer, gold)):
        return answer == gold
    numbers = [[read_number(term) for term in terms] for terms in (answer, gold)]
    if any(number is None or number.value <= 0 or number.percent for terms in numbers for number in terms):
        return False
    ones, others = ([number.value for number in terms if number] for terms in numbers)
    return all(one * others[0] == other * ones[0] for one, other in zip(ones, others, strict=True))


MAX_CHARS = 200
MAX_TOWER_DIGITS = 10**6
INFINITE = math.inf
_TOWER = re.compile(r"(?<!\d)\d+\^[{(]{0,4}\d+[})]{0,4}\^")
_DIGITS = re.compile(r"\d{1,100}")


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


def holds_a_tower(text: str) -> bool:
    """Whether a power of a power in it has more digits than any computer writes out: `\\ln 9^{9^{9}}`."""
    text = text.replace(" ", "")
    for start in _TOWER.finditer(text):
        reader = _Reader(text)
        reader.at = start.start()
        try:
            if reader.power() > MAX_TOWER_DIGITS:
                return True
        except (ValueError, RecursionError):
            continue
    return False


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
        if (number := _DIGITS.match(self.text, self.at)) is None or int(number.group()) == 0:
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
