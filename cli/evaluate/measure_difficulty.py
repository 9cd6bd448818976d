"""`chorus measure-difficulty MODEL`: how often a model solves each problem, for curricula and levels.

It is `chorus eval` with sampled answers, graded as in training, and its outcome by problem. Further options are those
of `chorus eval` (--template, --max-tokens, --dtype, --at-once, ...). The answers stand in a folder beside FILE; stopped
and asked again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from chorus.cli.evaluate import eval as evaluate
from chorus.problems.pass_rates import Measured
from chorus.protocol.run_folder.files import read_lines
from chorus.protocol.runtime.exits import CannotGoOn

SAMPLES = 8  # a problem; QuestA, arXiv 2507.13266


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="chorus measure-difficulty",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("model", help="a Hugging Face folder or hub name, a run's folder, `smollm2` or `starter`")
    parser.add_argument("--problems", required=True, metavar="SPEC", help="a problem source, as in a recipe")
    parser.add_argument("--samples", type=int, default=SAMPLES, metavar="N", help="a problem (default: 8)")
    parser.add_argument(
        "--hint-ratio", type=float, default=0.0, metavar="P", help="share of the solution that is given"
    )
    parser.add_argument(
        "--allow-answer-in-hint",
        action="store_true",
        help="give a hint that holds the answer, too: for curricula with reject_if_answer_in_hint = false",
    )
    parser.add_argument("--name", help="of the model, as FILE shall say it (default: MODEL)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a line a problem, .jsonl")
    args, further = parser.parse_known_args(argv)
    answers = args.out.with_name(args.out.name + ".answers")
    status = evaluate.main(
        [
            *(args.model, "--problems", args.problems, "--samples", str(args.samples)),
            *("--hint-ratio", str(args.hint_ratio), "--mode", "train", "--out", str(answers)),
            *(["--allow-answer-in-hint"] if args.allow_answer_in_hint else []),
            *further,
        ]
    )
    if status != os.EX_OK:
        return status
    measured = measure(answers, args.name or args.model, args.hint_ratio)
    _write(args.out, measured)
    print(_histogram(args.out, measured))
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
