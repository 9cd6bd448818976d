"""Answers with parts against each other: sets, lists, tuples and matrices, item by item."""

from __future__ import annotations

import re
from collections.abc import Sequence

from chorus.reward_server.graders.math.comparison import Ask, Comparison
from chorus.reward_server.graders.math.domains import joint
from chorus.reward_server.graders.math.numbers import ROUNDING_DIGITS, read_number
from chorus.reward_server.graders.math.shapes import (
    Shape,
    is_equation,
    named,
    read_shape,
    same_items,
    split_top,
    unnamed,
)

_RELATION = re.compile(r"[<>=]|\\(?:le|ge|ne|lt|gt)(?![a-z])")
_LETTER = re.compile(r"(?<![\\A-Za-z])[A-Za-z](?![A-Za-z])")
_GROUPS = re.compile(r";|\\text\s*\{\s*or\s*\}|(?<![A-Za-z\\])or(?![A-Za-z])|\\(?:lor|vee)(?![a-z])")
_GROUP = re.compile(r"^\((?P<inner>[^()]*)\)$")
_DECIMAL = re.compile(r"[-+]?\d*\.(\d+)")


def by_shape(answer: str, gold: str, ask: Ask) -> Comparison | None:
    gold_shape, answer_shape = read_shape(gold), read_shape(answer)
    if answer_shape is None:
        return None if gold_shape is None else _by_single(answer, gold_shape, ask)
    if gold_shape is None:
        return _by_several(answer_shape, gold, ask)
    kinds = (answer_shape.kind, gold_shape.kind)
    if "matrix" in kinds:
        if kinds != ("matrix", "matrix"):
            return _column(answer_shape, gold_shape, ask)
        golds = as_fine(gold_shape.items)
        same = answer_shape.columns == gold_shape.columns and all_equal(answer_shape.items, golds, ask)
        return Comparison(same, "matrix", "entry by entry")
    if {joint(answer), joint(gold)} == {"and", "or"} and _in_several_letters(gold_shape):
        return Comparison(False, "items", "one says that all hold, the other that one does")
    if (by_name := _by_names(answer_shape, gold_shape, ask)) is not None:
        return by_name
    if "tuple" in kinds:
        return _by_order(answer_shape, gold_shape, ask)
    if _has_dots(answer_shape) or _has_dots(gold_shape):
        same = all_equal(answer_shape.items, gold_shape.items, ask)
        return Comparison(same, "items", "a sequence goes on in its order")
    answers, golds = unnamed(answer_shape.items), unnamed(gold_shape.items)
    if any(is_equation(item) for item in (*answers, *golds)):
        answers, golds = answer_shape.items, gold_shape.items  # `y =` is a side of one
    same = same_items(answers, golds, lambda one, other: ask(one, other).equal)
    return Comparison(same, "items", "the same items" if same else "other items")


def by_solutions(answer: str, gold: str, ask: Ask) -> Comparison | None:
    """`x = 1, y = 2 or x = 3, y = 4` is `(1,2), (3,4)`, in the order of the names."""
    if answer.count("=") < 4 and gold.count("=") < 4:
        return None
    written = _solutions(answer), _solutions(gold)
    return None if written == (answer, gold) else ask(*written)


def _solutions(text: str) -> str:
    groups = [_GROUP.sub(r"\g<inner>", group.strip()) for group in _GROUPS.split(text) if group.strip()]
    if len(groups) < 2 and "),(" not in text.replace(" ", ""):
        return text
    if len(groups) < 2:
        groups = [group.strip()[1:-1] for group in split_top(text)]
    every = [named(shape.items) if (shape := read_shape(group)) is not None else None for group in groups]
    if not every[0] or len(every[0]) < 2 or any(values is None or values.keys() != every[0].keys() for values in every):
        return text
    return ", ".join(f"({','.join(values[name] for name in sorted(values))})" for values in every if values)


def all_equal(answers: Sequence[str], golds: Sequence[str], ask: Ask) -> bool:
    """As many, and each equal to the one in its place."""
    return len(answers) == len(golds) and all(ask(a, g).equal for a, g in zip(answers, golds, strict=True))


def as_fine(golds: tuple[str, ...]) -> tuple[str, ...]:
    """The short decimals of one gold with as many places as the finest has, up to three digits: 0.29 beside 0.196."""
    places = max((len(decimal[1]) for gold in golds if (decimal := _DECIMAL.fullmatch(gold))), default=0)
    return tuple(_with_zeros(gold, places) for gold in golds)


