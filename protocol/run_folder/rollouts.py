"""The rollouts a run has trained on as a data set: Parquet in `rollouts/`, one row a sample (docs/rollouts.md).

    step-000012.parquet           one step: written before it trains, and once more with what the learner computed
    steps-000001-000064.parquet   steps that a checkpoint holds, merged
    _...                          being written; no reader of data sets looks at names that begin with `_`

A merged part is written whole under a hidden name, the parts that it replaces go, and then it gets its name: nobody
ever reads a row twice, and what a crash leaves half done is finished at the next start. Older runs hold
`step-000012.msgpack.gz`, which is read here as well, and converted by `chorus rollouts RUN --convert`.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import msgpack
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from chorus.protocol.ledger import Entry, Rollout
from chorus.protocol.messages import RolloutGroup
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.rollout_rows import Reading, Row, groups_of, rows_of

VERSION = "chorus.rollouts/1"
MERGED_STEPS = 64
_MERGED_BYTES = 2**28  # parts that hold more together are large enough
_ROW_GROUP_ROWS, _ROW_GROUP_BYTES = 2**14, 2**26
_NAME = re.compile(r"_?steps?-(\d{6,})(?:-(\d{6,}))?\.(parquet|msgpack\.gz)")
UNREADABLE = (OSError, EOFError, ValueError, zlib.error)  # what `read_step` raises

_IDS, _FLOATS = pa.list_(pa.int32()), pa.list_(pa.float32())
_TYPES: dict[str, Any] = {
    # where it stands
    "step": pa.int32(), "position": pa.int32(), "sample": pa.int32(), "entry": pa.string(), "run": pa.string(),
    "group": pa.int64(), "chosen_at": pa.float64(),
    # what was asked
    "epoch": pa.int64(), "problem_id": pa.string(), "level": pa.int64(), "domain": pa.string(), "kind": pa.string(),
    "gold": pa.list_(pa.string()), "tests": pa.string(), "row": pa.string(), "opened": pa.string(),
    "options": pa.list_(pa.string()), "sub_answers": pa.list_(pa.string()), "template": pa.string(),
    "hint_ratio": pa.float64(), "prompt": pa.string(), "prompt_ids": _IDS, "group_size": pa.int32(),
    "temperature": pa.float64(), "max_tokens": pa.int64(), "top_p": pa.float64(), "stop": pa.list_(pa.int64()),
    "min_version": pa.int64(), "deadline_s": pa.float64(), "admitted_at": pa.float64(),
    # who answered, and when
    "generator": pa.string(), "attempt": pa.int64(), "started_at": pa.float64(), "generated_at": pa.float64(),
    "graded_at": pa.float64(),
    # the answer
    "text": pa.string(), "token_ids": _IDS, "logprobs": _FLOATS,
    "versions": pa.list_(pa.struct({"fence": pa.int64(), "step": pa.int64(), "tokens": pa.int64()})),
    "tokens": pa.int32(), "oldest_step": pa.int64(), "staleness": pa.int64(), "finish_reason": pa.string(),
    "truncated": pa.bool_(),
    # its grade
    "verdict": pa.string(), "accuracy": pa.float64(), "format": pa.float64(), "extracted": pa.string(),
    "cluster": pa.int64(), "grade_ms": pa.float64(), "reason": pa.string(),
    "scores": pa.list_(pa.struct({"grader": pa.string(), "score": pa.float64()})),
    "shadow": pa.struct({"grader": pa.string(), "verdict": pa.string(), "accuracy": pa.float64(),
                         "reason": pa.string()}),
    "disputed": pa.bool_(), "sub_answers_found": pa.list_(pa.int64()),
    # its reward
    "reward": pa.float64(), "overlong": pa.float64(),
    "terms": pa.list_(pa.struct({"grader": pa.string(), "paid": pa.float64()})),
    # what the learner computed; null before the step is trained
    "advantage": pa.float64(), "trained_tokens": pa.int32(), "entropy": pa.float64(), "learner_logprob": pa.float64(),
    "ratio": pa.float64(), "mismatch_k1": pa.float64(), "token_entropies": _FLOATS, "token_ratios": _FLOATS,
}  # fmt: skip
SCHEMA = pa.schema(_TYPES, metadata={"chorus.schema": VERSION})
COLUMNS = tuple(SCHEMA.names)
_ARRAYS = {name: kind.value_type for name, kind in _TYPES.items() if kind in (_IDS, _FLOATS)}


def _leaves(name: str, kind: pa.DataType) -> list[str]:
    """As Parquet names the columns of a nested one."""
    if pa.types.is_list(kind):
        return _leaves(f"{name}.list.element", kind.value_type)
    if pa.types.is_struct(kind):
        return [leaf for field in kind for leaf in _leaves(f"{name}.{field.name}", field.type)]
    return [name]


_LEAVES = [leaf for name, kind in _TYPES.items() for leaf in _leaves(name, kind)]
_FLOAT_LISTS = [leaf for name, kind in _TYPES.items() if kind == _FLOATS for leaf in _leaves(name, kind)]


@dataclass(frozen=True)
class Part:
    """One file, and the steps it holds."""

    path: Path
    first: int
    last: int

    @property
    def is_parquet(self) -> bool:
        return self.path.suffix == ".parquet"


@dataclass(frozen=True)
class StoredStep:
    """Where one step lies."""

    path: Path
    step: int

    def __str__(self) -> str:
        return str(self.path)


def parts(run: RunFolder) -> list[Part]:
    """All parts in the order of their steps; none that a merged one replaces, or a converted one."""
    return _parts_in(run.rollouts)


def _parts_in(folder: Path) -> list[Part]:
    found = []
    for path in folder.glob("*"):
        if named := _NAME.fullmatch(path.name):
            first = int(named[1])
            found.append(Part(path, first, int(named[2] or first)))
    # A merged part counts from when it is whole, an older one until it is converted.
    found.sort(key=lambda part: (part.first, -part.last, not part.is_parquet, part.path.name.startswith("_")))
    kept: list[Part] = []
    for part in found:
        if not kept or part.first > kept[-1].last:
            kept.append(part)
    return kept


def stored_steps(run: RunFolder) -> Iterator[tuple[int, StoredStep]]:
    """(step, where it lies) in order."""
    for part in parts(run):
        for step in range(part.first, part.last + 1):
            yield step, StoredStep(part.path, step)


def step_file(run: RunFolder, step: int) -> Path:
    return run.rollouts / f"step-{step:06d}.parquet"


def write_step(run: RunFolder, step: int, groups: Sequence[Rollout], reading: Reading | None = None) -> Path:
    """Store one step's groups; a rewound step writes the same file again."""
    return write_table(run, step, table_of(rows_of(step, groups, reading, None)))


