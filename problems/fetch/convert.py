"""Rows in the form of their publisher become problems in this project's form, with ids that follow from their texts."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from chorus.problems.adapters.adapter import Adapter, read_options
from chorus.problems.adapters.columns import Column, Unusable
from chorus.problems.fetch.catalogue import Rest
from chorus.problems.overlap import sharing, tokens
from chorus.problems.readers import open_rows
from chorus.protocol.messages import Problem
from chorus.protocol.run_folder.files import write_whole

_GOLD = "chorus_gold"  # a column of ours beside the publisher's
_FROM_SOLUTION = ("solution", "level", "domain")


@dataclass
class Converted:
    """The usable problems of a set, how many rows it has, and why the others can't be used."""

    problems: list[Problem] = field(default_factory=list)
    rows: int = 0
    unusable: Counter[str] = field(default_factory=Counter)


def read_set(name: str, file: Path, columns: str, solutions: Iterable[Problem]) -> Converted:
    """Raises ValueError for a file that is not in the form that `columns` says."""
    spec = f"{file}?{columns}" if columns else str(file)
    adapter, further = read_options(spec, columns)
    rows, _ = open_rows(str(file), further)
    if further:
        raise ValueError(f"columns {columns!r}: {', '.join(further)} is not understood; leave it out")
    known = {_key(problem.problem): problem for problem in solutions}
    found, texts = Converted(), Counter[str]()
    for where, row in rows:
        found.rows += 1
        try:
            fields = _fields(adapter, row, known)
        except Unusable as fault:
            found.unusable[fault.reason] += 1
            continue
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        text = fields["problem"]
        texts[text] += 1
        again = f"-{texts[text]}" if texts[text] > 1 else ""
        found.problems.append(Problem.model_validate(fields | {"id": f"{name}/{_digest(text)}{again}", "source": name}))
    return found


def _fields(adapter: Adapter, row: Mapping[str, Any], known: Mapping[str, Problem]) -> dict[str, Any]:
    """Of a row; what it lacks, from the problem of the same text among the `known`. Raises Unusable."""
    asking = replace(adapter, columns={**adapter.columns, "answer": (Column(_GOLD),), "answers": ()})
    other = known.get(_key(asking.fields({**row, _GOLD: "0"})["problem"])) if known else None
    try:
        fields = adapter.fields(row)
    except Unusable as fault:
        if other is None or other.solution is None:
            raise
        boxed = replace(asking, columns={**asking.columns, "answer": (Column(_GOLD, (("boxed", ""),)),)})
        try:
            fields = boxed.fields({**row, _GOLD: other.solution})
        except Unusable:
            raise fault from None
    if other is not None:
        fields |= {name: getattr(other, name) for name in _FROM_SOLUTION if getattr(other, name) is not None}
    return fields


def draw_rest(name: str, rest: Rest, read: Mapping[str, Sequence[Problem]]) -> list[Problem]:
    """`rest.rows` of what the sets `rest.without` leave of `rest.of`; raises ValueError where they leave fewer."""
    taken = [problem for other in rest.without for problem in read[other]]
    texts = {_key(problem.problem) for problem in taken}
    left = [problem for problem in read[rest.of] if _key(problem.problem) not in texts]
    alike = sharing(left, taken)
    free = [problem for problem in left if problem.id not in alike]
    if len(free) < rest.rows:
        raise ValueError(
            f"{name}: {rest.of} has {len(free)} problems that no other set holds, and {rest.rows} are wanted"
        )
    free.sort(key=lambda p: (-min(p.level or 0, rest.level), _digest(p.problem)))
    return [p.model_copy(update={"id": f"{name}/{_digest(p.problem)}", "source": name}) for p in free[: rest.rows]]


def write_set(path: Path, problems: Iterable[Problem]) -> None:
    """As gzip, byte for byte the same for the same problems."""
    lines = "".join(json.dumps(_row(problem), ensure_ascii=False) + "\n" for problem in problems)
    write_whole(path, gzip.compress(lines.encode(), mtime=0))


def _row(problem: Problem) -> dict[str, Any]:
    row = problem.model_dump(exclude_none=True, exclude={"kind"} if problem.kind == "math" else None)
    answers = row.pop("answers")
    return row | ({"answer": answers[0]} if len(answers) == 1 else {"answers": answers})


def _key(text: str) -> str:
    """The same problem, printed with other spaces."""
    return " ".join(tokens(text))


def _digest(text: str) -> str:
    return hashlib.blake2b(_key(text).encode(), digest_size=6).hexdigest()
