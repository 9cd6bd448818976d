"""The difficulty of each problem, L1 to L3, from how often a small and larger models solved it.

The rules are a table in docs/problems.md. The same measurements and the same seed give the same file, byte for byte.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click

from chorus.cli.data.target import check_new
from chorus.problems.levels import Assigned, Rate, assign_levels, total
from chorus.problems.pass_rates import read_measured
from chorus.problems.sources import Placed, load_placed
from chorus.protocol.runtime.command_line import PATH, command, option
from chorus.protocol.runtime.exits import CannotGoOn

Rates = dict[str, Rate]
rates_of = partial(
    option,
    type=PATH,
    several=True,
    metavar="FILE...",
    section="Files of pass rates, as `chorus measure-difficulty` writes them",
)


@command(
    "levels",
    help=__doc__,
    examples=[
        "chorus levels --small 1.5b.jsonl --medium 7b.jsonl --large 32b.jsonl --strongest r1.jsonl --out levels.jsonl",
        "chorus levels --small 1.5b.jsonl --out levels.jsonl --problems my_train.jsonl --write levelled.jsonl",
    ],
)
@rates_of("--small", required=True, help="of the model to be trained")
@rates_of("--medium", help="of a larger one")
@rates_of("--large", help="of a still larger one")
@rates_of("--strongest", help="of the strongest there is: what it never solves is left out")
@option("--both-partial", type=click.Choice(["L1", "L2"]), default="L2", help="small and medium solve it in part")
@option("--seed", type=int, default=0, help="which of what only the large model solves stay")
@option("--out", type=PATH, required=True, metavar="FILE", help="a line a problem, also those left out")
@option("--problems", metavar="SPEC", help="the source that was measured; of its programs fewer stay")
@option("--write", type=PATH, metavar="FILE", help="the problems that have a level, with it as `level`")
def main(
    small: tuple[Path, ...],
    medium: tuple[Path, ...],
    large: tuple[Path, ...],
    strongest: tuple[Path, ...],
    both_partial: Literal["L1", "L2"],
    seed: int,
    out: Path,
    problems: str | None,
    write: Path | None,
) -> int:
    if write is not None and problems is None:
        raise CannotGoOn("--write needs the source of the problems that it writes; give it with --problems")
    check_new(write, (".jsonl",))
    if out in (*small, *medium, *large, *strongest, Path((problems or "").partition("?")[0])):
        raise CannotGoOn(f"--out {out}: it is one of the files that are read; give another name")
    placed = _placed(problems) if problems is not None else []
    code = {p.problem.id for p in placed if p.problem.kind == "code"}
    rates = (_rates(small), _rates(medium), _rates(large), _rates(strongest))
    assigned = assign_levels(*rates, seed=seed, both_partial=both_partial, code=code)
    _write(out, [_line(a, *rates) for a in assigned])
    print(_table(assigned))
    if write is not None:
        _write(write, _problems(problems or "", placed, assigned))
    return os.EX_OK


def _rates(files: Sequence[Path]) -> Rates:
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
    for name, of_model in zip(("small", "medium", "large", "strongest"), rates, strict=True):
        if (rate := of_model.get(assigned.id)) is not None:
            line[name] = {"samples": rate.samples, "correct": rate.correct}
    return line


def _placed(spec: str) -> list[Placed]:
    try:
        return load_placed(spec)
    except (OSError, ValueError, ImportError) as error:
        raise CannotGoOn(f"--problems {spec}: {error}") from None


def _problems(spec: str, placed: Sequence[Placed], assigned: list[Assigned]) -> list[dict[str, Any]]:
    """Rows of the source, in its order, whose problem has a level: 1, 2 or 3 in the column `level`."""
    levels = {a.id: int(a.level.removeprefix("L")) for a in assigned if a.level is not None}
    chosen = {p.problem.id: p for p in placed if p.problem.id in levels}  # rows that repeat another one count once
    if not chosen:
        raise CannotGoOn(f"--problems {spec}: none of its problems has a level; is it the source that was measured?")
    return [p.row | p.problem.model_dump(exclude_none=True) | {"level": levels[id]} for id, p in chosen.items()]


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
