r"""The rules that compare two normalised answers, cheapest first; each decides or passes on.

    same text > numbers > asides and choice letters > times > units > exact values > magnitudes > bases, ratios >
    congruences > words > equations > parts of the line > cases > sets, lists, tuples, matrices > inequalities >
    words that nobody knows > decimals > algebra

A rule that takes an answer apart (a unit, a name, the items of a list) asks all rules again about the pieces.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from chorus.reward_server.graders.math import asides, forms
from chorus.reward_server.graders.math.algebra import same_formula, value
from chorus.reward_server.graders.math.comparison import Comparison
from chorus.reward_server.graders.math.domains import has_relation, same_domain
from chorus.reward_server.graders.math.exact import exact
from chorus.reward_server.graders.math.normalise import squeeze
from chorus.reward_server.graders.math.numbers import (
    FLOAT_DECIMALS,
    Number,
    least_digits,
    read_based,
    read_number,
    read_ratio,
    rounds_to,
    same_number,
    same_ratio,
)
from chorus.reward_server.graders.math.parts import all_equal, by_shape
from chorus.reward_server.graders.math.shapes import read_shape
from chorus.reward_server.graders.math.units import conversion, multiplied, split_letter, split_unit

UNCOUNTABLE_DIGITS = 1000  # `read_number` knows none with so many
MAX_ASIDE_CHARS = 400
_EQUALS = re.compile(r"(?<![<>!\\:=])=(?!=)")
# f(x), \angle ABC, a_1, P(A \cup B), Area, and m+n. Possessive: otherwise a long product of brackets is tried 2^n ways.
_NAME = re.compile(
    r"(?:[^\d+*/^=<>,;\-()_]|_\{?\d+\}?|_|\((?:[^=()]|\([^=()]*\))*\))++|\s*[A-Za-z](?:\s*\+\s*[A-Za-z])+\s*"
)
_FUNCTION_OF_X = re.compile(r"y|[a-zA-Z]\s*\(\s*x\s*\)")
_WORDS = re.compile(r"(?=.*[A-Za-z]{3})[A-Za-z][A-Za-z' -]+")
_ARTICLE = re.compile(r"^(?:the|an?) ")
_SYMBOL = re.compile(r"[A-Za-z](?:_\{?\w+\}?)?|\\[a-zA-Z]+")
_CURRENCY = re.compile(r"[$€£¥₹元円]")
_TEXTS = re.compile(r"\\text\s*\{([^{}]*)\}")
_HARMLESS = frozenset(
    {"and", "or", "if", "otherwise", "for", "when", "where", "mod", "is", "cis", "", "with", "all", "real"}
)
_DOUBT = re.compile(
    r"(?<![\\A-Za-z])(?:or|not|isn't|is|wrong|correct|something|anything|maybe|either|neither|least|most|approximately|about|"
    r"than|nope|sorry|answer|squared|cubed|million|billion|trillion|thousand|dozen)(?![A-Za-z])",
    re.IGNORECASE,
)
_ASIDE_SIGNS = re.compile(r"\\text|\\in(?![a-z])|\\approx|\\sim|,|\bwhere\b|\bfor\b")
_TWO_LETTERS = re.compile(r"[A-J](?![A-Za-z])")


def by_rules(answer: str, gold: str) -> Comparison:
    """Compare two normalised texts."""
    answer, gold = _bare(answer), _bare(gold)
    for rule in _RULES:
        if (decided := rule(answer, gold)) is not None:
            return decided
    return algebra(same_formula(answer, gold), "after clean-up")


def algebra(equal: bool, how: str) -> Comparison:
    return Comparison(equal, "math-verify", f"math-verify finds {'them equal' if equal else 'no equality'}, {how}")


def _by_text(answer: str, gold: str) -> Comparison | None:
    if squeeze(answer) == squeeze(gold) and gold:
        return Comparison(True, "exact", "the same text after clean-up")
    if not answer:
        return Comparison(False, "empty", "nothing to compare")
    if _SYMBOL.fullmatch(answer) and _SYMBOL.fullmatch(gold) and len(answer) == len(gold) == 1:
        return Comparison(False, "symbol", "another letter")
    return None


def _by_numbers(answer: str, gold: str) -> Comparison | None:
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


def _by_multiplier(answer: str, gold: str) -> Comparison | None:
    """`8 \\text{ million}` is eight million."""
    written = multiplied(answer), multiplied(gold)
    return None if written == (answer, gold) else by_rules(*written)


def _by_aside(answer: str, gold: str) -> Comparison | None:
    """Labels, roundings and conditions are set aside; two conditions must agree."""
    if max(len(answer), len(gold)) > MAX_ASIDE_CHARS or not (_ASIDE_SIGNS.search(answer) or _ASIDE_SIGNS.search(gold)):
        return None
    pair = asides.without_label(answer), asides.without_label(gold)
    if pair != (answer, gold):
        return by_rules(*pair)
    if (rounded := _by_exact_part(answer, gold)) is not None:
        return rounded
    (plain_answer, letters, of_answer), (plain_gold, gold_letters, of_gold) = (
        asides.split_condition(answer),
        asides.split_condition(gold),
    )
    if plain_answer != answer or plain_gold != gold:
        if of_answer and of_gold and of_answer != of_gold:
            return Comparison(False, "condition", f"the letters are of {of_answer}, the gold's of {of_gold}")
        if plain_answer != answer and not re.search(r"[A-Za-z]", re.sub(r"\\[a-z]+", "", plain_answer)):
            return None  # a condition on the letters of a plain number
        if letters and gold_letters and letters != gold_letters and len(letters) == len(gold_letters) == 1:
            plain_answer = _renamed(plain_answer, letters, gold_letters)
        return by_rules(plain_answer, plain_gold)
    shorter, shorter_gold = asides.split_restriction(answer), asides.split_restriction(gold)
    if (shorter != answer) != (shorter_gold != gold) and not has_relation(shorter_gold):
        inner = by_rules(shorter, shorter_gold)
        return inner if inner.equal else None
    return None


def _by_exact_part(answer: str, gold: str) -> Comparison | None:
    """`2\\pi \\approx 6.28`: the exact value counts, and the rounding must be one of it."""
    of_answer, of_gold = asides.exact_part(answer), asides.exact_part(gold)
    if of_gold is not None and of_gold[0] and of_answer is None:
        name = _NAME.fullmatch(of_gold[0])
        return by_rules(answer, of_gold[1] if name else of_gold[0])
    if of_answer is None or not of_answer[1]:
        return None
    before, behind = of_answer
    if not before:
        return None
    if _NAME.fullmatch(before):
        return by_rules(f"{before} = {behind}", gold)
    left, right = value(_last_side(before)), value(behind)
    if left is None or right is None or abs(left - right) > abs(left) / 20:
        return Comparison(False, "rounding", "what follows is no rounding of the value before it")
    return by_rules(before, of_gold[0] if of_gold and of_gold[0] else gold)


def _last_side(text: str) -> str:
    return _split_sides(text)[-1]


def _renamed(text: str, letter: str, other: str) -> str:
    return re.sub(rf"(?<![\\A-Za-z]){re.escape(letter)}(?![A-Za-z])", other, text)


def _by_choice(answer: str, gold: str) -> Comparison | None:
    """Choice letters: against a gold that is a letter the letter counts, against another gold what it labels."""
    of_gold, gold_rest, gold_marked = asides.labelled(gold)
    wanted = asides.letter_alone(gold) or (of_gold if gold_marked else "")
    chosen, rest, marked = asides.labelled(answer)
    if asides.letter_alone(gold):
        if letter := asides.letter_alone(answer):
            return Comparison(letter == wanted, "choice", f"chose {letter}, the gold is {wanted}")
        if not chosen:
            return None
        if _TWO_LETTERS.search(rest) and re.search(r"\b(?:or|and)\b|,|\([A-J]\)", rest):
            return Comparison(False, "choice", "several letters")
        return Comparison(chosen == wanted, "choice", f"chose {chosen}, the gold is {wanted}")
    if wanted and (letter := asides.letter_alone(answer)):
        return Comparison(letter == wanted, "choice", f"chose {letter}, the gold is {wanted}")
    if wanted and chosen:
        return Comparison(chosen == wanted, "choice", f"chose {chosen}, the gold is {wanted}")
    if wanted:
        return by_rules(answer, gold_rest)
    return by_rules(rest, gold) if chosen and marked else None


def _by_time(answer: str, gold: str) -> Comparison | None:
    of_answer, of_gold = forms.read_time(answer), forms.read_time(gold)
    if of_answer is None or of_gold is None or not (of_answer[1] or of_gold[1]):
        return None
    equal = forms.same_time(of_answer, of_gold)
    return Comparison(equal, "time", "the same time of day" if equal else "another time of day")


def _by_unit(answer: str, gold: str) -> Comparison | None:
    """A unit may be missing on one side; two units must be the same, or the values convert."""
    (gold_value, gold_unit), (answer_value, answer_unit) = split_unit(gold), split_unit(answer)
    if not gold_unit and not answer_unit:
        return None
    if not answer_unit:
        answer_value, answer_unit = split_letter(answer_value, gold_unit)
    elif not gold_unit:
        gold_value, gold_unit = split_letter(gold_value, answer_unit)
    if gold_unit and answer_unit and gold_unit != answer_unit and not _same_kind(answer_unit, gold_unit):
        factor = conversion(answer_unit, gold_unit)
        if factor is not None and by_rules(_times(answer_value, factor), gold_value).equal:
            return Comparison(True, "unit", f"{answer_unit!r} converted to {gold_unit!r}")
        return Comparison(False, "unit", f"the unit is {answer_unit!r}, the gold's is {gold_unit!r}")
    inner = by_rules(answer_value, gold_value)
    return replace(inner, reason=f"{inner.reason}, units set aside")


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


def _by_exact(answer: str, gold: str) -> Comparison | None:
    """Rational numbers of any size, to the last digit."""
    of_gold = exact(gold)
    of_answer = exact(answer) if of_gold is not None else None
    if of_gold is None or of_answer is None:
        return None
    equal = of_gold == of_answer
    if not equal and (of_gold.decimal or of_answer.decimal):
        return None  # a rounding, perhaps
    return Comparison(equal, "number", "the same number" if equal else "another number")


def _by_magnitude(answer: str, gold: str) -> Comparison | None:
    """A tower of powers is not a plain number, and nobody has to compute it to know."""
    for large, small in ((answer, gold), (gold, answer)):
        if "^" in large or "!" in large or "\\binom" in large:
            digits = least_digits(large)
            if digits is not None and digits > UNCOUNTABLE_DIGITS and read_number(small) is not None:
                return Comparison(False, "magnitude", "one has thousands of digits, the other is a plain number")
    return None


def _by_notation(answer: str, gold: str) -> Comparison | None:
    """Bases and ratios: digits must agree one by one, terms in proportion."""
    of_gold, of_answer = read_based(gold), read_based(answer)
    if of_gold or of_answer:
        if of_gold and of_answer:
            return Comparison(of_gold == of_answer, "base", f"digits in base {of_answer.base} and {of_gold.base}")
        based, other = (of_gold, answer) if of_gold else (of_answer, gold)
        if based and based.base == 10:
            return by_rules(*((other, based.digits) if of_gold else (based.digits, other)))
        return Comparison(False, "base", "only one of them says its base")
    gold_terms, answer_terms = read_ratio(gold), read_ratio(answer)
    if gold_terms and answer_terms:
        equal = same_ratio(answer_terms, gold_terms) or all_equal(answer_terms, gold_terms, by_rules)
        return Comparison(equal, "ratio", "term by term")
    terms, other = (gold_terms, answer) if gold_terms else (answer_terms, gold)
    if terms and len(terms) == 2 and (number := read_number(other)) is not None and number.value.denominator > 1:
        return Comparison(
            same_ratio(terms, (str(number.value.numerator), str(number.value.denominator))), "ratio", "as a fraction"
        )
    return None


def _by_congruence(answer: str, gold: str) -> Comparison | None:
    of_answer, of_gold = forms.read_congruence(answer), forms.read_congruence(gold)
    if of_answer is None or of_gold is None:
        return None
    if of_answer[0] and of_gold[0] and of_answer[0] != of_gold[0]:
        return Comparison(False, "congruence", "another letter")
    residues, moduli = (exact(of_answer[1]), exact(of_gold[1])), (exact(of_answer[2]), exact(of_gold[2]))
    if all(residues) and all(moduli) and moduli[1].top and moduli[0] == moduli[1]:  # type: ignore[union-attr]
        difference = (residues[0].fraction() - residues[1].fraction()) / moduli[1].fraction()  # type: ignore[union-attr]
        return Comparison(difference.denominator == 1, "congruence", "residues of one modulus")
    return Comparison(all_equal(of_answer[1:], of_gold[1:], by_rules), "congruence", "residue and modulus")


def _by_words(answer: str, gold: str) -> Comparison | None:
    if not (_WORDS.fullmatch(gold) and _WORDS.fullmatch(answer)):
        return None
    equal = _ARTICLE.sub("", gold.casefold()) == _ARTICLE.sub("", answer.casefold())
    return Comparison(equal, "words", "the same words" if equal else "other words")


def _by_equation(answer: str, gold: str) -> Comparison | None:
    """`x = 5` is the answer 5, `17 = 42` is not the answer 42: a leading name aside, each side must be it."""
    gold_sides, answer_sides = _sides(gold), _sides(answer)
    if gold_sides is None or answer_sides is None or len(gold_sides) == len(answer_sides) == 1:
        return None
    if len(gold_sides) > 1:
        return _by_two_equations(answer_sides, gold_sides)
    if _NAME.fullmatch(answer_sides[0]):
        answer_sides = answer_sides[1:]
    if not all(answer_sides):
        return Comparison(False, "equation", "a side of the equation is empty")
    for side in reversed(answer_sides):
        inner = by_rules(side, gold)
        if not inner.equal:
            return Comparison(False, "equation", f"the side {side[:80]!r} of the equation is not the gold")
    return Comparison(True, "equation", "every side of the equation is the gold")


def _by_two_equations(answer_sides: list[str], gold_sides: list[str]) -> Comparison | None:
    """A gold `y = 2x+1`: the name may be missing in the answer, and must otherwise be the same."""
    if len(gold_sides) != 2 or not _NAME.fullmatch(gold_sides[0]) or len(answer_sides) > 2:
        return None
    if len(answer_sides) == 2:
        functions = all(_FUNCTION_OF_X.fullmatch(side) for side in (answer_sides[0], gold_sides[0]))
        if squeeze(answer_sides[0]) != squeeze(gold_sides[0]) and not functions:
            return None
    inner = by_rules(answer_sides[-1], gold_sides[1])
    return inner if inner.equal or len(answer_sides) == 2 else None


def _sides(text: str) -> list[str] | None:
    """What stands between the equals signs; None when the text is a list or holds an inequality."""
    if "=" not in text and not has_relation(text):
        return None if (shape := read_shape(text)) is not None and shape.kind != "tuple" else [text.strip()]
    shape = read_shape(text)
    if (shape is not None and shape.kind != "tuple") or has_relation(text):
        return None
    return _split_sides(text)


def _split_sides(text: str) -> list[str]:
    """What the equals signs outside of braces separate: the one in `\\sum_{k=1}` belongs to the sum."""
    sides, start, depth = [], 0, 0
    for mark in re.finditer(r"[{}]|" + _EQUALS.pattern, text):
        sign = mark.group()
        if sign == "=" and depth <= 0:
            sides.append(text[start : mark.start()].strip())
            start = mark.end()
        elif sign != "=":
            depth += 1 if sign == "{" else -1
    return [*sides, text[start:].strip()]


def _by_domain(answer: str, gold: str) -> Comparison | None:
    equal = same_domain(answer, gold)
    if equal is None:
        return None
    return Comparison(equal, "domain", "the same part of the line" if equal else "another part of the line")


def _by_cases(answer: str, gold: str) -> Comparison | None:
    """Piecewise definitions, row by row; rows may stand in another order."""
    if "\\begin{" not in answer or "\\begin{" not in gold:
        return None
    rows, gold_rows = forms.read_cases(answer), forms.read_cases(gold)
    if rows is None or gold_rows is None or not ("cases" in answer and "cases" in gold):
        return None
    left = list(gold_rows)
    for row in rows:
        same = next((g for g in left if by_rules(row[1], g[1]).equal or row[1] == g[1]), None)
        if same is None or not by_rules(row[0], same[0]).equal:
            return Comparison(False, "cases", "another value or condition")
        left.remove(same)
    return Comparison(not left, "cases", "row by row")


def _by_shape(answer: str, gold: str) -> Comparison | None:
    return by_shape(answer, gold, by_rules)


def _by_relation(answer: str, gold: str) -> Comparison | None:
    if has_relation(answer) and has_relation(gold):
        chain, gold_chain = forms.read_chain(answer), forms.read_chain(gold)
        if chain and gold_chain and chain[1] == gold_chain[1] and all_equal(chain[0], gold_chain[0], by_rules):
            return Comparison(True, "chain", "the same chain of inequalities")
    if has_relation(answer) and not has_relation(gold):
        return Comparison(False, "relation", "an inequality where the gold is none")
    if ("\\ldots" in answer) != ("\\ldots" in gold):
        return Comparison(False, "dots", "dots in one of them")
    return None


def _by_unknown_words(answer: str, gold: str) -> Comparison | None:
    """Words that are neither a unit nor in the gold: no algebra reads them, and they may deny the value."""
    known = gold.casefold()
    for words in _TEXTS.findall(answer):
        plain = words.strip(" .,:;()").casefold()
        if plain not in _HARMLESS and len(plain) > 1 and plain not in known:
            return Comparison(False, "words", f"{plain[:40]!r} is no unit, and not in the gold")
    doubt = _DOUBT.search(answer)
    if doubt is not None and doubt.group().casefold() not in known:
        return Comparison(False, "words", f"{doubt.group()!r} is not in the gold")
    return None


def _by_decimals(answer: str, gold: str) -> Comparison | None:
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


def _bare(text: str) -> str:
    """Without parentheses around all of it (and no list in them), and without a leading sign of equality."""
    text = re.sub(r"^\s*(?:=|\\approx(?![a-z]))\s*", "", text)
    if not text.startswith("("):
        return text
    closes: dict[int, int] = {}
    opened: list[int] = []
    for match in re.finditer(r"[()]", text):
        if match.group() == "(":
            opened.append(match.start())
        elif opened:
            closes[opened.pop()] = match.start()
    depth = 0
    while closes.get(depth) == len(text) - 1 - depth and text[depth + 1 : depth + 2] != ")":
        depth += 1
    inner = text[depth : len(text) - depth]
    return text if depth == 0 else (f"({inner})" if re.search(r"[,;]", inner) else inner.strip())


_RULES: tuple[Callable[[str, str], Comparison | None], ...] = (
    _by_text,
    _by_numbers,
    _by_multiplier,
    _by_aside,
    _by_choice,
    _by_time,
    _by_unit,
    _by_exact,
    _by_magnitude,
    _by_notation,
    _by_congruence,
    _by_words,
    _by_equation,
    _by_domain,
    _by_cases,
    _by_shape,
    _by_relation,
    _by_unknown_words,
    _by_decimals,
)
