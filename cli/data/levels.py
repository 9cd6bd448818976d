"""`chorus levels`: the difficulty of each problem, L1 to L3, from how often a small and larger models solved it.

The rules are a table in docs/problems.md. The same measurements and the same seed give the same file, byte for byte.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from chorus.problems.levels import Assigned, Rate, assign_levels, total
from chorus.problems.pass_rates import read_measured
from chorus.problems.sources import load_placed
from chorus.protocol.runtime.exits import CannotGoOn

Rates = dict[str, Rate]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="chorus levels", description=__doc__)
    rates = parser.add_argument_group("files of pass rates, as `chorus measure-difficulty` writes them")
    rates.add_argument(
        "--small", type=Path, nargs="+", required=True, metavar="FILE", help="of the model to be trained"
    )
    rates.add_argument("--medium", type=Path, nargs="+", default=[], metavar="FILE", help="of a larger one")
    rates.add_argument("--large", type=Path, nargs="+", default=[], metavar="FILE", help="of the largest")
    parser.add_argument("--both-partial", choices=["L1", "L2"], default="L2", help="small and medium solve it in part")
    parser.add_argument("--seed", type=int, default=0, help="which half of what only the large model solves stays")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a line a problem, also those left out")
    parser.add_argument("--problems", metavar="SPEC", help="with --write: the source that was measured")
    parser.add_argument("--write", type=Path, metavar="FILE", help="the problems that have a level, with it as `level`")
    args = parser.parse_args(argv)
    if (args.write is None) != (args.problems is None):
        raise CannotGoOn("--write and --problems belong together: the file to write, and the source of its problems")
    small, medium, large = (_rates(files) for files in (args.small, args.medium, args.large))
    assigned = assign_levels(small, medium, large, args.seed, args.both_partial)
    _write(args.out, [_line(a, small, medium, large) for a in assigned])
    print(_table(assigned))
    if args.write is not None:
        _write(args.write, _problems(args.problems, assigned))
    return os.EX_OK


def _rates(files: list[Path]) -> Rates:
    """One model's rates under one hint: levels of a mixture would say nothing."""
    try:
        measured = [line for file in files for line in read_measured(file)]
    except ValueError as error:
        raise CannotGoOn(str(error)) from None
    kinds = sorted({(m.model, m.hint_ratio) for m in measured})
    if len(kinds) > 1:
        found = ", ".join(f"{model!r} at hint ratio {hint:g}" for model, hint in kinds)
        raise CannotGoOn(f"{', '.join(map(str, files))}: measured with {found}; give files of one model and one hint")
    return total((m.id, Rate(m.samples, m.correct)) for m in measured)


def _line(assigned: Assigned, *rates: Rates) -> dict[str, Any]:
    line: dict[str, Any] = {"id": assigned.id, "level": assigned.level, "reason": assigned.reason}
    for name, of_model in zip(("small", "medium", "large"), rates, strict=True):
        if (rate := of_model.get(assigned.id)) is not None:
            line[name] = {"samples": rate.samples, "correct": rate.correct}
    return line


def _problems(spec: str, assigned: list[Assigned]) -> list[dict[str, Any]]:
    """Rows of the source, in its order, whose problem has a level: 1, 2 or 3 in the column `level`."""
    levels = {a.id: int(a.level.removeprefix("L")) for a in assigned if a.level is not None}
    try:
        placed = load_placed(spec)
    except (OSError, ValueError, ImportError) as error:
        raise CannotGoOn(f"--problems {spec}: {error}") from None
    if not any(p.problem.id in levels for p in placed):
        raise CannotGoOn(f"--problems {spec}: none of its problems has a level; is it the source that was measured?")
    return [
        p.row | p.problem.model_dump(exclude_none=True) | {"level": levels[p.problem.id]}
        for p in placed
        if p.problem.id in levels
    ]


def _table(assigned: list[Assigned]) -> str:
    counts = Counter((a.level or "left out", a.reason) for a in assigned)
    lines = [f"{len(assigned):,} problems"]
    lines += [f"  {n:>7,}  {level:8}  {reason}" for (level, reason), n in sorted(counts.items())]
    return "\n".join(lines)


def _write(path: Path, lines: list[dict[str, Any]]) -> None:
    """Whole or not at all."""
    scratch = path.with_name(path.name + ".new")
    try:
        scratch.write_text(
            "".join(json.dumps(line, ensure_ascii=False, default=str) + "\n" for line in lines),
            "utf-8",
            "backslashreplace",
        )
        scratch.replace(path)
    except OSError as error:
        raise CannotGoOn(f"{path}: {error.strerror}; give a file that can be written") from None
