"""Problems that training shares with a test set.

Finds equal and nearly equal problems, and tells where both stand. Without --against it looks for duplicates within and
between the sets. Exit status: 0 where nothing is shared, 1 where something is, 3 where a set can't be read.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from chorus.cli.data.target import check_new
from chorus.problems.overlap import LEAST, Overlap, find_overlaps
from chorus.problems.sources import Placed, load_placed
from chorus.protocol.runtime.command_line import PATH, command, option
from chorus.protocol.runtime.exits import CannotGoOn

FOUND = 1
KINDS = ("exact", "near", "variant")


@command(
    "check-data",
    help=__doc__,
    examples=[
        "chorus check-data my_train.jsonl --against eval_math500.jsonl.gz eval_aime24.jsonl.gz",
        "chorus check-data my_train.jsonl --against eval_math500.jsonl.gz --write clean.jsonl",
        "chorus check-data a.jsonl b.jsonl",
    ],
)
@click.argument("sources", nargs=-1, required=True, metavar="TRAIN...", help="problem sources, as in a recipe")
@option("--against", several=True, metavar="TEST...", help="sources that training must not share")
@option("--least", type=float, default=LEAST, help="Jaccard similarity from which texts are near")
@option("--variants", is_flag=True, help="the same words with other numbers and another answer count too")
@option("--show", type=int, default=20, metavar="N", help="pairs to print")
@option("--json", "as_json", is_flag=True, help="print everything as JSON")
@option("--write", type=PATH, metavar="FILE", help="write TRAIN without what is shared (.jsonl or .gz)")
def main(
    sources: tuple[str, ...],
    against: tuple[str, ...],
    least: float,
    variants: bool,
    show: int,
    as_json: bool,
    write: Path | None,
) -> int:
    if not 0.1 <= least <= 1:
        raise CannotGoOn(f"--least {least}: give a similarity from 0.1 to 1")
    check_new(write)
    started = time.monotonic()
    train, tests = _load(sources), _load(against)
    overlaps = find_overlaps(_all(train), _all(tests) if tests else None, least)
    counted = [o for o in overlaps if o.kind != "variant" or variants]
    report = Report(train, tests, overlaps, time.monotonic() - started)
    print(json.dumps(report.as_dict(), indent=2, ensure_ascii=False) if as_json else report.text(show))
    if write is not None:
        kept = _without(train, counted)
        _write(write, kept)
        print(f"{write}: {len(kept):,} of {report.problems(train):,} problems written", file=sys.stderr)
    return FOUND if counted else os.EX_OK


Sets = dict[str, list[Placed]]  # spec to its problems


class Report:
    """What was found, for people and for programs."""

    def __init__(self, train: Sets, against: Sets, overlaps: Sequence[Overlap], seconds: float) -> None:
        self.train, self.against, self.overlaps, self.seconds = train, against, overlaps, seconds
        sets = against or train
        owner = {id(placed): spec for spec, placed_ones in sets.items() for placed in placed_ones}
        self.pairs: dict[str, Counter[str]] = {spec: Counter() for spec in sets}
        self.touched: dict[str, set[str]] = {spec: set() for spec in sets}
        for overlap in overlaps:
            spec = owner[id(overlap.right)]
            self.pairs[spec][overlap.kind] += 1
            if overlap.kind != "variant":
                self.touched[spec].add(overlap.right.where)

    @staticmethod
    def problems(sets: Sets) -> int:
        return sum(map(len, sets.values()))

    def as_dict(self) -> dict[str, Any]:
        sets = self.against or self.train
        return {
            "train": {spec: len(placed) for spec, placed in self.train.items()},
            "against": {spec: len(placed) for spec, placed in self.against.items()},
            "shared": {
                spec: {"problems": len(self.touched[spec]), **{kind: self.pairs[spec][kind] for kind in KINDS}}
                for spec in sets
            },
            "pairs": [
                {
                    "kind": o.kind,
                    "similarity": round(o.similarity, 4),
                    "train": {"where": o.left.where, "id": o.left.problem.id},
                    "against": {"where": o.right.where, "id": o.right.problem.id},
                }
                for o in self.overlaps
            ],
            "seconds": round(self.seconds, 3),
        }

    def text(self, show: int) -> str:
        sets = self.against or self.train
        what = f"against {self.problems(self.against):,} problems" if self.against else "within themselves"
        width = max(len(spec) for spec in sets)
        lines = [f"{self.problems(self.train):,} problems {what}, {self.seconds:.1f} s", ""]
        lines.append(f"{'':{width}}  {'problems':>8}  {'shared':>6}  " + "  ".join(f"{kind:>7}" for kind in KINDS))
        for spec, placed in sets.items():
            counts = "  ".join(f"{self.pairs[spec][kind]:>7,}" for kind in KINDS)
            lines.append(f"{spec:{width}}  {len(placed):>8,}  {len(self.touched[spec]):>6,}  {counts}")
        shown = sorted(self.overlaps, key=lambda o: (KINDS.index(o.kind), -o.similarity))[:show]
        for o in shown:
            lines += [
                "",
                f"{o.kind} {o.similarity:.2f}",
                f"  {o.left.where}  {o.left.problem.id}: {_short(o.left)}",
                f"  {o.right.where}  {o.right.problem.id}: {_short(o.right)}",
            ]
        if len(self.overlaps) > len(shown):
            lines += ["", f"and {len(self.overlaps) - len(shown):,} more pairs (--show, --json)"]
        return "\n".join(lines)


def _short(placed: Placed, limit: int = 160) -> str:
    text = " ".join(placed.problem.problem.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _load(specs: Sequence[str]) -> Sets:
    sets: Sets = {}
    for spec in specs:
        if spec in sets:
            raise CannotGoOn(f"{spec} is named twice; name each set once")
        try:
            sets[spec] = load_placed(spec)
        except (OSError, ValueError, ImportError) as error:
            raise CannotGoOn(f"{spec}: {error}") from None
    return sets


def _all(sets: Sets) -> list[Placed]:
    return [placed for placed_ones in sets.values() for placed in placed_ones]


def _without(train: Sets, counted: Sequence[Overlap]) -> list[Placed]:
    """Of duplicates within the sets the first one stays: it is on the right of every pair it is in."""
    shared = {id(overlap.left) for overlap in counted}
    kept = [placed for placed in _all(train) if id(placed) not in shared]
    places: dict[str, str] = {}
    for placed in kept:
        if (other := places.setdefault(placed.problem.id, placed.where)) != placed.where:
            raise CannotGoOn(
                f"--write: {placed.where} and {other} both have the id {placed.problem.id!r}; write each set alone"
            )
    return kept


def _write(path: Path, placed: Sequence[Placed]) -> None:
    """Rows with all their columns, and with the id that they had: left out, it would follow from the file and the row.

    The file is written whole or not at all.
    """
    rows = (p.row | p.problem.model_dump(exclude_none=True) for p in placed)
    text = "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
    data = text.encode(errors="backslashreplace")  # half of a surrogate pair stays what it is in JSON: an escape
    scratch = path.with_name(path.name + ".new")
    try:
        scratch.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
        scratch.replace(path)
    except OSError as error:
        raise CannotGoOn(f"--write {path}: {error.strerror}; give a file that can be written") from None