def _with_zeros(gold: str, places: int) -> str:
    if (decimal := _DECIMAL.fullmatch(gold)) is None:
        return gold
    digits = len(gold.lstrip("+-0.").replace(".", ""))
    return gold + "0" * max(0, min(places - len(decimal[1]), ROUNDING_DIGITS - digits))


def _in_several_letters(shape: Shape) -> bool:
    """Whether the items are relations, and not all about the same letters: "x = 1 or x = 2" is a list of values."""
    if not all(_RELATION.search(item) for item in shape.items):
        return False
    return len({frozenset(_LETTER.findall(item)) for item in shape.items}) > 1


def _has_dots(shape: Shape) -> bool:
    return any("\\ldots" in item for item in shape.items)


def _column(answer: Shape, gold: Shape, ask: Ask) -> Comparison | None:
    """A vector as a column or a row, and as a tuple."""
    matrix, other = (answer, gold) if answer.kind == "matrix" else (gold, answer)
    is_vector = matrix.columns == 1 or matrix.columns == len(matrix.items)
    if not is_vector or other.kind != "tuple" or other.brackets not in ("()", "<>", "[]"):
        return None
    if other is gold and other.brackets == "[]" and len(other.items) == 2:
        return None  # an interval
    return Comparison(all_equal(answer.items, gold.items, ask), "vector", "coordinate by coordinate")


def _by_order(answer: Shape, gold: Shape, ask: Ask) -> Comparison:
    """Tuples; parentheses may be missing, the brackets of an interval may not, and braces say "no order"."""
    if "set" in (answer.kind, gold.kind):
        return Comparison(False, "tuple", "one has an order, the other has none")
    brackets = {shape.brackets for shape in (answer, gold)} - {""}
    if brackets <= ({"()", "<>"} if len(gold.items) == 2 else {"()", "<>", "[]"}) and brackets:
        brackets = {"()"}  # of three items and more `[` opens no interval
    if len(brackets) > 1 or (len(gold.items) == 2 and brackets != {"()"} and answer.kind != gold.kind):
        return Comparison(False, "tuple", "other brackets")
    return Comparison(all_equal(answer.items, as_fine(gold.items), ask), "tuple", "item by item")


def _by_names(answer: Shape, gold: Shape, ask: Ask) -> Comparison | None:
    """`x = 1, y = 2`: by name when both have names; with names in order against a tuple or a list without."""
    of_answer, of_gold = named(answer.items), named(gold.items)
    if of_answer is None:
        if of_gold is not None and len(of_gold) > 1 and answer.kind == "tuple" and answer.brackets == "()":
            values = tuple(of_gold[name] for name in sorted(of_gold))
            return Comparison(all_equal(answer.items, values, ask), "names", "named in order")
        return None
    if of_gold is not None:
        same = of_answer.keys() == of_gold.keys() and all(ask(of_answer[n], of_gold[n]).equal for n in of_gold)
        return Comparison(same, "names", "name by name")
    if gold.kind == "tuple":
        values = tuple(of_answer[name] for name in sorted(of_answer))
        return Comparison(all_equal(values, gold.items, ask), "names", "named in order")
    if len(of_answer) > 1 and len(of_answer) == len(answer.items) and not any("=" in item for item in gold.items):
        return Comparison(all_equal(tuple(of_answer.values()), gold.items, ask), "names", "named, in the gold's order")
    return None


def _by_single(answer: str, gold: Shape, ask: Ask) -> Comparison | None:
    if gold.kind == "set" and len(gold.items) == 1:
        return ask(answer, gold.items[0])
    if gold.kind != "matrix" and read_number(answer) is not None:
        return Comparison(False, "items", "one value where the gold has several")
    return None


def _by_several(answer: Shape, gold: str, ask: Ask) -> Comparison | None:
    if answer.kind == "set" and len(answer.items) == 1:
        return ask(answer.items[0], gold)
    if answer.kind == "matrix" and read_number(gold) is None:
        return None
    if answer.kind == "set" and not answer.items:
        return None
    plain = answer.kind == "list" and len(answer.items) <= 3 and "\\ldots" not in answer.items
    one_name = len(named(answer.items) or ()) < 2  # `x = 42, y = 42` are two answers
    if plain and one_name and all(ask(item, gold).equal for item in answer.items):
        return Comparison(True, "several", "the gold, written in several ways")
    return Comparison(False, "several", "several values where the gold is one")
