"""What the tests of the verdicts' kinds share: asking the grader, and numbers with several writings of each.

A generator makes an answer and a gold whose label is true by construction (Fractions, and what was chosen), never by
asking a grader.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import hypothesis.strategies as st

from chorus.reward_server.graders.registry import run
from chorus.reward_server.graders.task import GradeResult, GradeTask, Mode

FEW = 10  # examples of a test in `make test`; CHORUS_FUZZ draws more
SENTENCE = "So the answer is $\\boxed{%s}$."

integers = st.integers(-9999, 9999)
naturals = st.integers(2, 9999)
fractions = st.builds(Fraction, st.integers(-99, 99).filter(bool), st.integers(2, 60)).filter(
    lambda f: f.denominator > 1
)


def verdict(completion: str, gold: str | list[str], kind: str = "math", mode: Mode = "train", **more: Any) -> str:
    """The grader's verdict on a whole completion; `more`: further fields of its task."""
    golds = (gold,) if isinstance(gold, str) else tuple(gold)
    reply = run(GradeTask(kind, completion, golds, mode, **more))
    assert isinstance(reply, GradeResult)
    return reply.verdict


def accepts(answer: str, gold: str, **more: Any) -> bool:
    """Whether the answer, boxed in a sentence, is right."""
    return verdict(SENTENCE % answer, gold, **more) == "correct"


def latex(number: Fraction | int) -> str:
    """The number in LaTeX, the sign in front."""
    number = Fraction(number)
    if number.denominator == 1:
        return str(number.numerator)
    return f"{'-' if number < 0 else ''}\\frac{{{abs(number.numerator)}}}{{{number.denominator}}}"


def writings(number: Fraction) -> list[str]:
    """Ways to write one fraction, in LaTeX, plain text and Unicode."""
    top, bottom, sign = abs(number.numerator), number.denominator, "-" if number < 0 else ""
    whole, rest = divmod(top, bottom)
    found = [
        latex(number),
        f"{sign}\\dfrac{{{top}}}{{{bottom}}}",
        f"{sign}{top}/{bottom}",
        f"\\frac{{{sign}{top}}}{{{bottom}}}",
        f"{sign}\\frac{{{top * 6}}}{{{bottom * 6}}}",
        f"{sign}{{{top} \\over {bottom}}}",
        f"{sign or ''}{top} \\div {bottom}",
        f"{sign}{top}⁄{bottom}",
    ]
    if whole and rest:
        found += [f"{sign}{whole}\\frac{{{rest}}}{{{bottom}}}", f"{sign}{whole} {rest}/{bottom}"]
    if bottom < 10 and top < 10:
        found.append(f"{sign}\\frac{top}{bottom}")
    return found