def table_of(rows: Sequence[Row]) -> pa.Table:
    """Rows as `rows_of` makes them."""
    columns = [_column(name, [row.get(name) for row in rows]) for name in SCHEMA.names]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _column(name: str, values: list[Any]) -> pa.Array:
    if name not in _ARRAYS:
        return pa.array(values, SCHEMA.field(name).type)
    offsets, total = [], 0
    for value in values:
        offsets.append(None if value is None else total)
        total += len(value or b"") // 4
    items = pa.Array.from_buffers(_ARRAYS[name], total, [None, pa.py_buffer(b"".join(v or b"" for v in values))])
    return pa.ListArray.from_arrays(pa.array([*offsets, total], pa.int32()), items)


def with_columns(table: pa.Table, columns: dict[str, list[Any]]) -> pa.Table:
    """The table with other columns in the place of some, a value a row."""
    for name, values in columns.items():
        table = table.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), _column(name, values))
    return table


def write_table(run: RunFolder, step: int, table: pa.Table) -> Path:
    """Store one step: whole or not at all, and on the disk before it returns."""
    path = step_file(run, step)
    path.parent.mkdir(exist_ok=True)
    _write(path, [table])
    return path


def _write(path: Path, tables: Sequence[pa.Table]) -> None:
    partial = path.with_name(f"_{path.name.removeprefix('_')}.partial")
    with partial.open("wb") as file:
        with pq.ParquetWriter(
            file,
            SCHEMA,
            compression="zstd",
            use_dictionary=cast(
                Any, [name for name in _LEAVES if name not in _FLOAT_LISTS]
            ),  # pyarrow's stubs say bool
            column_encoding=dict.fromkeys(_FLOAT_LISTS, "BYTE_STREAM_SPLIT"),
            write_page_checksum=True,
        ) as writer:
            for table in tables:
                writer.write_table(table, row_group_size=max(1, table.num_rows))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_step(stored: StoredStep | Path) -> list[Rollout]:
    """The groups of a step in the order in which they were trained, of either format.

    Raises OSError, EOFError, zlib.error or ValueError for a file that holds no such thing.
    """
    path = stored.path if isinstance(stored, StoredStep) else stored
    if path.suffix != ".parquet":
        return _read_older(path)
    rows = _find(stored)[1] if isinstance(stored, StoredStep) else read_rows(path)
    try:
        return groups_of(rows)
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"no rollouts: {type(error).__name__} {error}") from None


def _find(stored: StoredStep) -> tuple[Path, list[Row]]:
    """A step's part and rows, also where a learner at work has merged the part since it was listed."""
    path, gone = stored.path, set[Path]()
    while True:
        try:
            return path, [row for row in read_rows(path) if row["step"] == stored.step]
        except FileNotFoundError:
            gone.add(path)
            now = (part.path for part in _parts_in(path.parent) if part.first <= stored.step <= part.last)
            path = next(now, path)
            if path in gone:
                raise


