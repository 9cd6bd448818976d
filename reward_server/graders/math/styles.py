r"""Sizes and fonts around a formula, which change nothing: `\mathbf{\frac{3}{4}}`, `\text{$\frac12$}`, `\Large 7`.

>>> unstyled("{\\bf \\frac34}")
'\\frac34'
"""

from __future__ import annotations

import re

_SIZE = r"\\(?:tiny|scriptsize|footnotesize|small|normalsize|large|Large|LARGE|huge|Huge)(?![A-Za-z])\s*"
_COLOR = r"\\(?:text)?color(?:box)?\s*\{[^{}]{0,30}\}\s*"
_SIZES = re.compile(_SIZE)
MAX_COLORS = 20  # a text of more is no answer
_COLORED = re.compile(rf"{_COLOR}(?=\{{)")
_WRAPPER = re.compile(
    rf"(?:\\(?:text(?:bf|it|rm|normal|sf|tt|up|sc)?|math(?:bf|it|rm|sf|tt|normal)|boldsymbol|bm|bold|emph|mbox|hbox"
    rf")\s*\{{|{_SIZE}\{{|\{{\s*(?:\\(?:bf|it|rm|sf|tt|bfseries|boldmath)(?![A-Za-z])\s*|{_SIZE})+)"
)
_SPACE = r"\\(?:quad|qquad)(?![A-Za-z])|(?<!\\)\\[,;:! ]|(?<!\\)~|\s"
EDGES = re.compile(rf"^(?:\\(?:display|text)style(?![A-Za-z])|{_SPACE})+|(?:{_SPACE}|(?<![.\\])\.){{1,20}}$")
_ARGUMENT = re.compile(r"(?:[\^_}]|\\[A-Za-z]+)\s*$")  # what stands before a brace that is needed
_FORMULA = re.compile(r"[\\$^_]")
_WORD = re.compile(r"[A-Za-z]{2}")
_NO_WORDS = re.compile(r"\\(?:begin|end|text|mathrm|mbox)\s*\{[^{}]*\}|\\[A-Za-z]+")


def unstyled(text: str) -> str:
    """The text without sizes, and without a font around all of it where that holds a formula and no words: words in a
    font are text, and text may deny what it holds."""
    text = EDGES.sub("", _uncolored(text.strip()))
    while (wrapper := _WRAPPER.match(text)) is not None and closes_at_end(text, _opening(wrapper)):
        inner = text[wrapper.end() : -1]
        is_size = wrapper.group().startswith("{") or _SIZES.match(text) is not None
        if not is_size and (_FORMULA.search(inner) is None or _WORD.search(_NO_WORDS.sub(" ", inner))):
            break
        text = _without_dollars(EDGES.sub("", inner))
    return _SIZES.sub("", text) if "\\" in text else text


def _uncolored(text: str) -> str:
    """The text without colours and their braces; an exponent and an argument keep theirs."""
    for _ in range(MAX_COLORS):
        if (color := _COLORED.search(text)) is None:
            break
        before, rest = text[: color.start()], text[color.end() :]
        end = _closing(rest, 0)
        text = before + (rest if end < 0 or _ARGUMENT.search(before) else rest[1:end] + rest[end + 1 :])
    return text


def _opening(wrapper: re.Match[str]) -> int:
    """Where the brace opens that a wrapper's end closes: its first character, or its last."""
    return 0 if wrapper.group().startswith("{") else wrapper.end() - 1


def closes_at_end(text: str, opening: int) -> bool:
    """Whether the brace that opens at `opening` is closed by the last character."""
    return _closing(text, opening) == len(text) - 1


def _closing(text: str, opening: int) -> int:
    """Where the brace closes that opens at `opening`; -1 where it does not."""
    depth = 0
    for at in range(opening, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return at
    return -1


def _without_dollars(text: str) -> str:
    return text[1:-1].strip() if len(text) > 2 and text[0] == text[-1] == "$" and text.count("$") == 2 else text
