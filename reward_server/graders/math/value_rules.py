r"""Rules about single values: numbers, units, times, powers too large to write, bases, ratios, congruences, decimals.

Each decides about two normalised texts, or passes on with None; `ask` puts pieces of them to all rules again.
"""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction

from chorus.reward_server.graders.math import forms
from chorus.reward_server.graders.math.algebra import value
from chorus.reward_server.graders.math.comparison import Ask, Comparison
from chorus.reward_server.graders.math.exact import exact
from chorus.reward_server.graders.math.normalise import squeeze
from chorus.reward_server.graders.math.numbers import (
    FLOAT_DECIMALS,
    Number,
    holds_a_tower,
    least_digits,
    read_based,
    read_number,
    read_ratio,
    rounds_to,
    same_number,
    same_ratio,
)
from chorus.reward_server.graders.math.parts import all_equal
from chorus.reward_server.graders.math.shapes import split_top
from chorus.reward_server.graders.math.units import conversion, multiplied, split_letter, split_unit, unknown_unit

UNCOUNTABLE_DIGITS = 1000  # `read_number` knows none with so many
_SYMBOL = re.compile(r"[A-Za-z](?:_\{?\w+\}?)?|\\[a-zA-Z]+")
_IN_PI = re.compile(
    r"(?=.*\\(?:pi|arc(?:sin|cos|tan)))(?:[-+\d.,\s{}()/*]|\\text\s*\{\s*and\s*\}"
    r"|\\(?:frac|sqrt|pi|cdot|times|arc(?:sin|cos|tan))(?![A-Za-z]))+"
)
_CURRENCY = re.compile(r"[$€£¥₹元円]")


def by_text(answer: str, gold: str, _: Ask) -> Comparison | None:
    if squeeze(answer) == squeeze(gold) and gold:
        return Comparison(True, "exact", "the same text after clean-up")
    if not answer:
        return Comparison(False, "empty", "nothing to compare")
    if _SYMBOL.fullmatch(answer) and _SYMBOL.fullmatch(gold) and len(answer) == len(gold) == 1:
        return Comparison(False, "symbol", "another letter")
    return None


def by_numbers(answer: str, gold: str, _: Ask) -> Comparison | None:
    if _CURRENCY.search(answer) and _CURRENCY.search(gold):
        return None  # a euro is not a dollar
    gold_number, answer_number = read_number(gold), read_number(answer)
    if gold_number and answer_number:
        if same_number(gold_number, answer_number):
            return Comparison(True, "number", "the same number")
        if answer_number.percent and not gold_number.percent:
            return Comparison(False, "percent", "the answer is in percent, the gold is not")
        return Comparison(False, "number", "another number")
    if gold_number and not gold_number.percent and re.search(r"\\?%$", answer):
        return Comparison(False, "percent", "the answer is in percent, the gold is not")
    return None


def by_multiplier(answer: str, gold: str, ask: Ask) -> Comparison | None:
    """`8 \\text{ million}` is eight million."""
    written = multiplied(answer), multiplied(gold)
    return None if written == (answer, gold) else ask(*written)


def by_time(answer: str, gold: str, _: Ask) -> Comparison | None:
    of_answer, of_gold = forms.read_time(answer), forms.read_time(gold)
    if of_answer is None or of_gold is None:
        return None
    if not (of_answer[1] or of_gold[1] or "o'clock" in answer + gold):
        return None
    equal = forms.same_time(of_answer, of_gold)
    return Comparison(equal, "time", "the same time of day" if equal else "another time of day")


def by_date(answer: str, gold: str, _: Ask) -> Comparison | None:
    of_answer, of_gold = forms.read_date(answer), forms.read_date(gold)
    if of_answer is None or of_gold is None:
        return None
    equal = forms.same_date(of_answer, of_gold)
    return Comparison(equal, "date", "the same day" if equal else "another day")


