"""Where problems come from, named by one string in a recipe.

| spec | source |
| --- | --- |
| `path/to/file.jsonl`, `.jsonl.gz`, `.parquet` | a file, one problem a row |
| `hub:NAME` or `hub:NAME:SPLIT` | a data set on the Hugging Face hub (split `train` unless named) |
| `reasoning-gym:TASK?options` | generated problems, see protocol/reasoning_gym.py |
| `arithmetic:STYLE?options` | synthetic problems, see problems/arithmetic.py |

A row holds `problem`, and `answer` (one) or `answers` (all accepted ones), or, with kind `code`, `tests`; `id`,
`solution`, `kind`, `level` (a whole number), `domain` (or `subject`) and `source` are optional. What a problem without
`id` is called, and which problems are one, says problems/identity.py. Of the other columns
those are kept that a user's own grader asks for (protocol/graders.py). Where a file or a data set has other names for
them, the spec says so: `file.parquet?problem=question&answer=final_answer`. A row that cannot be a problem is refused
with its place: training on fewer problems than the file holds would go unnoticed.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from pydantic import ValidationError

from chorus.problems.arithmetic import load_arithmetic
from chorus.problems.identity import id_of_row, merge
from chorus.problems.readers import Row, hub_rows, jsonl_rows, parquet_rows
from chorus.problems.reasoning_gym import load_gym
from chorus.protocol.graders import KINDS, NO_ROWS, RowNeeds
from chorus.protocol.messages import Problem
from chorus.protocol.reasoning_gym import PREFIX as GYM

COLUMNS = ("problem", "answer", "answers", "tests", "id", "solution", "kind", "level", "domain", "source")


@dataclass(frozen=True)
class Placed:
    """A problem, where it stands (`file:line`), and the row that it was read from, all columns kept."""

    where: str
    problem: Problem
    row: dict[str, Any]


def load_problems(spec: str, needs: RowNeeds = NO_ROWS) -> list[Problem]:
    """All problems of a source, in its order, each with the columns that the run's own graders need of it. Rows that
    repeat another one are left out, and counted.

    Raises ValueError for a spec, a file or a row that cannot be used, and ImportError where a reader is not
    installed.
    """
    return merge((placed.problem for placed in load_placed(spec, needs)), spec)


def load_placed(spec: str, needs: RowNeeds = NO_ROWS) -> list[Placed]:
    """All rows of a source with their places; raises as `load_problems` does."""
    if spec.startswith("arithmetic:"):
        placed = _generated(load_arithmetic(spec), spec, needs)
    elif spec.startswith(GYM):
        placed = _generated(load_gym(spec), spec, needs)
    else:
        placed = _read(spec, needs)
    if not placed:
        raise ValueError(f"problems {spec!r}: the source is empty; a run needs at least one problem")
    return placed


def _generated(problems: list[Problem], spec: str, needs: RowNeeds) -> list[Placed]:
    placed = []
    for number, problem in enumerate(problems, 1):
        where, row = f"{spec} number {number}", problem.model_dump(exclude_none=True)
        columns = _columns(where, needs, problem.kind, {"answer": problem.answers[0], **row})
        placed.append(Placed(where, problem.model_copy(update={"row": columns}) if columns else problem, row))
    return placed


def _columns(where: str, needs: RowNeeds, kind: str, row: dict[str, Any]) -> str | None:
    try:
        return needs.row(kind, row)
    except ValueError as error:
        raise ValueError(f"problems {where}: {error}") from None


def _read(spec: str, needs: RowNeeds) -> list[Placed]:
    source, _, query = spec.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    renamed = {column: options.pop(column) for column in COLUMNS if column in options}
    if source.startswith("hub:"):
        rows = hub_rows(source, options)
    elif source.endswith((".jsonl", ".jsonl.gz")):
        rows = jsonl_rows(_existing(source))
    elif source.endswith(".parquet"):
        rows = parquet_rows(_existing(source))
    else:
        raise ValueError(
            f"problems {spec!r}: unknown kind of source; give a .jsonl, .jsonl.gz or .parquet file, "
            f"hub:NAME[:SPLIT], {GYM}TASK, or arithmetic:STYLE"
        )
    if options:
        raise ValueError(
            f"problems {spec!r}: {', '.join(options)} is not understood after the '?'; use one of {', '.join(COLUMNS)} "
            "to name a column" + (", config or revision" if source.startswith("hub:") else "")
        )
    return _placed(rows, source, renamed, needs)


def _placed(rows: Iterable[Row], source: str, renamed: dict[str, str], needs: RowNeeds) -> list[Placed]:
    """Rows to problems; refuses an id that two rows bring (the template draw and pass rates go by id)."""
    found: list[Placed] = []
    places: dict[str, str] = {}
    for where, row in rows:
        problem = _problem(where, row, source, renamed, needs)
        if problem.id in places and problem.id != id_of_row(source, row):
            raise ValueError(
                f"problems {where}: id {problem.id!r} is also at {places[problem.id]}; make the ids unique"
            )
        places[problem.id] = where
        found.append(Placed(where, problem, row))
    return found


def _problem(where: str, row: Any, source: str, renamed: dict[str, str], needs: RowNeeds) -> Problem:
    if not isinstance(row, dict):
        raise ValueError(f"problems {where}: a row must be an object with `problem` and `answer`, not {row!r:.60}")
    if missing := [column for column in renamed.values() if column not in row]:
        raise ValueError(
            f"problems {where}: there is no column {missing[0]!r}, which the spec names; the row has {', '.join(row)}"
        )
    as_read = row
    row = row | {column: row[theirs] for column, theirs in renamed.items()}
    # A renamed `answer` is the one that is meant, whatever else the row calls `answers`.
    given = row.get("answer") if "answer" in renamed else row.get("answers") or row.get("answer")
    kind = row.get("kind") or "math"
    if kind not in needs.kinds:
        raise ValueError(
            f"problems {where}: kind: {kind!r:.60} is graded by nobody here; give one of {', '.join(needs.kinds)}, or "
            "name a grader of yours so in [[reward.graders]]"
        )
    given = given if isinstance(given, list) else [given]
    answers = ["" if answer is None else str(answer).strip() for answer in given]
    if kind == "code" or (kind not in KINDS and answers == [""]):
        answers = []
    elif not answers or not all(answers):
        raise ValueError(f"problems {where}: the row has no answer; give `answer` or `answers`, or remove the row")
    if not str(row.get("problem") or "").strip():
        raise ValueError(f"problems {where}: the row has no problem; give `problem`, or remove the row")
    fields = {key: row.get(key) for key in ("problem", "solution", "level", "source")} | {
        "id": id_of_row(source, as_read) if row.get("id") in (None, "") else str(row["id"]),
        "answers": answers,
        "tests": _tests(where, row.get("tests")) if kind == "code" else None,
        "kind": kind,
        "domain": row.get("domain") or row.get("subject"),
        "row": _columns(where, needs, kind, row),
    }
    for field, value in fields.items():
        _check_text(where, field, value)
    try:
        return Problem.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"problems {where}: {field}: {first['msg']}; mend this row") from error


def _tests(where: str, given: Any) -> str:
    """As JSON. Only their shape is looked at: what a test may say is the reward server's to know."""
    if isinstance(given, str):  # parquet and the hub have no column type for them
        try:
            given = json.loads(given)
        except ValueError as error:
            raise ValueError(f"problems {where}: tests: {error}; give a list of tests, or it as JSON") from error
    if not isinstance(given, list) or not given or not all(isinstance(test, dict) for test in given):
        raise ValueError(
            f"problems {where}: kind 'code' is graded by tests; give `tests`, a list of objects such as "
            '{"input": "2", "output": "3"}'
        )
    _check_text(where, "tests", given)
    return json.dumps(given)


def _check_text(where: str, column: str, value: Any) -> None:
    """JSON can say half of a surrogate pair (`"\\ud83d"`), which no tokenizer takes and no file can hold."""
    try:
        json.dumps(value, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])[1:-1]
        raise ValueError(
            f"problems {where}: {column} holds {half}, half of a surrogate pair, which is no character; write the "
            "whole character, or remove the row"
        ) from None


def _existing(spec: str) -> Path:
    path = Path(spec)
    if not path.is_file():
        raise ValueError(f"problems {spec!r}: no such file; give a path that begins in the working directory")
    return path
