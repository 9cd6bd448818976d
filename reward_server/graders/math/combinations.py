r"""Combinations and arrangements as textbooks write them, beside a plain number: `C_{10}^2` is 45, `A_5^2` is 20.

Elsewhere `C_1^2` is the square of a constant, so the rule reads them only where the other side is a number and nothing
is left of this one but numbers.

>>> written_out("\\frac{C_3^2}{A_5^2}")
'\\frac{(3)}{(20)}'
"""

from __future__ import annotations

import math
import re

from chorus.reward_server.graders.math.comparison import Ask, Comparison
from chorus.reward_server.graders.math.exact import exact

MAX_CHOSEN_FROM = 1000
_LETTER = r"(?:\\text\s*\{\s*)?(?P<letter>[CAP])(?:\s*\})?"


def _count(name: str, digits: str = r"\d{1,4}") -> str:
    return rf"\s*(?:\{{\s*(?P<{name}>{digits})\s*\}}|(?P<{name}_bare>\d))"


_CHOOSE = r"(?:\\text\s*\{\s*)?choose(?:\s*\})?"
# `C_{10}^2`, `C^2_{10}`, `{}^{10}C_2` and `{}_{10}C_2`, `C(10,2)` and `10C2`, `10 choose 2`
_FORMS = (
    re.compile(rf"{_LETTER}\s*_{_count('of')}\s*\^{_count('chosen')}"),
    re.compile(rf"{_LETTER}\s*\^{_count('chosen')}\s*_{_count('of')}"),
    re.compile(rf"(?:\{{\s*\}}\s*|(?<![\w)}}]))[\^_]{_count('of')}\s*{_LETTER}\s*_{_count('chosen')}"),
    re.compile(rf"(?<![A-Za-z\\]){_LETTER}\s*\((?P<of>\d{{1,4}})\s*,\s*(?P<chosen>\d{{1,4}})\)"),
    re.compile(rf"(?<![\w.])(?P<of>\d{{1,4}})\s*{_LETTER}\s*(?P<chosen>\d{{1,4}})(?![\w.])"),
    re.compile(rf"(?<![\w.])(?P<of>\d{{1,4}})\s*{_CHOOSE}\s*(?P<chosen>\d{{1,4}})(?![\w.])"),
)


def by_combination(answer: str, gold: str, ask: Ask) -> Comparison | None:
    for text, other in ((answer, gold), (gold, answer)):
        if exact(other) is None or (written := written_out(text)) == text or exact(written) is None:
            continue
        return ask(written, other) if text is answer else ask(other, written)
    return None


def written_out(text: str) -> str:
    """The text with the number that each combination is; one that chooses more than there are stays."""
    if not re.search(r"[CAP]|choose", text):
        return text
    for form in _FORMS:
        text = form.sub(_number, text)
    return text


def _number(found: re.Match[str]) -> str:
    parts = found.groupdict()
    n, k = (int(parts[name] or parts[f"{name}_bare"]) for name in ("of", "chosen"))
    if not k <= n <= MAX_CHOSEN_FROM:
        return found.group()
    number = str(math.comb(n, k) if parts.get("letter", "C") == "C" else math.perm(n, k))
    return f"({number})"  # of its own: `2C_3^2` is no 23
