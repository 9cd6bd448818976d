"""How often a model solves each problem, for curricula and levels.

It is `chorus eval` with sampled answers, graded as in training, and its outcome by problem. The answers stand in a
folder beside FILE; stopped and asked again, it goes on where it was.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from chorus.cli.evaluate.eval import evaluate, model_options
from chorus.problems.pass_rates import Measured
from chorus.protocol.run_folder.files import read_lines
from chorus.protocol.runtime.command_line import PATH, command, option
from chorus.protocol.runtime.exits import CannotGoOn

SAMPLES = 8  # a problem; QuestA, arXiv 2507.13266


@command(
    "measure-difficulty",
    help=__doc__,
    examples=[
        "chorus measure-difficulty MODEL --problems my_train.jsonl --samples 8 --out rates.jsonl",
        "chorus measure-difficulty MODEL --problems my_train.jsonl --hint-ratio 0.5 --out rates_half.jsonl",
    ],
)
@model_options
@option("--problems", required=True, metavar="SPEC", help="a problem source, as in a recipe")
@option("--samples", type=int, default=SAMPLES, metavar="N", help="a problem")
@option("--name", help="of the model, as FILE shall say it (default: MODEL)")
@option("--out", type=PATH, required=True, metavar="FILE", help="a line a problem, .jsonl")
def main(out: Path, name: str | None, **options: Any) -> int:
    if options["checkpoint"] == "all":
        raise CannotGoOn("--checkpoint all is for `chorus eval`; give one checkpoint")
    answers = out.with_name(out.name + ".answers")
    asked = SimpleNamespace(**options, out=answers, mode="train", suite="", benchmarks=None, runs=None)
    if (status := evaluate(asked)) != os.EX_OK:
        return status
    measured = measure(answers, name or asked.model, asked.hint_ratio)
    _write(out, measured)
    print(_histogram(out, measured))
    return os.EX_OK


def measure(answers: Path, model: str, hint_ratio: float) -> list[Measured]:
    """The pass rates that a folder of graded answers holds, sorted by problem.

    Samples that the grader failed on are not counted, neither as right nor as wrong.
    """
    found: list[Measured] = []
    for record in read_lines(answers / "answers.jsonl"):
        graded = [s["accuracy"] for s in record["samples"] if s["accuracy"] is not None]
        if graded:
            right = sum(accuracy == 1 for accuracy in graded)
            found.append(
                Measured(id=record["id"], model=model, hint_ratio=hint_ratio, samples=len(graded), correct=right)
            )
        else:
            print(f"chorus measure-difficulty: {record['id']}: no sample could be graded; left out", file=sys.stderr)
    return sorted(found, key=lambda m: m.id)


def _write(path: Path, measured: list[Measured]) -> None:
    """Whole or not at all."""
    scratch = path.with_name(path.name + ".new")
    try:
        scratch.write_text("".join(m.line for m in measured), encoding="utf-8")
        scratch.replace(path)
    except OSError as error:
        raise CannotGoOn(f"--out {path}: {error.strerror}; give a file that can be written") from None


def _histogram(path: Path, measured: list[Measured]) -> str:
    never = sum(m.correct == 0 for m in measured)
    always = sum(m.correct == m.samples for m in measured)
    samples = sum(m.samples for m in measured)
    right = sum(m.correct for m in measured)
    return (
        f"{path}: {len(measured):,} problems, {right / max(1, samples):.3f} of {samples:,} samples right; "
        f"{never:,} never solved, {len(measured) - never - always:,} in part, {always:,} always"
    )
