"""Labelled pairs made from the golds of data sets (the optional ../shared/data): labels hold by construction.

Right: the gold itself, dressed in other typography, in thousands, not reduced, as its exact decimal, and a reference
solution as it stands. Wrong: another number, an equation chain, a choice, every candidate boxed, a number for an
expression in a variable. Arithmetic is exact (Fraction) and none of it is the grader's.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from chorus.benchmarks.labelled import Pair, boxed_sentence

FOLDER = Path(__file__).parents[3] / "shared" / "data"
PER_FILE = 40  # golds taken of each file, chosen by a hash of their ids

_INTEGER = re.compile(r"-?\d{1,15}")
_FRACTION = re.compile(r"(-?)\\frac\{(\d{1,9})\}\{(\d{1,9})\}")
_VARIABLE = re.compile(r"(?<![A-Za-z\\{])[xyz](?![A-Za-z])")


def derive(folder: Path = FOLDER, per_file: int = PER_FILE) -> list[Pair]:
    """Pairs of every eval file in the folder; none where the folder is absent."""
    pairs: list[Pair] = []
    for path in sorted(folder.glob("eval_*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        rows.sort(key=lambda row: hashlib.sha256(row["id"].encode()).digest())
        for row in rows[:per_file]:
            pairs += _pairs(path.name.split(".")[0], row)
    return pairs


def _pairs(topic: str, row: dict) -> Iterator[Pair]:
    gold = row["answer"]
    golds = tuple(row.get("answers") or (gold,))

    def pair(completion: str, right: bool, reason: str) -> Pair:
        return Pair(topic, completion, golds, right, reason)

    yield pair(boxed_sentence(gold), True, "the gold")
    yield pair(boxed_sentence(_dressed(gold)), True, "the gold in other typography")
    solution = row.get("solution", "")
    if "\\boxed" in solution and solution[solution.rfind("\\boxed") :].startswith(f"\\boxed{{{gold}}}"):
        yield pair(solution, True, "the reference solution")
    if (number := _number(gold)) is not None and len(golds) == 1:
        for text, reason in _equal(number):
            yield pair(boxed_sentence(text), True, reason)
        for completion, reason in _other(gold, number):
            yield pair(completion, False, reason)
    elif _VARIABLE.search(gold) and "=" not in gold and len(golds) == 1:
        yield pair(boxed_sentence("17"), False, "a number for an expression in a variable")
        yield pair(boxed_sentence(f"{gold}+1"), False, "one more")


def _number(gold: str) -> Fraction | None:
    if _INTEGER.fullmatch(gold):
        return Fraction(gold)
    if (match := _FRACTION.fullmatch(gold)) and int(match[3]):
        return Fraction(int(match[1] + match[2]), int(match[3]))
    return None


def _dressed(gold: str) -> str:
    text = re.sub(r"\\frac(?![a-z])", r"\\dfrac", gold)
    if "\\left" not in text and "\\right" not in text and text.count("(") == text.count(")"):
        text = text.replace("(", "\\left(").replace(")", "\\right)")
    return f"\\, {text} \\,"


def _equal(number: Fraction) -> Iterator[tuple[str, str]]:
    top, bottom = number.numerator, number.denominator
    sign = "-" if top < 0 else ""
    yield f"{sign}\\frac{{{abs(top) * 6}}}{{{bottom * 6}}}", "not reduced"
    if abs(top) >= 1000 and bottom == 1:
        yield f"{top:,}", "thousands separators"
        yield f"{top:,}".replace(",", "{,}"), "thousands separators in LaTeX"
    if bottom == 1:
        yield f"{top}.0", "a decimal point"
        yield f"x = {top}", "named"
    elif 10**6 % bottom == 0:
        yield f"{sign}{abs(top) * (10**6 // bottom) // 10**6}.{abs(top) * (10**6 // bottom) % 10**6:06d}", "its decimal"


def _other(gold: str, number: Fraction) -> Iterator[tuple[str, str]]:
    more = _latex(number + 1)
    yield boxed_sentence(more), "one more"
    yield boxed_sentence(_latex(number * 10 + 1)), "ten times and one more"
    if number:
        yield boxed_sentence(_latex(-number)), "the sign"
    yield boxed_sentence(f"{more}={gold}"), "an equation that does not hold"
    yield boxed_sentence(f"x={more}={gold}"), "a chain that does not hold"
    yield boxed_sentence(f"{gold} \\text{{ or }} {more}"), "a choice"
    yield boxed_sentence(f"{more}, {gold}"), "several answers"
    yield f"\\boxed{{{gold}}}, no: \\boxed{{{more}}}", "taken back"
    yield f"$\\boxed{{{more}}}$ or $\\boxed{{{gold}}}$", "a choice of boxes"
    yield f"It could be {gold}. \\boxed{{?}}", "not in the box"


def _latex(number: Fraction) -> str:
    if number.denominator == 1:
        return str(number.numerator)
    return f"{'-' if number < 0 else ''}\\frac{{{abs(number.numerator)}}}{{{number.denominator}}}"
