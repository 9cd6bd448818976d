"""Whether a mathematical answer is one of the golds. Imported by the grader processes only (sympy).

`paper` asks math-verify alone, as published: one gold, the last. `train` and `strict` go through rules, each of which
decides or passes on; what is left goes to algebra:

    same text > numbers > magnitudes > bases, ratios > units > words > equations > parts of the line >
    sets, lists, tuples, matrices > inequalities > decimals > algebra

A rule that takes an answer apart (a unit, a name, the items of a list) asks all rules again about the pieces.
MemoryError and RecursionError travel: they are a verifier's failure, not a wrong answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

from chorus.reward_server.graders.extraction import Extraction, Mode, extract, last_box
from chorus.reward_server.graders.math.algebra import parses, published, same_formula, value
from chorus.reward_server.graders.math.domains import has_relation, same_domain
from chorus.reward_server.graders.math.normalise import normalise, squeeze, unwrap
from chorus.reward_server.graders.math.numbers import (
    FLOAT_DECIMALS,
    Number,
    least_digits,
    read_based,
    read_number,
    read_ratio,
    rounds_to,
    same_number,
)
from chorus.reward_server.graders.math.shapes import Shape, named, read_shape, same_items, unnamed
from chorus.reward_server.graders.math.units import conversion, split_unit

UNCOUNTABLE_DIGITS = 1000  # `read_number` knows none with so many
MAX_ANSWER_CHARS = 2000  # a longer text is prose or an attack, and parsing it costs the whole time limit
_EQUALS = re.compile(r"(?<![<>!\\:=])=(?!=)|\\approx(?![a-z])")
# f(x), \angle ABC, a_1, P(A \cup B), Area, and m+n. Possessive: otherwise a long product of brackets is tried 2^n ways.
_NAME = re.compile(
    r"(?:[^\d+*/^=<>,;\-()_]|_\{?\d+\}?|_|\((?:[^=()]|\([^=()]*\))*\))++|\s*[A-Za-z](?:\s*\+\s*[A-Za-z])+\s*"
)
_FUNCTION_OF_X = re.compile(r"y|[a-zA-Z]\s*\(\s*x\s*\)")
_WORDS = re.compile(r"(?=.*[A-Za-z]{3})[A-Za-z][A-Za-z' -]+")
_ARTICLE = re.compile(r"^(?:the|an?) ")
_SYMBOL = re.compile(r"[A-Za-z](?:_\{?\w+\}?)?|\\[a-zA-Z]+")


@dataclass(frozen=True)
class Comparison:
    """The outcome for one gold: equal or not, the rule that decided, and its reason in words."""

    equal: bool
    rule: str
    reason: str


@dataclass(frozen=True)
class MathGrade:
    """The grade of one completion and the way to it."""

    verdict: str  # correct | wrong | no_answer
    extraction: Extraction
    comparisons: tuple[Comparison, ...]  # one a gold, up to the first that matches

    @property
    def rule(self) -> str:
        return self.comparisons[-1].rule if self.comparisons else "extraction"


def grade_math(completion: str, golds: Sequence[str], mode: Mode) -> MathGrade:
    """Grade a completion; any gold that matches makes it correct (in `paper` mode the last gold is the gold)."""
    found = extract(completion, mode, parses=is_expression)
    if not found.text:
        return MathGrade("no_answer", found, ())
    comparisons: list[Comparison] = []
    for gold in golds[-1:] if mode == "paper" else golds:
        comparisons.append(compare(found.text, gold, mode))
        if comparisons[-1].equal:
            return MathGrade("correct", found, tuple(comparisons))
    return MathGrade("wrong", found, tuple(comparisons))


def compare(answer: str, gold: str, mode: Mode) -> Comparison:
    """Compare an extracted answer with one gold (bare, `$...$` or boxed)."""
    if "boxed" in gold:
        gold = last_box(gold) or gold
    if len(answer) > max(MAX_ANSWER_CHARS, 4 * len(gold)):
        return Comparison(False, "length", f"{len(answer)} characters are no answer; nothing was compared")
    if mode == "paper":
        return _algebra(published(_boxed(answer), _boxed(gold)), "as published")
    return _by_rules(normalise(answer), normalise(gold))


@lru_cache(maxsize=256)
def is_expression(text: str) -> bool:
    """Whether a text can be read as mathematics: a number, or something that sympy can read."""
    if len(text) > MAX_ANSWER_CHARS or not (text := normalise(text)):
        return False
    return read_number(text) is not None or read_shape(text) is not None or parses(text)


def _by_rules(answer: str, gold: str) -> Comparison:
    answer, gold = _bare(answer), _bare(gold)
    for rule in _RULES:
        if (decided := rule(answer, gold)) is not None:
            return decided
    return _algebra(same_formula(answer, gold), "after clean-up")


def _algebra(equal: bool, how: str) -> Comparison:
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


def _by_magnitude(answer: str, gold: str) -> Comparison | None:
    """A tower of powers is not a plain number, and nobody has to compute it to know."""
    for large, plain in ((answer, gold), (gold, answer)):
        if "^" in large or "!" in large or "\\binom" in large:
            digits = least_digits(large)
            if digits is not None and digits > UNCOUNTABLE_DIGITS and read_number(plain) is not None:
                return Comparison(False, "magnitude", "one has thousands of digits, the other is a plain number")
    return None


def _by_notation(answer: str, gold: str) -> Comparison | None:
    """Bases and ratios: digits and terms must agree one by one."""
    of_gold, of_answer = read_based(gold), read_based(answer)
    if of_gold or of_answer:
        if of_gold and of_answer:
            return Comparison(of_gold == of_answer, "base", f"digits in base {of_answer.base} and {of_gold.base}")
        based, plain = (of_gold, answer) if of_gold else (of_answer, gold)
        if based and based.base == 10:
            return _by_rules(*((plain, based.digits) if of_gold else (based.digits, plain)))
        return Comparison(False, "base", "only one of them says its base")
    gold_terms, answer_terms = read_ratio(gold), read_ratio(answer)
    if gold_terms and answer_terms:
        equal = len(gold_terms) == len(answer_terms) and _all_equal(answer_terms, gold_terms)
        return Comparison(equal, "ratio", "term by term")
    return None


def _by_unit(answer: str, gold: str) -> Comparison | None:
    """A unit may be missing on one side; two units must be the same, or numbers convert."""
    (gold_value, gold_unit), (answer_value, answer_unit) = split_unit(gold), split_unit(answer)
    if not gold_unit and not answer_unit:
        return None
    if gold_unit and answer_unit and gold_unit != answer_unit:
        factor, number = conversion(answer_unit, gold_unit), read_number(answer_value)
        gold_number = read_number(gold_value)
        if factor and number and gold_number and number.value * factor == gold_number.value:
            return Comparison(True, "unit", f"{answer_unit!r} converted to {gold_unit!r}")
        return Comparison(False, "unit", f"the unit is {answer_unit!r}, the gold's is {gold_unit!r}")
    inner = _by_rules(answer_value, gold_value)
    return replace(inner, reason=f"{inner.reason}, units set aside")


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
        inner = _by_rules(side, gold)
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
    inner = _by_rules(answer_sides[-1], gold_sides[1])
    return inner if inner.equal or len(answer_sides) == 2 else None


def _sides(text: str) -> list[str] | None:
    """What stands between the equals signs; None when the text is a list or holds an inequality."""
    shape = read_shape(text)
    if (shape is not None and shape.kind != "tuple") or has_relation(text):
        return None
    return [side.strip() for side in _EQUALS.split(text)]


def _by_domain(answer: str, gold: str) -> Comparison | None:
    equal = same_domain(answer, gold)
    if equal is None:
        return None
    return Comparison(equal, "domain", "the same part of the line" if equal else "another part of the line")


def _by_shape(answer: str, gold: str) -> Comparison | None:
    """Sets, lists, tuples and matrices, item by item."""
    gold_shape, answer_shape = read_shape(gold), read_shape(answer)
    if answer_shape is None:
        return None if gold_shape is None else _by_single(answer, gold_shape)
    if gold_shape is None:
        return _by_several(answer_shape, gold)
    kinds = (answer_shape.kind, gold_shape.kind)
    if "matrix" in kinds:
        if kinds != ("matrix", "matrix"):
            return None
        equal = answer_shape.columns == gold_shape.columns and _all_equal(answer_shape.items, gold_shape.items)
        return Comparison(equal, "matrix", "entry by entry")
    if (by_name := _by_names(answer_shape, gold_shape)) is not None:
        return by_name
    if "tuple" in kinds:
        return _by_order(answer_shape, gold_shape)
    equal = same_items(unnamed(answer_shape.items), unnamed(gold_shape.items), _equal)
    return Comparison(equal, "items", "the same items" if equal else "other items")


def _by_order(answer: Shape, gold: Shape) -> Comparison:
    """Tuples; parentheses may be missing, the brackets of an interval may not, and braces say "no order"."""
    if "set" in (answer.kind, gold.kind):
        return Comparison(False, "tuple", "one has an order, the other has none")
    brackets = {answer.brackets, gold.brackets} - {""}
    if len(brackets) > 1 or (len(gold.items) == 2 and brackets != {"()"} and answer.kind != gold.kind):
        return Comparison(False, "tuple", "other brackets")
    equal = len(answer.items) == len(gold.items) and _all_equal(answer.items, gold.items)
    return Comparison(equal, "tuple", "item by item")


def _by_names(answer: Shape, gold: Shape) -> Comparison | None:
    """`x = 1, y = 2`: by name when both have names; with names in order against a tuple without."""
    of_answer, of_gold = named(answer.items), named(gold.items)
    if of_answer is None:
        return None
    if of_gold is not None:
        equal = of_answer.keys() == of_gold.keys() and all(_equal(of_answer[n], of_gold[n]) for n in of_gold)
        return Comparison(equal, "names", "name by name")
    if gold.kind != "tuple":
        return None
    values = tuple(of_answer[name] for name in sorted(of_answer))
    return Comparison(len(values) == len(gold.items) and _all_equal(values, gold.items), "names", "named in order")


def _by_single(answer: str, gold: Shape) -> Comparison | None:
    if gold.kind == "set" and len(gold.items) == 1:
        return _by_rules(answer, gold.items[0])
    if gold.kind != "matrix" and read_number(answer) is not None:
        return Comparison(False, "items", "one value where the gold has several")
    return None


def _by_several(answer: Shape, gold: str) -> Comparison | None:
    if answer.kind == "set" and len(answer.items) == 1:
        return _by_rules(answer.items[0], gold)
    if answer.kind == "matrix" and read_number(gold) is None:
        return None
    if answer.kind == "set" and not answer.items:
        return None
    return Comparison(False, "several", "several values where the gold is one")


def _by_relation(answer: str, gold: str) -> Comparison | None:
    if has_relation(answer) and not has_relation(gold):
        return Comparison(False, "relation", "an inequality where the gold is none")
    if re.search(r"\\ldots|\\dots|\.\.\.", answer) and not re.search(r"\\ldots|\\dots|\.\.\.", gold):
        return Comparison(False, "dots", "dots where the gold has none")
    return None


def _by_decimals(answer: str, gold: str) -> Comparison | None:
    """A decimal gold stands for what rounds to it; a decimal answer of enough places for an exact gold."""
    gold_number, answer_number = read_number(gold), read_number(answer)
    if gold_number is not None and gold_number.decimals:
        exact = value(answer)
        if exact is not None and rounds_to(gold_number, exact):
            return Comparison(True, "rounding", "the answer rounds to the gold")
    elif answer_number is not None and answer_number.decimals:
        exact = value(gold)
        if exact is not None and exact != answer_number.value:
            return Comparison(
                _is_rounding(answer_number, exact), "rounding", "the gold, rounded to the answer's places"
            )
    return None


def _is_rounding(number: Number, exact: Fraction) -> bool:
    places = (number.decimals or 0) - number.unit_exponent
    return places >= FLOAT_DECIMALS and abs(number.value - exact) <= Fraction(1, 2 * 10**places)


def _equal(answer: str, gold: str) -> bool:
    return _by_rules(answer, gold).equal


def _all_equal(answers: Sequence[str], golds: Sequence[str]) -> bool:
    return all(_equal(answer, gold) for answer, gold in zip(answers, golds, strict=False)) and len(answers) == len(
        golds
    )


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


def _boxed(text: str) -> str:
    return text if "\\boxed" in text else f"\\boxed{{{unwrap(text)}}}"


_RULES: tuple[Callable[[str, str], Comparison | None], ...] = (
    _by_text,
    _by_numbers,
    _by_magnitude,
    _by_notation,
    _by_unit,
    _by_words,
    _by_equation,
    _by_domain,
    _by_shape,
    _by_relation,
    _by_decimals,
)
