r"""Units behind a value: `5 \text{ cm}` is the value `5` and the unit `cm`. A closed list, and what was counted.

Measures and currencies are those of the table; they convert within a dimension (a euro is not a dollar). What was
counted (`12 \text{ red marbles}`) is a plain noun phrase: no verb, no number word, nothing that changes the value.
Other words behind a value (`or more`, `is wrong`, `squared`) are no unit, and neither are multipliers (`million`).

>>> split_unit("5 \\text{ centimeters}")
('5', 'cm')
>>> split_unit("9.8 \\text{m} \\text{s}^{-2}")
('9.8', 'm/s^2')
>>> split_unit("42 \\text{ or more}")
('42 \\text{ or more}', '')
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from chorus.reward_server.graders.math.unit_table import (
    ALIASES,
    COUNTED_SINGULARS,
    IRREGULAR_PLURALS,
    MULTIPLIERS,
    NO_NOUNS,
    SIGNS,
    TRAILING,
    TWO_LETTERS,
    UNITS,
    unit_named,
)

MAX_UNIT_CHARS = 80
MULTIPLIER = rf"(?:{'|'.join(MULTIPLIERS)})"
# Unit words as sentences have them behind a number; those that are also plain words ("in", "a") are left out.
PROSE_UNIT = "|".join(
    sorted(
        (re.escape(a) for a in ALIASES if len(a) > 1 and a.isascii() and a not in {"in", "am", "min", *TWO_LETTERS}),
        key=len,
        reverse=True,
    )
)
HEDGE = re.compile(
    r"\s*,?\s*(?:or\b|squared\b|cubed\b|factorial\b|and (?:up|more|counting)\b|at (?:most|least)\b|"
    rf"to (?=\d)|mod\b|\(mod\b|of something|percent|per cent|{MULTIPLIER}s?\b)"
)

_FUNCTION = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])|\\text\s*\{\s*cis\s*\}")
_PLAIN = frozenset("0123456789.,+-/ ")
_LETTER_BEHIND = re.compile(
    r"(?P<value>[-+]?\d[\d.,]*(?:\s*\\(?:times|cdot)\s*10\s*\^\s*(?:\{-?\d+\}|\d))?|\\frac\{\d+\}\{\d+\})"
    r"\s?(?P<unit>[A-Za-z]{1,2}(?:\^\{?[23]\}?)?)"
)
_PER = re.compile(r"\s*(?:(?:\\text\s*\{\s*)?(?:per|an?)\s+|/\s*(?:\\text\s*\{\s*)?)(?P<unit>[a-z]{1,20})\s*\}?$")
_SIGN = "|".join(sorted((re.escape(sign) for sign in SIGNS), key=len, reverse=True))
_CURRENCY = re.compile(rf"(?P<sign>[-+]?)\s*(?P<currency>{_SIGN})\s*(?=[-+]?\s*(?:[\d.(]|\\frac|\\sqrt))")
_CURRENCY_BEHIND = re.compile(r"(?<=[\d})])\s*(?P<currency>\\?\$|€|£|¥|₹|元|円|￥)$")
_FRACTION = re.compile(
    r"\\frac\s*\{(?P<top>(?:\s|\\text\s*\{[^{}]{1,30}\}|\^\{?\d\}?|\\cdot)+)\}\s*"
    r"\{(?P<bottom>(?:\s|\\text\s*\{[^{}]{1,30}\}|\^\{?\d\}?|\\cdot)+)\}"
)
_DEGREES = re.compile(
    r"\s*(?:\^\s*\{?\s*\\(?:circ|degree)\s*\}?|\\degree|\\text\s*\{\s*°\s*\})\s*"
    r"(?P<scale>(?:\\text\s*\{\s*)?[CFK]\s*\}?)?$"
)
_BARE = re.compile(
    r"(?:(?<=[\d})\]])|(?<=\\pi) )\s*(?P<unit>[A-Za-zµΩ¢一-鿿ぁ-ヿ][^\\=<>+,;:()\[\]]{0,60})$|(?<=[a-z]) "
    r"(?P<spaced>(?:square |cubic )[a-z]{2,20})$"
)
_SHORT_WORD = re.compile(r"(?<=[\d})])\s*\\text\s*\{\s*(?P<word>[A-Za-zµ]{1,2})\.?\s*\}$")
_TEXT = re.compile(r"\\text\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_TOKEN = re.compile(
    r"(?P<word>[A-Za-zµΩÅ°¢一-鿿ぁ-ヿ]+\.?)|\^?\s*\{?\s*(?P<power>-?[123])\s*\}?|(?P<over>/)|(?P<join>[\s*.·-]"
    r"|\\cdot(?![a-z])|\\times(?![a-z]))"
)
_MULTIPLIED = re.compile(
    rf"(?P<sign>[-+]?)(?P<number>\d[\d,]*(?:\.\d+)?)\s*(?:\\text\s*\{{\s*)?(?P<word>{MULTIPLIER})s?\b"
    rf"(?P<rest>[^{{}}]*)(?P<close>\}}?)"
)
_PIECE = re.compile(
    r"\s*(?:,|and|\\text\s*\{\s*,?\s*and\s*\})?\s*(?P<number>\d+(?:\.\d+)?)\s*"
    r"(?:\\text\s*\{\s*(?P<unit>[A-Za-z]+)\.?,?\s*(?:and\s*)?\}|(?P<bare>[A-Za-z一-鿿]+))\s*"
)
_ARC = re.compile(
    r"(?P<degrees>-?\d+)\s*\^\s*\{?\s*\\circ\s*\}?\s*(?P<minutes>\d{1,2}(?:\.\d+)?)\s*(?:'|\^\s*\{?\s*\\prime\s*\}?)"
    r"\s*(?:(?P<seconds>\d{1,2}(?:\.\d+)?)\s*(?:''|\"|\^\s*\{?\s*\\prime\s*\\prime\s*\}?))?"
)
_SHARE = re.compile(r"\\text\s*\{\s*(of (?:the|a|an|his|her|its|their) [a-z]{3,20})\s*\}")
_FEET = re.compile(r"(?P<feet>\d+)\s*'\s*(?P<inches>\d{1,2}(?:\.\d+)?)\s*(?:''|\")")


@lru_cache(maxsize=1024)
def split_unit(text: str) -> tuple[str, str]:
    """(value, canonical unit) of a normalised answer; the unit is "" when there is none that we know.

    Outside `\\text{...}` single letters are never a unit (5m may be a product).
    """
    if not (set(text) - _PLAIN) or len(text) > 400:
        return text, ""
    if (together := _compound(text)) is not None:
        return together
    if (prefix := _CURRENCY.match(text)) is not None:
        return _money(prefix["sign"] + text[prefix.end() :].strip(), SIGNS[prefix["currency"]])
    if (behind := _CURRENCY_BEHIND.search(text)) is not None:
        return text[: behind.start()].strip(), SIGNS[behind["currency"]]
    if "\\" in text and _FUNCTION.search(text):
        return text, ""  # the degrees of `\\sin 30^\\circ` are its argument's
    if (degrees := _DEGREES.search(text)) is not None and degrees.start() > 0:
        scale = re.sub(r"\\text|[{}\s]", "", degrees["scale"] or "")
        return text[: degrees.start()].strip(), f"°{scale}" if scale else "degree"
    text_unit = _FRACTION.sub(r" \g<top>/ \g<bottom>", text) if "\\frac" in text and "\\text" in text else text
    at = text_unit.find("\\text")
    if at > 0:
        unit = unit_of(_TEXT.sub(r" \1 ", text_unit[at:]))
        value = text_unit[:at].strip().removesuffix("\\cdot").removesuffix("\\times").strip()
        if not unit and value.startswith("\\frac") and (share := _SHARE.fullmatch(text_unit, at)):
            return value, f"#{share[1]}"
        return (value, unit) if unit and value else (text, "")
    if at < 0 and (bare := _BARE.search(text)) is not None:
        group = "unit" if bare["unit"] else "spaced"
        unit = unit_of(bare[group], bare=True, spaced=text[bare.start(group) - 1] == " ")
        if unit:
            return text[: bare.start(group)].strip(), unit
    return text, ""


def _money(amount: str, currency: str) -> tuple[str, str]:
    """`4.50 \\text{ per hour}` dollars; a unit that the amount has besides is the currency once more."""
    if (per := _PER.search(amount)) is not None and (unit := unit_of(per["unit"])):
        return amount[: per.start()].strip(), f"{currency}/{unit}"
    value, unit = split_unit(amount)
    return (value, currency) if not unit or unit == currency else (amount, "")


def split_letter(text: str, unit: str) -> tuple[str, str]:
    """`5 m` beside an answer in `unit`: a letter that measures the same is a unit there, and no variable."""
    letter = _LETTER_BEHIND.fullmatch(text)
    name = unit_of(letter["unit"]) if letter else ""
    one, other = _measured(name) if name else None, _measured(unit)
    return (letter["value"], name) if letter and one and other and one[1] == other[1] else (text, "")


def unknown_unit(text: str) -> str:
    """The short word behind a value that could be a unit, and is none of ours; "" where there is none."""
    word = _SHORT_WORD.search(text)
    return word["word"] if word else ""


def conversion(unit: str, into: str) -> Fraction | None:
    """What a number of `unit` is multiplied by to count `into` (`cm^2` into `m^2`: 1/10000); None when it cannot."""
    one, other = _measured(unit), _measured(into)
    if one is None or other is None or one[1] != other[1]:
        return None
    return one[0] / other[0]


def unit_of(text: str, bare: bool = False, spaced: bool = True) -> str:
    """The canonical unit that a text is, or "" when it is none."""
    text = text.strip().strip(".~").strip()
    if not text or len(text) > MAX_UNIT_CHARS:
        return ""
    powers = _powers(text)
    if powers is not None:
        letters = re.sub(r"[^A-Za-z]", "", text)
        if bare and len(powers) < 2 and text.isascii() and (len(letters) < 2 or letters in TWO_LETTERS):
            return ""
        return _canonical(powers)
    return _counted(text) if spaced or not bare else ""


def multiplied(text: str) -> str:
    """`8 \\text{ million}` as the number that it is; a unit behind it stays.

    >>> multiplied("1.5 million")
    '1500000'
    """
    if not _HAS_MULTIPLIER.search(text):
        return text

    def written_out(found: re.Match[str]) -> str:
        number = Fraction(found["number"].replace(",", "")) * MULTIPLIERS[found["word"].lower()]
        digits = (
            str(number.numerator)
            if number.denominator == 1
            else f"\\frac{{{number.numerator}}}{{{number.denominator}}}"
        )
        rest = found["rest"].strip(" .")
        return (
            found["sign"] + digits + (f" \\text{{ {rest} }}" if rest and found["close"] else f" {rest}" if rest else "")
        )

    return _MULTIPLIED.sub(written_out, text, count=1).strip()


_HAS_MULTIPLIER = re.compile(rf"\d\D{{0,12}}{MULTIPLIER}")


def _powers(text: str) -> dict[str, int] | None:
    """Unit names to their powers; None when a word is no unit of the table."""
    text = re.sub(r"/\s*\(([^()]*)\)\s*$", r"/\1", re.sub(r"\bper\b", "/", text))
    powers: dict[str, int] = {}
    sign, prefix, last = 1, 1, ""
    at = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None or token.end() == at:
            return None
        at = token.end()
        if word := token["word"]:
            plain = word.rstrip(".")
            if plain.lower() in ("square", "sq", "cubic", "cu"):
                prefix = 2 if plain.lower().startswith("s") else 3
                continue
            if plain in ("squared", "cubed") and last:
                powers[last] += sign * (1 if plain == "squared" else 2)
                continue
            name = unit_named(plain) or ALIASES.get(word)
            if name is None:
                return None
            last = name
            powers[name] = powers.get(name, 0) + sign * prefix
            prefix = 1
        elif power := token["power"]:
            if not last or abs(powers[last]) != 1:
                return None
            powers[last] = sign * int(power)
        elif token["over"]:
            if sign < 0 or not last:
                return None
            sign, last = -1, ""
    return powers if powers and prefix == 1 else None


def _canonical(powers: dict[str, int]) -> str:
    above = [name + (f"^{power}" if power > 1 else "") for name, power in sorted(powers.items()) if power > 0]
    below = [name + (f"^{-power}" if power < -1 else "") for name, power in sorted(powers.items()) if power < 0]
    return "*".join(above or ["1"]) + "".join(f"/{name}" for name in below)


@lru_cache(maxsize=256)
def _measured(unit: str) -> tuple[Fraction, tuple[tuple[str, int], ...]] | None:
    """(factor to base units, dimension) of a canonical unit; None of what was counted."""
    factor, dimension = Fraction(1), dict[str, int]()
    above, *below = unit.split("/")
    for names, sign in ((above.split("*"), 1), (below, -1)):
        for name in names:
            base, _, power = name.partition("^")
            if base == "1":
                continue
            if base not in UNITS:
                return None
            exponent = sign * int(power or 1)
            factor *= UNITS[base][0] ** exponent
            for dim, count in UNITS[base][1]:
                dimension[dim] = dimension.get(dim, 0) + count * exponent
    return factor, tuple(sorted((d, n) for d, n in dimension.items() if n))


def _counted(text: str) -> str:
    """What was counted, by its noun: `different red marbles` is `#marbles`; "" when the words are anything else."""
    words = re.sub(r"\s+(?:" + "|".join(TRAILING) + r")$", "", " ".join(text.lower().rstrip(".").split())).split()
    of = next((k for k, word in enumerate(words) if word in ("of", "per", "in", "on", "from", "to") and k), len(words))
    if not 0 < of <= 4 or len(words) > 7 or any(word in NO_NOUNS or not word.isalpha() for word in words[:of]):
        return ""
    if any(word in NO_NOUNS - {"a", "the", "each", "all", "to"} or not word.isalpha() for word in words[of + 1 :]):
        return ""
    noun = words[of - 1]
    if noun in IRREGULAR_PLURALS or (len(noun) > 3 and noun.endswith("s") and not noun.endswith(("ss", "us", "is"))):
        return f"#{noun}"
    return f"#{COUNTED_SINGULARS[noun]}" if noun in COUNTED_SINGULARS else ""


def _compound(text: str) -> tuple[str, str] | None:
    """`1 \\text{ hour } 30 \\text{ minutes}`, `22^\\circ 30'` and `5' 4''` in the smallest unit (angles in degrees)."""
    if (arc := _ARC.fullmatch(text)) is not None:
        whole, rest = Fraction(arc["degrees"]), Fraction(arc["minutes"]) / 60 + Fraction(arc["seconds"] or 0) / 3600
        return _written(whole - rest if arc["degrees"].startswith("-") else whole + rest), "degree"
    if (feet := _FEET.fullmatch(text)) is not None:
        return _written(Fraction(feet["feet"]) * 12 + Fraction(feet["inches"])), "in"
    at, total, last = 0, Fraction(0), ""
    pieces = 0
    while at < len(text) and pieces < 5:
        piece = _PIECE.match(text, at)
        unit = ALIASES.get((piece["unit"] or piece["bare"]), "") if piece else ""
        if piece is None or not unit:
            return None
        factor = conversion(last, unit) if last else Fraction(1)
        if factor is None or factor < 1 or (last and factor == 1):
            return None
        total, last, at, pieces = total * factor + Fraction(piece["number"]), unit, piece.end(), pieces + 1
    return (_written(total), last) if pieces > 1 else None


def _written(number: Fraction) -> str:
    if number.denominator == 1:
        return str(number.numerator)
    sign = "-" if number < 0 else ""
    return f"{sign}\\frac{{{abs(number.numerator)}}}{{{number.denominator}}}"
