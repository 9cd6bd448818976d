"""Where problems come from, named by one string in a recipe.

| spec | source |
| --- | --- |
| `path/to/file.jsonl`, `.jsonl.gz`, `.parquet` | a file, one problem a row |
| `hub:NAME` or `hub:NAME:SPLIT` | a data set on the Hugging Face hub (split `train` unless named) |
| `arithmetic:STYLE?options` | synthetic problems, see problems/arithmetic.py |

A row holds `problem`, and `answer` (one) or `answers` (all accepted ones); `id`, `solution`, `kind`, `level`
(a whole number), `domain` (or `subject`) and `source` are optional, other columns are ignored. A row that
cannot be a problem is refused with its place: training on fewer problems than the file holds would go
unnoticed.
"""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from problems.arithmetic import load_arithmetic
from protocol.messages import Problem

Row = tuple[str, Any]  # where it stands (`file:line`), what stands there


def load_problems(spec: str) -> list[Problem]:
    """All problems of a source, in its order.

    Raises ValueError for a spec, a file or a row that cannot be used, and ImportError where a reader is not
    installed.
    """
    if spec.startswith("arithmetic:"):
        problems = load_arithmetic(spec)
    elif spec.startswith("hub:"):
        problems = _problems(_hub_rows(spec), spec.removeprefix("hub:"))
    elif spec.endswith((".jsonl", ".jsonl.gz")):
        problems = _problems(_jsonl_rows(_existing(spec)), Path(spec).name.split(".")[0])
    elif spec.endswith(".parquet"):
        problems = _problems(_parquet_rows(_existing(spec)), Path(spec).stem)
    else:
        raise ValueError(
            f"problems {spec!r}: unknown kind of source; give a .jsonl, .jsonl.gz or .parquet file, "
            "hub:NAME[:SPLIT], or arithmetic:STYLE"
        )
    if not problems:
        raise ValueError(f"problems {spec!r}: the source is empty; a run needs at least one problem")
    return problems


def _problems(rows: Iterable[Row], name: str) -> list[Problem]:
    """Rows to problems; refuses an id that occurs twice (the ledger and the template draw go by id)."""
    problems: list[Problem] = []
    places: dict[str, str] = {}
    for where, row in rows:
        problem = _problem(where, row, f"{name}/{len(problems)}")
        if problem.id in places:
            raise ValueError(
                f"problems {where}: id {problem.id!r} is also at {places[problem.id]}; make the ids unique"
            )
        places[problem.id] = where
        problems.append(problem)
    return problems


def _problem(where: str, row: Any, default_id: str) -> Problem:
    if not isinstance(row, dict):
        raise ValueError(f"problems {where}: a row must be an object with `problem` and `answer`, not {row!r:.60}")
    given = row.get("answers") or row.get("answer")
    given = given if isinstance(given, list) else [given]
    answers = ["" if answer is None else str(answer).strip() for answer in given]
    if not all(answers):
        raise ValueError(f"problems {where}: the row has no answer; give `answer` or `answers`, or remove the row")
    if not str(row.get("problem") or "").strip():
        raise ValueError(f"problems {where}: the row has no problem; give `problem`, or remove the row")
    fields = {key: row.get(key) for key in ("problem", "solution", "level", "source")} | {
        "id": str(row.get("id") or default_id),
        "answers": answers,
        "kind": row.get("kind") or "math",
        "domain": row.get("domain") or row.get("subject"),
    }
    try:
        return Problem.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"problems {where}: {field}: {first['msg']}; mend this row") from error


def _existing(spec: str) -> Path:
    path = Path(spec)
    if not path.is_file():
        raise ValueError(f"problems {spec!r}: no such file; paths are relative to the working directory")
    return path


def _jsonl_rows(path: Path) -> Iterator[Row]:
    opener = gzip.open if path.suffix == ".gz" else open
    number = 0
    with opener(path, "rt", encoding="utf-8") as lines:
        try:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield f"{path}:{number}", _json(line, f"{path}:{number}")
        except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as error:
            raise ValueError(f"problems {path}: can't be read after line {number} ({error}); mend the file") from error


def _json(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"problems {where}: not valid JSON: {error.msg} (column {error.colno}); write one object a line"
        ) from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        import pyarrow.parquet  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            f"problems {path}: reading parquet needs pyarrow, which is not installed; "
            "`pip install pyarrow`, or convert the file to .jsonl"
        ) from error
    for number, row in enumerate(pyarrow.parquet.read_table(path).to_pylist(), 1):
        yield f"{path}:row {number}", row


def _hub_rows(spec: str) -> Iterator[Row]:
    try:
        from datasets import load_dataset  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            f"problems {spec!r}: the hub needs `datasets`, which is not installed; "
            "`pip install datasets`, or give a .jsonl file"
        ) from error
    name, _, split = spec.removeprefix("hub:").partition(":")
    for number, row in enumerate(load_dataset(name, split=split or "train"), 1):
        yield f"{spec} row {number}", row