def by_angle(answer: str, gold: str, ask: Ask) -> Comparison | None:
    """Degrees beside radians: `120^\\circ` is `\\frac{2\\pi}{3}`, which says by its pi, or in words, that it is one."""
    angles = [split_unit(text) for text in (answer, gold)]
    units = {unit for _, unit in angles}
    if "degree" not in units or not units - {"degree"} <= {"", "rad"} or len(units) < 2:
        return None
    turned = [_in_radians(text) if unit == "degree" else text for text, unit in angles]
    plain = next(text for text, unit in angles if unit != "degree")
    if not all(turned) or not ("rad" in units or _IN_PI.fullmatch(plain)):
        return None
    return Comparison(True, "angle", "degrees in radians") if ask(*turned).equal else None


def _in_radians(degrees: str) -> str:
    """One angle, or a list of them: `30^\\circ, 150` degrees."""
    numbers = [read_number(split_unit(item)[0]) for item in split_top(degrees)]
    return ", ".join(_turn(number.value / 180) for number in numbers if number) if all(numbers) else ""


def _turn(share: Fraction) -> str:
    return f"{'-' if share < 0 else ''}\\frac{{{abs(share.numerator)}\\pi}}{{{share.denominator}}}"


def by_unit(answer: str, gold: str, ask: Ask) -> Comparison | None:
    """A unit may be missing on one side; two units must be the same, or the values convert."""
    (gold_value, gold_unit), (answer_value, answer_unit) = split_unit(gold), split_unit(answer)
    others = gold_unit or unknown_unit(gold), answer_unit or unknown_unit(answer)
    if all(others) and not all((gold_unit, answer_unit)) and not _may_be(*others):
        return Comparison(False, "unit", f"the unit is {others[1]!r}, the gold's is {others[0]!r}")
    if not gold_unit and not answer_unit:
        return None
    if not answer_unit:
        answer_value, answer_unit = split_letter(answer_value, gold_unit)
    elif not gold_unit:
        gold_value, gold_unit = split_letter(gold_value, answer_unit)
    if gold_unit and answer_unit and gold_unit != answer_unit and not _same_kind(answer_unit, gold_unit):
        factor = conversion(answer_unit, gold_unit)
        if factor is not None and ask(_times(answer_value, factor), gold_value).equal:
            return Comparison(True, "unit", f"{answer_unit!r} converted to {gold_unit!r}")
        return Comparison(False, "unit", f"the unit is {answer_unit!r}, the gold's is {gold_unit!r}")
    inner = ask(answer_value, gold_value)
    return replace(inner, reason=f"{inner.reason}, units set aside")


def _may_be(one: str, other: str) -> bool:
    """Whether a short word that is no unit of ours may be the other one: F for °F."""
    return one == other or {one, other} == {"F", "°F"}


def _same_kind(one: str, other: str) -> bool:
    """What was counted in Chinese has a counter, not a noun; pounds and degrees are two units under one name."""
    pair = {one, other}
    counted = "个" in pair and any(unit.startswith("#") for unit in pair)
    return counted or pair == {"lb", "GBP"} or pair in ({"degree", "°C"}, {"degree", "°F"})


def _times(text: str, factor: Fraction) -> str:
    if factor == 1:
        return text
    number = read_number(text)
    if number is not None and not number.percent:
        product = number.value * factor
        if product.denominator == 1:
            return str(product.numerator)
        return f"{'-' if product < 0 else ''}\\frac{{{abs(product.numerator)}}}{{{product.denominator}}}"
    return f"({text}) \\cdot \\frac{{{factor.numerator}}}{{{factor.denominator}}}"


def by_exact(answer: str, gold: str, _: Ask) -> Comparison | None:
    """Rational numbers of any size, to the last digit."""
    of_gold = exact(gold)
    of_answer = exact(answer) if of_gold is not None else None
    if of_gold is None or of_answer is None:
        return None
    equal = of_gold == of_answer
    if not equal and (of_gold.decimal or of_answer.decimal):
        return None  # a rounding, perhaps
    return Comparison(equal, "number", "the same number" if equal else "another number")


