r"""Rules about equations, parts of the line, piecewise definitions and inequalities.

Each decides about two normalised texts, or passes on with None; `ask` puts pieces of them to all rules again.
"""

from __future__ import annotations

import re

from chorus.reward_server.graders.math import forms
from chorus.reward_server.graders.math.comparison import Ask, Comparison
from chorus.reward_server.graders.math.domains import has_relation, same_domain
from chorus.reward_server.graders.math.normalise import squeeze
from chorus.reward_server.graders.math.parts import all_equal
from chorus.reward_server.graders.math.quantities import is_quantity
from chorus.reward_server.graders.math.shapes import read_shape

_EQUALS = re.compile(r"(?<![<>!\\:=])=(?!=)")
# f(x), f^{-1}(x), \angle ABC, a_1, P(A \cup B), Area, and m+n. Possessive: otherwise a long product of brackets is
# tried 2^n ways.
_NAME = re.compile(
    r"(?:[^\d+*/^=<>,;\-()_]|_\{?\d+\}?|_|\^\{?(?:-1|(?:\\prime\s*)+|\(\w\))\}?(?=\()"
    r"|\((?:[^()]|\([^()]*\))*\))++"
    r"|\s*(?:[A-Za-z](?:\^\{?\d\}?)?){1,3}(?:\s*[-+]\s*(?:[A-Za-z](?:\^\{?\d\}?)?){1,3})+\s*"
)
_LETTER = re.compile(r"[A-Za-z]")
_DENYING = re.compile(r"\s*\\text\s*\{[^{}]*\b(?:not|never|wrong|incorrect|false|at least|at most|\w+ than)\b")
_VARIABLE = re.compile(r"[A-DF-Za-df-hj-z](?:_\{?\w+\}?)?(?:\([a-z]\))?")  # no e, no i
_DEFINED = re.compile(
    r"(?P<name>[A-Za-z])\s*(?:(?P<round>\()\s*|_\s*\{?\s*)(?P<letter>[a-z])\s*[)}]?\s*=\s*(?P<value>[^=<>]+)", re.DOTALL
)
_FUNCTION_OF_X = re.compile(
    r"(?:y|[a-zA-Z](?=\s*'*\s*\())\s*(?P<primes>'*)\s*(?:\(\s*x\s*\))?|(?P<once>\\frac\{dy\}\{dx\})"
)
_INTEGRAL = re.compile(r"\\int(?![a-z_^]|\s*[_^]).*d\s*[a-z]\s*", re.DOTALL)


def by_definition(answer: str, gold: str, ask: Ask) -> Comparison | None:
    """`f(t) = t^2` defines what `f(x) = x^2` does: the letter of a definition is its own."""
    ours, theirs = _DEFINED.fullmatch(answer), _DEFINED.fullmatch(gold)
    if ours is None or theirs is None or ours["name"] != theirs["name"] or ours["round"] != theirs["round"]:
        return None
    letter, other = ours["letter"], theirs["letter"]
    if letter == other or re.search(_alone(other), ours["value"]) or re.search(_alone(letter), theirs["value"]):
        return None
    return ask(re.sub(_alone(letter), other, ours["value"]), theirs["value"])


def _alone(letter: str) -> str:
    return rf"(?<![\\A-Za-z]){letter}(?![A-Za-z])"


def by_equation(answer: str, gold: str, ask: Ask) -> Comparison | None:
    """`x = 5` is the answer 5, `17 = 42` is not the answer 42: a leading name aside, each side must be it."""
    gold_sides, answer_sides = _sides(gold), _sides(answer)
    if gold_sides is None or answer_sides is None or len(gold_sides) == len(answer_sides) == 1:
        return None
    if len(gold_sides) > 1:
        return _by_two_equations(answer_sides, gold_sides, ask)
    if is_name(answer_sides[0]):
        answer_sides = answer_sides[1:]
    if not all(answer_sides):
        return Comparison(False, "equation", "a side of the equation is empty")
    for side in reversed(answer_sides):
        inner = ask(side, gold)
        if not inner.equal:
            return Comparison(False, "equation", f"the side {side[:80]!r} of the equation is not the gold")
    return Comparison(True, "equation", "every side of the equation is the gold")


