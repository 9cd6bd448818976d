"""Critiques of candidate solutions, to fine-tune on. Critique fine-tuning on one problem, arXiv 2506.03295.

    critiques:running?samples=600&seed=0&generators=10     synthetic ones, of one running total (see below)
    critiques.jsonl                                        what `chorus critique` has written, a critique a line

A line holds `problem`, `candidate`, `critique`, which ends with its verdict, and `verdict`, the grader's: `right` or
`wrong`; `generator` and `teacher` say whose the two texts are.

The policy is trained to answer `question(problem, candidate)` with the critique. Synthetic candidates take a number for
one more, more often or more seldom, or slip in a total; their critiques go through the lines, say of each whether it
is right and what it should be, box the right answer where the candidate's is wrong, and end with the verdict:

    + 5 = 19 no, + 4 = 18
    - 3 = 15 ok
    \\boxed{(18, 15)}
    Verdict: wrong
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import parse_qsl

from chorus.problems.arithmetic import running_answer, running_lines, running_operands, running_text

SYNTHETIC = "critiques:running"
RIGHT, WRONG = "right", "wrong"
_WORDS = {"right": RIGHT, "correct": RIGHT, "wrong": WRONG, "incorrect": WRONG}
_VERDICT = re.compile(rf"(?:\w+\s*:)?\s*\W*({'|'.join(_WORDS)})\W*", re.IGNORECASE)
_MOST = 10_000
# Chance of each generator to take a number for one more; arXiv 2506.03295 has as many. The first is the starter's own.
_HABITS = (0.8, 0.0, 0.4, 0.2, 0.6, 0.1, 0.9, 0.3, 0.7, 0.5)
_SLIP = 0.05  # chance that a synthetic total is off by one


@dataclass(frozen=True)
class Critique:
    """`verdict`: the grader's on the candidate, with which the critique's own last line agrees."""

    problem: str
    candidate: str
    critique: str
    verdict: str
    generator: str = ""
    teacher: str = ""


def question(problem: str, candidate: str) -> str:
    """What the user says, in training and to a teacher alike."""
    return f"Critique whether the following solution is correct.\n\nQuestion:\n{problem}\n\nSolution:\n{candidate}"


def verdict_of(critique: str) -> str | None:
    """`right` or `wrong`, as its last line says; None where that says neither.

    >>> verdict_of("The second total is 15.\\nVerdict: **wrong**")
    'wrong'
    >>> verdict_of("That is right, but I am not done.") is None
    True
    """
    lines = critique.strip().splitlines()
    found = _VERDICT.fullmatch(lines[-1].strip()) if lines else None
    return _WORDS[found[1].lower()] if found else None


def escaped(text: str, special: Sequence[str]) -> str:
    """A text in which no special token is one any more: a blank stands behind its first character.

    >>> escaped("so <|im_end|>", ["<|im_end|>"])
    'so < |im_end|>'
    """
    for token in sorted(special, key=len, reverse=True):
        text = text.replace(token, f"{token[:1]} {token[1:]}")
    return text


def load_critiques(source: str) -> list[Critique]:
    """Raises OSError or ValueError, whose words name the place and the mend."""
    if source.startswith("critiques:"):
        return _synthetic(source)
    found = []
    for number, line in enumerate(Path(source).read_text(encoding="utf-8").splitlines(), 1):
        try:
            row: dict[str, Any] = json.loads(line)
            fields = {name: row[name] for name in ("problem", "candidate", "critique", "verdict")}
            critique = Critique(**fields, generator=row.get("generator", ""), teacher=row.get("teacher", ""))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{source}:{number}: no critique ({error!r}); see docs/methods/critique.md") from None
        if (said := verdict_of(critique.critique)) != critique.verdict:
            raise ValueError(
                f"{source}:{number}: its critique says {said}, its verdict {critique.verdict!r}: filter it with "
                "`chorus critique`"
            )
        found.append(critique)
    return found


def as_line(critique: Critique) -> str:
    return json.dumps(asdict(critique), ensure_ascii=False) + "\n"


def _synthetic(source: str) -> list[Critique]:
    style, _, query = source.partition("?")
    options = {"samples": 600, "seed": 0, "generators": len(_HABITS)}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if style != SYNTHETIC or key not in options or not value.isdecimal() or not int(value) + (key == "seed") > 0:
            raise ValueError(f"finetune.data {source!r}: {key}={value} is not understood; use {', '.join(options)}")
        options[key] = int(value)
    if style != SYNTHETIC or options["samples"] > _MOST:
        raise ValueError(f"finetune.data {source!r}: use {SYNTHETIC}?samples=N&seed=N, with at most {_MOST:,} samples")
    random = Random(f"critiques {options['seed']}")
    operands = running_operands(random)
    habits = _HABITS[: options["generators"]]
    return [_critique(operands, habits[k % len(habits)], random) for k in range(options["samples"])]


def _critique(operands: Sequence[int], habit: float, random: Random) -> Critique:
    taken, lines = [operands[0]], []
    slipped = 0
    for digit in operands[1:]:
        taken.append(digit + (random.random() < habit))
        slipped += random.choice((-1, 1)) if random.random() < _SLIP else 0
        lines.append(f"{'-' if digit < 0 else '+'} {abs(taken[-1])} = {sum(taken) + slipped}")
    exact = running_lines(operands)
    answer = f"\\boxed{{{running_answer(operands)}}}"
    totals = ", ".join(line.rpartition(" = ")[2] for line in lines)
    checked = [
        f"{line} ok" if line == right else f"{line} no, {right}" for line, right in zip(lines, exact, strict=True)
    ]
    verdict = RIGHT if lines == exact or f"({totals})" == running_answer(operands) else WRONG
    end = [f"Verdict: {verdict}"] if verdict == RIGHT else [answer, f"Verdict: {verdict}"]
    return Critique(
        problem=running_text(operands),
        candidate="\n".join([*lines, f"\\boxed{{({totals})}}"]),
        critique="\n".join([*checked, *end]),
        verdict=verdict,
        generator=f"habit {habit:g}",
        teacher="worked out",
    )