def by_magnitude(answer: str, gold: str, _: Ask) -> Comparison | None:
    """A tower of powers is not a plain number, and nobody has to compute it to know."""
    for large, small in ((answer, gold), (gold, answer)):
        if "^" in large or "!" in large or "\\binom" in large:
            digits = least_digits(large)
            if digits is not None and digits > UNCOUNTABLE_DIGITS and read_number(small) is not None:
                return Comparison(False, "magnitude", "one has thousands of digits, the other is a plain number")
            if large.count("^") > 1 and holds_a_tower(large):
                return Comparison(False, "magnitude", "it holds a power that no computer writes out")
    return None


def by_notation(answer: str, gold: str, ask: Ask) -> Comparison | None:
    """Bases and ratios: digits must agree one by one, terms in proportion."""
    of_gold, of_answer = read_based(gold), read_based(answer)
    if of_gold or of_answer:
        if of_gold and of_answer:
            return Comparison(of_gold == of_answer, "base", f"digits in base {of_answer.base} and {of_gold.base}")
        based, other = (of_gold, answer) if of_gold else (of_answer, gold)
        if based and based.base == 10:
            return ask(*((other, based.digits) if of_gold else (based.digits, other)))
        return Comparison(False, "base", "only one of them says its base")
    gold_terms, answer_terms = read_ratio(gold), read_ratio(answer)
    if gold_terms and answer_terms:
        equal = same_ratio(answer_terms, gold_terms) or all_equal(answer_terms, gold_terms, ask)
        return Comparison(equal, "ratio", "term by term")
    terms, other = (gold_terms, answer) if gold_terms else (answer_terms, gold)
    if terms and len(terms) == 2 and (number := read_number(other)) is not None and number.value.denominator > 1:
        return Comparison(
            same_ratio(terms, (str(number.value.numerator), str(number.value.denominator))), "ratio", "as a fraction"
        )
    return None


def by_congruence(answer: str, gold: str, ask: Ask) -> Comparison | None:
    of_answer, of_gold = forms.read_congruence(answer), forms.read_congruence(gold)
    if of_answer is None or of_gold is None:
        return None
    if of_answer[0] and of_gold[0] and of_answer[0] != of_gold[0]:
        return Comparison(False, "congruence", "another letter")
    residues, moduli = (exact(of_answer[1]), exact(of_gold[1])), (exact(of_answer[2]), exact(of_gold[2]))
    if all(residues) and all(moduli) and moduli[1].top and moduli[0] == moduli[1]:  # type: ignore[union-attr]
        difference = (residues[0].fraction() - residues[1].fraction()) / moduli[1].fraction()  # type: ignore[union-attr]
        return Comparison(difference.denominator == 1, "congruence", "residues of one modulus")
    return Comparison(all_equal(of_answer[1:], of_gold[1:], ask), "congruence", "residue and modulus")


def by_decimals(answer: str, gold: str, _: Ask) -> Comparison | None:
    """A decimal gold stands for what rounds to it; a decimal answer of enough places for an exact gold."""
    gold_number, answer_number = read_number(gold), read_number(answer)
    if gold_number is not None and gold_number.decimals:
        found = value(answer)
        if found is not None and rounds_to(gold_number, found):
            return Comparison(True, "rounding", "the answer rounds to the gold")
    elif answer_number is not None and answer_number.decimals:
        found = value(gold)
        if found is not None and found != answer_number.value:
            return Comparison(
                _is_rounding(answer_number, found), "rounding", "the gold, rounded to the answer's places"
            )
    return None


def _is_rounding(number: Number, exact_value: Fraction) -> bool:
    places = (number.decimals or 0) - number.unit_exponent
    return places >= FLOAT_DECIMALS and abs(number.value - exact_value) <= Fraction(1, 2 * 10**places)
