"""Units behind a value: `5 \\\\text{ cm}` is the value `5` and the unit `cm`.

>>> split_unit("5 \\\\text{ centimeters}")
('5', 'cm')
>>> split_unit("x+1")
('x+1', '')
"""

from __future__ import annotations

import re
from fractions import Fraction

_ALIASES = {
    "cm": ("centimeter", "centimeters", "centimetre", "centimetres", "cms"),
    "m": ("meter", "meters", "metre", "metres"),
    "km": ("kilometer", "kilometers", "kilometre", "kilometres"),
    "mm": ("millimeter", "millimeters"),
    "in": ("inch", "inches"),
    "ft": ("foot", "feet"),
    "yd": ("yard", "yards"),
    "mi": ("mile", "miles"),
    "s": ("second", "seconds", "sec", "secs"),
    "min": ("minute", "minutes", "mins"),
    "h": ("hour", "hours", "hr", "hrs"),
    "day": ("days",),
    "week": ("weeks",),
    "month": ("months",),
    "year": ("years", "yr", "yrs"),
    "g": ("gram", "grams"),
    "kg": ("kilogram", "kilograms"),
    "lb": ("lbs", "pound", "pounds"),
    "dollar": ("dollars", "usd"),
    "cent": ("cents",),
    "unit": ("units",),
    "mph": ("miles per hour", "miles/hour"),
    "km/h": ("kmh", "kph", "km per hour", "kilometers per hour"),
    "m/s": ("meters per second", "m per s"),
    "L": ("liter", "liters", "litre", "litres", "l"),
    "ml": ("milliliter", "milliliters", "mL"),
    "degree": ("degrees",),
    "am": ("a.m",),
    "pm": ("p.m",),
}
_CANONICAL = {name: unit for unit, names in _ALIASES.items() for name in (unit, *names)}
# What measures the same: factors to a common unit, exact by definition.
_SCALES = (
    {
        "mm": "0.001",
        "cm": "0.01",
        "m": "1",
        "km": "1000",
        "in": "0.0254",
        "ft": "0.3048",
        "yd": "0.9144",
        "mi": "1609.344",
    },
    {"s": "1", "min": "60", "h": "3600", "day": "86400", "week": "604800"},
    {"g": "1", "kg": "1000"},
    {"ml": "1", "L": "1000"},
    {"cent": "1", "dollar": "100"},
)
_PREFIXES = {"square ": "^2", "sq ": "^2", "sq. ": "^2", "cubic ": "^3", "cu ": "^3"}

_TEXT_UNIT = re.compile(
    r"(?P<value>.*?[\d})\]a-zπ])\s*\\text\s*"
    r"\{\s*(?P<unit>[A-Za-z][A-Za-z /.-]*?)\s*\}\s*(?P<power>\^\s*\{?\s*[23]\s*\}?)?",
    re.DOTALL,
)
_BARE_UNIT = re.compile(
    r"(?P<value>.*?[\d})\]])\s*"
    r"(?P<unit>(?:(?:square|sq\.?|cubic|cu) )?[A-Za-z]{1,12}(?:(?: per |/)[A-Za-z]{1,12})?)"
    r"\s*(?P<power>\^\s*\{?\s*[23]\s*\}?)?",
    re.DOTALL,
)
_QUOTIENT_UNIT = re.compile(
    r"(?P<value>.*?\d)\s*\\frac\s*\{\s*\\text\s*\{\s*(?P<top>[A-Za-z]+)\s*\}\s*\}"
    r"\{\s*\\text\s*\{\s*(?P<bottom>[A-Za-z]+)\s*\}\s*(?P<power>\^\s*\{?\s*[23]\s*\}?)?\s*\}",
    re.DOTALL,
)
_CURRENCY = re.compile(r"^\\?\$\s*(?=[\d.])")


def split_unit(text: str) -> tuple[str, str]:
    """(value, canonical unit) of a normalised answer; the unit is "" when there is none that we know.

    In `\\text{...}` any word counts as a unit; outside only known names do, and single letters never (5m may
    be a product).
    """
    if _CURRENCY.match(text):
        return _CURRENCY.sub("", text), "dollar"
    if (match := _QUOTIENT_UNIT.fullmatch(text)) is not None:
        return match["value"].strip(), f"{_canonical(match['top'], None)}/{_canonical(match['bottom'], match['power'])}"
    if (match := _TEXT_UNIT.fullmatch(text)) is not None and match["unit"] not in ("or", "and", "if", "for"):
        return match["value"].strip(), _canonical(match["unit"], match["power"])
    if (match := _BARE_UNIT.fullmatch(text)) is not None:
        unit = _canonical(match["unit"], match["power"])
        if len(match["unit"]) > 1 and unit.split("^")[0] in _ALIASES and "\\" not in match["unit"]:
            return match["value"].strip(), unit
    return text, ""


def conversion(unit: str, into: str) -> Fraction | None:
    """What a number of `unit` is multiplied by to count `into` (`cm^2` into `m^2`: 1/10000); None when it cannot."""
    (name, _, power), (other, _, other_power) = unit.partition("^"), into.partition("^")
    for scale in _SCALES:
        if name in scale and other in scale and power == other_power:
            return (Fraction(scale[name]) / Fraction(scale[other])) ** int(power or 1)
    return None


def _canonical(unit: str, power: str | None) -> str:
    unit = unit.strip().rstrip(".")
    suffix = "^" + re.sub(r"\D", "", power) if power else ""
    for prefix, stands_for in _PREFIXES.items():
        if unit.startswith(prefix):
            unit, suffix = unit[len(prefix) :], stands_for
    return _CANONICAL.get(unit, _CANONICAL.get(unit.lower(), unit.lower())) + suffix
