r"""Words between values: `3 \text{ boys and } 4 \text{ girls}`, `2 \text{ remainder } 3`, `n \text{ choose } k`.

The parser of formulas drops every `\text`, and what is left would be multiplied.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from chorus.reward_server.graders.math.comparison import Ask, Comparison
from chorus.reward_server.graders.math.parts import all_equal
from chorus.reward_server.graders.math.shapes import same_items
from chorus.reward_server.graders.math.units import unit_of

_TEXT = re.compile(r"\\text\s*\{(?P<words>[^{}]*)\}")
_BY = re.compile(r"\\text\s*\{[^{}]*\bby\b")
_OUT_OF = re.compile(r"^(\d+)\s*(?:\\text\s*\{\s*)?out of(?:\s*\})?\s*(\d+)$")
_TIMES = re.compile(r"\\times(?![a-z])")
_CONDITION = re.compile(r"\s*(?:cis|if|for|when|where|otherwise|all|real|with)\b")


@dataclass(frozen=True)
class _Phrase:
    """A value, its unit (in its own words), and the words that join it to the next one."""

    value: str
    unit: str
    joint: str

    def __str__(self) -> str:
        return f"{self.value} \\text{{ {self.unit} }}" if self.unit else self.value


def by_words_between(answer: str, gold: str, ask: Ask) -> Comparison | None:
    """The words that join values must be the same, and the values in their order; `n noun and m noun` has none."""
    if _BY.search(answer) or _BY.search(gold):
        answer, gold = (_TIMES.sub(r"\\text{ by }", text) for text in (answer, gold))
    if ("out of" in answer) != ("out of" in gold) and (shares := (_share(answer), _share(gold))) != (answer, gold):
        return ask(*shares)
    phrases, golds = _phrases(answer), _phrases(gold)
    if len(golds) < 2 and len(phrases) < 2:
        return None
    if [phrase.joint for phrase in phrases] != [phrase.joint for phrase in golds]:
        return Comparison(False, "words between", "other words between the values, or none")
    values, gold_values = tuple(map(str, phrases)), tuple(map(str, golds))
    if all(phrase.unit and phrase.joint in ("and", "") for phrase in (*phrases, *golds)):
        same = len(values) == len(gold_values) and same_items(values, gold_values, lambda a, g: ask(a, g).equal)
    else:
        same = all_equal(values, gold_values, ask)
    return Comparison(same, "words between", "value by value")


def _share(text: str) -> str:
    """`1 out of 6` as a fraction."""
    return _OUT_OF.sub(r"\\frac{\1}{\2}", text)


def _phrases(text: str) -> list[_Phrase]:
    """The values that words join; one phrase, or none, where no words stand between two values."""
    found: list[_Phrase] = []
    start = 0
    for words in _joints(text):
        unit, joint = _split_unit(words["words"])
        found.append(_Phrase(text[start : words.start()].strip(" ,"), unit, joint))
        start = words.end()
    rest = text[start:].strip(" ,")
    if rest:
        found.append(_Phrase(rest, "", ""))
    has_words = any(phrase.joint for phrase in found[: len(found) - 1])
    return found if has_words and all(phrase.value for phrase in found) else found[:1]


def _joints(text: str) -> list[re.Match[str]]:
    """The texts that stand outside of all brackets; that of a name (`\\text{Re}(z)`, `\\text{H}_2`) is none."""
    found = [words for words in _TEXT.finditer(text) if not _depth(text[: words.start()])]
    names = any(text[words.end() : words.end() + 1] in ("(", "_", "^") for words in found if words.end() < len(text))
    conditions = any(_CONDITION.match(words["words"]) for words in found)
    return [] if names or conditions else found


def _depth(text: str) -> int:
    return sum(text.count(mark) for mark in "([{") - sum(text.count(mark) for mark in ")]}")


def _split_unit(text: str) -> tuple[str, str]:
    """`feet by` as a unit and the words behind it."""
    words = text.casefold().strip(" .,:;()").replace(",", " ").split()
    for count in range(len(words), 0, -1):
        if unit_of(" ".join(words[:count])):
            return " ".join(words[:count]), " ".join(words[count:])
    return "", " ".join(words)
