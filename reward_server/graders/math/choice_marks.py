"""Several choices or statements by their letters or marks, in any order: `ACD` is `A, C, D`, and `①③` is `③、①`."""

from __future__ import annotations

import re

from chorus.reward_server.graders.math.comparison import Comparison

_CIRCLED = "①②③④⑤⑥⑦⑧⑨⑩"
_BETWEEN = re.compile(r"(?:\\text\s*\{\s*(?:,\s*)?(?:and|&)\s*\}|\band\b|[,;&\s])+")
_MARK = re.compile(rf"\(([A-J])\)|([A-J{_CIRCLED}])")


def by_marks(answer: str, gold: str, _: object) -> Comparison | None:
    """Only where nothing but marks stands on both sides, and the gold has several."""
    of_gold, of_answer = read_marks(gold), read_marks(answer)
    if of_gold is None or of_answer is None or len(of_gold) < 2:
        return None
    same = of_gold == of_answer
    return Comparison(same, "marks", "the same choices" if same else "other choices")


def read_marks(text: str) -> frozenset[str] | None:
    """The marks that a text lists, each once; None for anything else. Letters side by side stand in their order, or
    they are a word, a number to base 16, or corners of a figure."""
    pieces = [piece for piece in _BETWEEN.split(text.strip()) if piece]
    if not pieces or not all(_MARK.sub("", piece) == "" for piece in pieces):
        return None
    runs = [[one or other for one, other in _MARK.findall(piece)] for piece in pieces]
    marks = [mark for run in runs for mark in run]
    if any(run[0].isascii() and run != sorted(run) for run in runs) or len({m.isascii() for m in marks}) > 1:
        return None
    return frozenset(marks) if len(set(marks)) == len(marks) else None