def chosen_at(stored: StoredStep) -> float:
    """When a step had its groups, in unix seconds."""
    path, rows = _find(stored) if stored.path.suffix == ".parquet" else (stored.path, [])
    at = next((row["chosen_at"] for row in rows), None)
    return path.stat().st_mtime if at is None else at


def read_rows(path: Path) -> list[Row]:
    """The rows of a Parquet part. Raises OSError or ValueError."""
    about = path.stat()
    return _rows(path, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=2)  # the steps of a merged part are asked for one after the other
def _rows(path: Path, changed_ns: int, size: int) -> list[Row]:
    table = read_table(path)
    columns = {name: _values(name, table.column(name).combine_chunks()) for name in SCHEMA.names}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def read_table(path: Path) -> pa.Table:
    """A part as it lies on the disk, its checksums verified. Raises OSError or ValueError."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            check_version(file.schema_arrow)
            return file.read(columns=SCHEMA.names).cast(SCHEMA)
    except (pa.ArrowException, KeyError) as error:
        raise ValueError(f"no part of rollouts: {' '.join(str(error).split())[:200]}") from None


def check_part(path: Path) -> None:
    """Raises OSError or ValueError for a file whose footer is not that of a part."""
    try:
        with pq.ParquetFile(path) as file:
            check_version(file.schema_arrow)
    except pa.ArrowException as error:
        raise ValueError(f"no part of rollouts: {' '.join(str(error).split())[:200]}") from None


def save_table(path: Path, table: pa.Table) -> None:
    """Rows that were chosen from parts as a file like theirs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, [table.select(SCHEMA.names).cast(SCHEMA)])


def check_version(schema: pa.Schema) -> None:
    """Raises ValueError for a part of another version."""
    version = (schema.metadata or {}).get(b"chorus.schema", b"").decode(errors="replace")
    if version != VERSION:
        raise ValueError(f"its schema is {version[:40] or 'unnamed'!r}, and this version of Chorus reads {VERSION!r}")


def _values(name: str, column: Any) -> list[Any]:
    """Arrays as the messages' own bytes."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if name not in _ARRAYS:
        return column.to_pylist()
    items = column.values.to_numpy(zero_copy_only=False)
    offsets, known = column.offsets.to_pylist(), column.is_valid().to_pylist()
    return [items[a:b].tobytes() if k else None for a, b, k in zip(offsets, offsets[1:], known, strict=False)]


def _read_older(path: Path) -> list[Rollout]:
    with gzip.open(path, "rb") as file:
        rows = msgpack.unpackb(file.read())
    if not isinstance(rows, list) or not all(isinstance(r, list) and [*map(type, r)] == [str, bytes] for r in rows):
        raise ValueError("not a list of [entry id, encoded group]")
    groups = [(id, payload, RolloutGroup.decode(payload)) for id, payload in rows]
    return [Rollout(Entry(id, group.task.index, payload), group) for id, payload, group in groups]


def merge(run: RunFolder, durable: int) -> None:
    """Merge small parts of steps up to `durable`, which a checkpoint holds: those will not be trained again."""
    single = {part.first: part for part in parts(run) if part.is_parquet and part.first == part.last}
    for first in sorted(step for step in single if step % MERGED_STEPS == 1):
        steps = range(first, first + MERGED_STEPS)
        if steps[-1] > durable or not all(step in single for step in steps):
            continue
        chosen = [single[step].path for step in steps]
        if sum(path.stat().st_size for path in chosen) > _MERGED_BYTES:
            continue
        hidden = run.rollouts / f"_steps-{first:06d}-{steps[-1]:06d}.parquet"
        try:
            _write(hidden, list(_row_groups(read_table(path) for path in chosen)))
        except ValueError:
            continue  # a damaged part stays where it is, and is named by whoever reads it
        _replace(hidden, chosen)


def _row_groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in fewer pieces."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(t.num_rows for t in waiting) >= _ROW_GROUP_ROWS or sum(t.nbytes for t in waiting) >= _ROW_GROUP_BYTES:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def _replace(hidden: Path, chosen: Sequence[Path]) -> None:
    for path in chosen:
        path.unlink(missing_ok=True)
    hidden.replace(hidden.with_name(hidden.name[1:]))
    _sync(hidden.parent)


def tidy(run: RunFolder, done: int) -> None:
    """Finish what a crash left half done, and let no merged part hold steps after `done`, which are trained again."""
    for path in run.rollouts.glob("_*.partial"):
        path.unlink()
    for part in parts(run):
        if part.path.name.startswith("_"):
            _replace(part.path, [step_file(run, step) for step in range(part.first, part.last + 1)])
    for part in parts(run):
        if part.first < part.last and part.last > done:
            table = read_table(part.path)
            for step in range(part.first, done + 1):
                write_table(run, step, table.filter(pc.field("step") == step))
            part.path.unlink()
