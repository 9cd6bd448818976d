r"""The rules that compare two normalised answers, cheapest first; each decides or passes on.

    same text > statements > numbers > marks > combinations > cases > substances > truth tables > bounds in words >
    families > written-out lists > definitions > solutions by name > labels > asides and choice letters > times and
    dates > angles > units > exact values > magnitudes > bases, ratios > congruences > words > equations > parts of the
    line > vectors > sets, lists, tuples, matrices > inequalities > words between values > words that nobody knows >
    decimals > algebra

A rule that takes an answer apart (a unit, a name, the items of a list) asks all rules again about the pieces.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from chorus.reward_server.graders.math import relation_rules, value_rules, word_rules
from chorus.reward_server.graders.math.algebra import same_formula
from chorus.reward_server.graders.math.between import by_words_between
from chorus.reward_server.graders.math.bound_words import by_bound_words
from chorus.reward_server.graders.math.chemistry import by_chemistry
from chorus.reward_server.graders.math.choice_marks import by_marks
from chorus.reward_server.graders.math.combinations import by_combination
from chorus.reward_server.graders.math.comparison import Ask, Comparison
from chorus.reward_server.graders.math.enumerations import by_enumeration
from chorus.reward_server.graders.math.families import by_family
from chorus.reward_server.graders.math.logic import by_table
from chorus.reward_server.graders.math.parts import by_shape, by_solutions
from chorus.reward_server.graders.math.vectors import by_vector

_RULES: tuple[Callable[[str, str, Ask], Comparison | None], ...] = (
    value_rules.by_text,
    word_rules.by_statements,
    value_rules.by_numbers,
    value_rules.by_multiplier,
    by_marks,
    by_combination,
    relation_rules.by_cases,
    by_chemistry,
    by_table,
    by_bound_words,
    by_family,
    by_enumeration,
    relation_rules.by_definition,
    by_solutions,
    word_rules.by_labels,
    word_rules.by_aside,
    word_rules.by_choice,
    value_rules.by_time,
    value_rules.by_date,
    value_rules.by_angle,
    value_rules.by_unit,
    value_rules.by_exact,
    value_rules.by_magnitude,
    value_rules.by_notation,
    value_rules.by_congruence,
    word_rules.by_words,
    relation_rules.by_equation,
    relation_rules.by_domain,
    by_vector,
    by_shape,
    relation_rules.by_relation,
    by_words_between,
    word_rules.by_unknown_words,
    value_rules.by_decimals,
)


def by_rules(answer: str, gold: str) -> Comparison:
    """Compare two normalised texts."""
    answer, gold = _bare(answer), _bare(gold)
    for rule in _RULES:
        if (decided := rule(answer, gold, by_rules)) is not None:
            return decided
    return algebra(same_formula(answer, gold), "after clean-up")


def algebra(equal: bool, how: str) -> Comparison:
    return Comparison(equal, "math-verify", f"math-verify finds {'them equal' if equal else 'no equality'}, {how}")


_ABOUT = r"(?:exactly|approximately|approx\.?|about|roughly|around)"
_LEADING = re.compile(
    rf"\s*(?:(?:=|\\approx(?![a-z])|\\sim(?=\s*[-+]?[\d.]))\s*|(?:\\text\s*\{{\s*{_ABOUT}\s*\}}|{_ABOUT}\s)\s*(?=[-+]?\s*[\d.\\$£€]))",
    re.IGNORECASE,
)
_TRAILING = re.compile(rf"(?<=[\d}}])\s*(?:\\text\s*\{{\s*\(\s*{_ABOUT}\s*\)\s*\}}|\(\s*{_ABOUT}\s*\))$", re.IGNORECASE)

_REPEATED = re.compile(
    r"\s*(?:\\text\s*\{\s*)?\(\s*(?:with )?(?:a )?(?:(?:double|triple|repeated) ?(?:root|solution|zero)?"
    r"|multiplicity (?:of )?\d|twice|counted twice)\s*\)(?:\s*\})?$"
)


def _bare(text: str) -> str:
    """Without parentheses around all of it (and no list in them), a leading sign of equality, or a word that says no
    more than such a sign."""
    text = _REPEATED.sub("", text) if text.endswith((")", "}")) else text
    text = _TRAILING.sub("", _LEADING.sub("", text, count=1) if _LEADING.match(text) else text)
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
