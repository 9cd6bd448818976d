"""What `chorus data` does to a source's problems before it shows or writes them: filters, open questions, shuffling."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from chorus.problems.choice_forms import as_open, shuffled
from chorus.problems.filters import FILTERS, apply
from chorus.problems.sources import SHOWN, Loaded, Placed
from chorus.protocol.reasoning_gym import PREFIX as GYM
from chorus.protocol.runtime.exits import CannotGoOn


@dataclass(frozen=True)
class Wishes:
    """filters: by name. opened: multiple choice becomes an open question where it can. seed: of the options' order,
    None: as it is."""

    filters: tuple[str, ...] = ()
    opened: bool = False
    seed: int | None = None

    @classmethod
    def of(cls, filters: Sequence[str], opened: bool, seed: int | None) -> Wishes:
        """Raises CannotGoOn for a filter that is not known."""
        if unknown := [name for name in filters if name not in (*FILTERS, "all")]:
            raise CannotGoOn(f"--filter {unknown[0]}: there is no such filter; give {', '.join(FILTERS)}, or all")
        return cls(FILTERS if "all" in filters else tuple(dict.fromkeys(filters)), opened, seed)

    def spec(self, source: str) -> str:
        """The source with as many unusable rows as it has: they are what filters are for."""
        if not self.filters or source.startswith(("arithmetic:", GYM)) or "unusable=" in source.partition("?")[2]:
            return source
        return f"{source}{'&' if '?' in source else '?'}unusable=1"


@dataclass
class Reshaped:
    """left_out: how many by filter. permutations: of the options of each problem that has some, by its id."""

    left_out: Counter[str] = field(default_factory=Counter)
    opened: int = 0
    permutations: dict[str, list[int]] = field(default_factory=dict)


def reshape(loaded: Loaded, wishes: Wishes) -> Reshaped:
    """Changes what is loaded."""
    done = Reshaped()
    if wishes.filters:
        loaded.placed, done.left_out = apply(loaded.placed, wishes.filters, loaded.unusable)
    if not loaded.placed:
        raise CannotGoOn(f"--filter {' '.join(wishes.filters)}: no problem is left; leave one of them out")
    for k, placed in enumerate(loaded.placed):
        problem = placed.problem
        if wishes.opened and (found := as_open(problem)) is not None:
            problem = found
            done.opened += 1
        elif wishes.seed is not None:
            problem, order = shuffled(problem, wishes.seed)
            done.permutations |= {problem.id: order} if order else {}
        loaded.placed[k] = replace(placed, problem=problem)
    loaded.first = loaded.placed[:SHOWN]
    return done


def write(path: Path, placed: Sequence[Placed], done: Reshaped) -> None:
    """The problems as a file that recipes can name, whole or not at all. What rows had beside is left out: options in a
    column of their own would contradict the problem's."""
    rows = []
    for problem in {one.problem.id: one.problem for one in placed}.values():
        row = problem.model_dump(exclude_none=True, exclude={"row"})
        order = done.permutations.get(problem.id)
        rows.append(row | ({"permutation": order} if order else {}))
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    scratch = path.with_name(path.name + ".new")
    try:
        scratch.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
        scratch.replace(path)
    except OSError as error:
        raise CannotGoOn(f"--write {path}: {error.strerror}; give a file that can be written") from None