def _by_two_equations(answer_sides: list[str], gold_sides: list[str], ask: Ask) -> Comparison | None:
    """A gold `y = 2x+1`: the name may be missing in the answer, and must otherwise be the same."""
    if len(gold_sides) != 2 or not is_name(gold_sides[0]) or len(answer_sides) > 2:
        return None
    if len(answer_sides) == 2:
        orders = [_order(side) for side in (answer_sides[0], gold_sides[0])]
        if squeeze(answer_sides[0]) != squeeze(gold_sides[0]) and (None in orders or orders[0] != orders[1]):
            return None
    inner = ask(answer_sides[-1], gold_sides[1])
    return inner if inner.equal or len(answer_sides) == 2 else None


def _order(side: str) -> int | None:
    """How often the function of x that is named is derived: 0 for `y`, 1 for `f'(x)`; None for anything else."""
    found = _FUNCTION_OF_X.fullmatch(side.strip())
    if found is None:
        return None
    return 1 if found["once"] else len(found["primes"])


def _sides(text: str) -> list[str] | None:
    """What stands between the equals signs; None when the text is a list or holds an inequality."""
    if "=" not in text and not has_relation(text):
        return None if (shape := read_shape(text)) is not None and shape.kind != "tuple" else [text.strip()]
    shape = read_shape(text)
    if (shape is not None and shape.kind != "tuple") or has_relation(text):
        return None
    sides = _split_sides(text)
    is_turned = len(sides) == 2 and _VARIABLE.fullmatch(sides[1]) and not is_name(sides[0])
    return sides[::-1] if is_turned else sides


def is_name(text: str) -> bool:
    """Whether one side of an equation only says what the other is: `x`, `f(x)`, `\\text{Area}`, `a^2+b^2`."""
    if is_quantity(text) or _INTEGRAL.fullmatch(text):
        return True
    return _NAME.fullmatch(text) is not None and _LETTER.search(text) is not None and _DENYING.match(text) is None


def last_side(text: str) -> str:
    return _split_sides(text)[-1]


def _split_sides(text: str) -> list[str]:
    """What the equals signs outside of braces separate: that of `\\sum_{k=1}` or `P(X=1)` belongs to the name."""
    sides, start, depth = [], 0, 0
    brackets = "{}()" if text.count("(") == text.count(")") else "{}"
    for mark in re.finditer(rf"[{brackets}]|" + _EQUALS.pattern, text):
        sign = mark.group()
        if sign == "=" and depth <= 0:
            sides.append(text[start : mark.start()].strip())
            start = mark.end()
        elif sign != "=":
            depth += 1 if sign in "{(" else -1
    return [*sides, text[start:].strip()]


def by_domain(answer: str, gold: str, _: Ask) -> Comparison | None:
    equal = same_domain(answer, gold)
    if equal is None:
        return None
    return Comparison(equal, "domain", "the same part of the line" if equal else "another part of the line")


def by_cases(answer: str, gold: str, ask: Ask) -> Comparison | None:
    """Piecewise definitions, row by row; rows may stand in another order."""
    if "\\begin{" not in answer or "\\begin{" not in gold:
        return None
    rows, gold_rows = forms.read_cases(answer), forms.read_cases(gold)
    if rows is None or gold_rows is None:
        return None
    left = list(gold_rows)
    for row in rows:
        same = next((g for g in left if ask(row[1], g[1]).equal or row[1] == g[1]), None)
        if same is None or not ask(row[0], same[0]).equal:
            return Comparison(False, "cases", "another value or condition")
        left.remove(same)
    return Comparison(not left, "cases", "row by row")


def by_relation(answer: str, gold: str, ask: Ask) -> Comparison | None:
    if has_relation(answer) and has_relation(gold):
        chain, gold_chain = forms.read_chain(answer), forms.read_chain(gold)
        if chain and gold_chain and chain[1] == gold_chain[1] and all_equal(chain[0], gold_chain[0], ask):
            return Comparison(True, "chain", "the same chain of inequalities")
    if has_relation(answer) and not has_relation(gold):
        return Comparison(False, "relation", "an inequality where the gold is none")
    if ("\\ldots" in answer) != ("\\ldots" in gold):
        return Comparison(False, "dots", "dots in one of them")
    return None
