r"""Formulas of sets and statements, compared by their truth tables: `A \cap B^c` is `A \setminus B`.

>>> same_table("\\neg p \\lor q", "p \\to q")
True
>>> same_table("A \\cup B", "A \\cap B"), same_table("x + 1", "A \\cup B")
(False, None)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import product

from chorus.reward_server.graders.math.comparison import Ask, Comparison

MAX_LETTERS = 6
MAX_CHARS = 200
Truth = Callable[[Mapping[str, bool]], bool]

_TOKEN = re.compile(
    r"\s*(?:(?P<letter>[A-Za-z])(?![A-Za-z])"
    r"|(?P<not>\\(?:neg|lnot|sim)(?![a-z])|~|!)"
    r"|(?P<bar>\\(?:overline|bar|widebar)(?![a-z])\s*(?=\{))"
    r"|(?P<and>\\(?:land|wedge|cap)(?![a-z]))"
    r"|(?P<or>\\(?:lor|vee|cup)(?![a-z]))"
    r"|(?P<minus>\\(?:setminus|backslash|smallsetminus)(?![a-z]))"
    r"|(?P<iff>\\(?:leftrightarrow|Leftrightarrow|iff)(?![a-z])|<->)"
    r"|(?P<xor>\\(?:oplus|triangle|bigtriangleup|Delta)(?![a-z]))"
    r"|(?P<implies>\\(?:to|rightarrow|Rightarrow|implies|supset)(?![a-z])|->)"
    r"|(?P<complement>\^\s*(?:\{\s*(?:[cC]|\\complement|\\prime)\s*\}|[cC](?![A-Za-z])|\\(?:complement|prime)(?![a-z]))|')"
    r"|(?P<open>[({\[])|(?P<close>[)}\]]))"
)
_TELLING = re.compile(
    r"\\(?:neg|lnot|land|lor|wedge|vee|cap|cup|setminus|backslash|implies|oplus|to|rightarrow|Rightarrow|triangle|iff)"
    r"(?![a-z])"
)
_BINARY: dict[str, Callable[[bool, bool], bool]] = {
    "and": lambda a, b: a and b,
    "or": lambda a, b: a or b,
    "iff": lambda a, b: a == b,
    "xor": lambda a, b: a != b,
    "implies": lambda a, b: not a or b,
    "minus": lambda a, b: a and not b,
}
_IN_PARENTHESES = frozenset({"iff", "xor", "implies", "minus"})  # where another operator stands beside them


def by_table(answer: str, gold: str, _: Ask) -> Comparison | None:
    if not (_TELLING.search(answer) and _TELLING.search(gold)) or max(len(answer), len(gold)) > MAX_CHARS:
        return None
    same = same_table(answer, gold)
    return None if same is None else Comparison(same, "truth table", "the same table" if same else "another table")


def same_table(answer: str, gold: str) -> bool | None:
    """Whether both are true of the same; None where one is no such formula, or one of two readings."""
    try:
        (ours, of_answer), (theirs, of_gold) = _Reader(answer).read(), _Reader(gold).read()
    except ValueError:
        return None
    letters = sorted(ours | theirs)
    if len(letters) > MAX_LETTERS:
        return None
    rows = (dict(zip(letters, row, strict=True)) for row in product((False, True), repeat=len(letters)))
    return all(of_answer(row) == of_gold(row) for row in rows)


class _Reader:
    """A reader of one formula. `read` raises ValueError where it is none, or one of two readings."""

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        self._letters: set[str] = set()
        self._at = 0
        at = 0
        while at < len(text.rstrip()):
            found = _TOKEN.match(text, at)
            if found is None:
                raise ValueError(text[at:])
            self._tokens.append((str(found.lastgroup), found.group().strip()))
            at = found.end()

    def read(self) -> tuple[set[str], Truth]:
        truth = self._whole()
        if self._at < len(self._tokens):
            raise ValueError("something is left")
        return self._letters, truth

    def _next(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _whole(self) -> Truth:
        """Operands and the operators between them, up to the bracket's end."""
        operands, operators = [self._operand()], []
        while (kind := self._next()) in _BINARY:
            operators.append(kind)
            self._at += 1
            operands.append(self._operand())
        if len(set(operators)) > 1 and not _IN_PARENTHESES.isdisjoint(operators):
            raise ValueError("one of two readings")
        if len(operators) > 1 and operators[0] in ("implies", "minus"):
            raise ValueError("one of two readings")
        for kind in ("and", "or", *_BINARY):
            while kind in operators:
                at = operators.index(kind)
                operators.pop(at)
                operands[at : at + 2] = [_joined(_BINARY[kind], *operands[at : at + 2])]
        return operands[0]

    def _operand(self) -> Truth:
        kind = self._next()
        if not kind:
            raise ValueError("an operand is missing")
        text = self._tokens[self._at][1]
        self._at += 1
        if kind in ("not", "bar"):
            return _negated(self._operand())
        if kind == "letter":
            self._letters.add(text)
            truth = _letter(text)
        elif kind == "open":
            truth = self._whole()
            if self._next() != "close":
                raise ValueError("a bracket stays open")
            self._at += 1
        else:
            raise ValueError(text)
        while self._next() == "complement":
            self._at += 1
            truth = _negated(truth)
        return truth


def _letter(name: str) -> Truth:
    return lambda row: row[name]


def _negated(truth: Truth) -> Truth:
    return lambda row: not truth(row)


def _joined(join: Callable[[bool, bool], bool], one: Truth, other: Truth) -> Truth:
    return lambda row: join(one(row), other(row))
