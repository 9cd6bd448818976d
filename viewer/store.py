"""A run's rollouts behind DuckDB: it sees the parts in `rollouts/` and no other file, whatever is asked of it.

A part that can't be read is named and left out; the others are shown. Parts come while a run is on: every
question looks at the folder anew. Shards of earlier versions are read as parts in a folder of the viewer's own.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.older import convert, reading_of
from chorus.protocol.run_folder.rollout_rows import Reading
from chorus.protocol.run_folder.rollouts import COLUMNS, UNREADABLE, Part, check_part, parts, read_table, save_table
from chorus.protocol.runtime.exits import CannotGoOn, first_line
from chorus.viewer.queries import SHOWN, Question

_PATIENCE_S = 60.0  # for one question
_TRIES = 4
T = TypeVar("T")


class TooMuch(Exception):
    """A question that DuckDB refused or gave up, in its words."""


class Rollouts:
    """Of one run, or the answers behind one of its evaluations (`of`). Safe in threads."""

    def __init__(self, run: RunFolder, of: str = "") -> None:
        self.run, self.of = run, of
        self._only = run.evaluated(of).resolve() if of else None
        self._checked: dict[tuple[Path, int, int], str] = {}  # (part, its time, its size) -> what is wrong, or ""
        self._lock, self._converting = threading.Lock(), threading.Lock()
        self._reading: tuple[Reading | None] | None = None
        self._index = Path(tempfile.mkdtemp(prefix="chorus-view-"))
        weakref.finalize(self, shutil.rmtree, self._index, ignore_errors=True)
        self._database = _locked((self._only.parent if self._only else run.rollouts.resolve()), self._index)

    def page(self, asked: Question, limit: int, offset: int, columns: Sequence[str] = SHOWN) -> dict[str, Any]:
        """{"rollouts": rows, "total": of all that the filters let through, "damaged": {part: why}}."""
        names = ", ".join(f'"{name}"' for name in columns)
        count = f"SELECT count(*) FROM rollouts WHERE {asked.where}"
        rows = f"SELECT {names} FROM rollouts WHERE {asked.where} ORDER BY {asked.order} LIMIT ? OFFSET ?"

        def work(cursor: duckdb.DuckDBPyConnection) -> dict[str, Any]:
            total = cursor.execute(count, asked.parameters).fetchone()
            found = _dicts(cursor.execute(rows, [*asked.parameters, limit, offset]))
            return {"rollouts": found, "total": total[0] if total else 0}

        answer, damaged = self.ask(work)
        return answer | {"damaged": damaged}

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[dict[str, Any]]:
        """The answer to SQL over `rollouts`."""
        return self.ask(lambda cursor: _dicts(cursor.execute(sql, list(parameters))))[0]

    def read(self, sql: str) -> list[dict[str, Any]]:
        """The answer to a person's SQL, which may read `rollouts` and write nothing. Raises TooMuch."""
        try:
            kinds = {statement.type for statement in duckdb.extract_statements(sql)}
        except duckdb.Error as error:
            raise TooMuch(first_line(error)) from None
        if kinds - {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}:
            raise TooMuch("only SELECT and EXPLAIN are answered; write results with --export, or outside")
        return self.rows(sql)

    def export(self, asked: Question, target: Path) -> None:
        """What the filters let through, every column, as a Parquet file like a run's own."""
        sql = f"SELECT * FROM rollouts WHERE {asked.where} ORDER BY {asked.order}"
        table, _ = self.ask(lambda cursor: cursor.sql(sql, params=asked.parameters).to_arrow_table())
        save_table(target, table)

    def ask(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> tuple[T, dict[str, str]]:
        """What `work` makes of a cursor that knows the parts as `rollouts`, and by name the parts that are left out.

        Raises TooMuch.
        """
        for left in reversed(range(_TRIES)):
            good, bad = self._parts()
            cursor = self._database.cursor()
            watch = threading.Timer(_PATIENCE_S, cursor.interrupt)
            watch.start()
            try:
                cursor.execute(_view(good))
                return work(cursor), bad
            except duckdb.Error as error:
                # A part was merged meanwhile, or turns out to be damaged beyond its footer.
                if not left or not (any(not path.exists() for path in good) or self._found_damage(good)):
                    raise TooMuch(first_line(error)) from None
            finally:
                watch.cancel()
                cursor.close()
        raise TooMuch("the parts of the rollouts change faster than they can be read")

    def _parts(self) -> tuple[list[Path], dict[str, str]]:
        """(those that can be read, in order; by name what is wrong with the others)."""
        if self._only is not None:
            found = [Part(self._only, 0, 0)] if self._only.exists() else []
        else:
            found = parts(self.run)
        good, bad = [], {}
        for part in found:
            path, check = part.path.resolve(), check_part
            if not part.is_parquet:
                path, check = self._index / f"step-{part.first:06d}.parquet", partial(self._convert, part)
            if wrong := self._wrong_with(part.path.resolve(), check):
                bad[part.path.name] = wrong
            else:
                good.append(path)
        return good, bad

    def _convert(self, part: Part, shard: Path) -> None:
        """Once; where the model's folder is gone, without texts."""
        with self._converting:
            if self._reading is None:
                try:
                    self._reading = (reading_of(self.run),)
                except CannotGoOn:
                    self._reading = (None,)
            target = self._index / f"step-{part.first:06d}.parquet"
            if not target.exists():
                convert(part, target, self._reading[0])

    def _found_damage(self, paths: Sequence[Path]) -> bool:
        """Whether one of these parts holds what can't be read; it is known from then on."""
        with self._lock:
            self._checked.clear()
        wrong = [self._wrong_with(path, read_table) for path in paths]  # all of them, so that one retry is enough
        return any(wrong)

    def _wrong_with(self, path: Path, check: Callable[[Path], object]) -> str:
        try:
            about = path.stat()
        except FileNotFoundError:
            return ""  # merged meanwhile
        key = (path, about.st_mtime_ns, about.st_size)
        with self._lock:
            known = self._checked.get(key)
        if known is None:
            try:
                check(path)
                known = ""
            except UNREADABLE as error:
                known = first_line(error) or type(error).__name__
            with self._lock:
                self._checked[key] = known
        return known


def _locked(*folders: Path) -> duckdb.DuckDBPyConnection:
    """A database in memory that reads these folders, and can't be told otherwise."""
    database = duckdb.connect(":memory:", config={"autoinstall_known_extensions": False})
    settings = {
        "autoload_known_extensions": "false",
        "allowed_directories": f"[{', '.join(_quoted(f'{folder}/') for folder in folders)}]",
        "enable_external_access": "false",
        "memory_limit": "'2GB'",
        "preserve_insertion_order": "false",
        "lock_configuration": "true",
    }
    for name, value in settings.items():
        database.execute(f"SET {name} = {value}")
    return database


def _view(paths: Sequence[Path]) -> str:
    if paths:
        listed = ", ".join(_quoted(str(path)) for path in paths)
        return f"CREATE OR REPLACE TEMP VIEW rollouts AS SELECT * FROM read_parquet([{listed}])"
    columns = ", ".join(f'NULL AS "{name}"' for name in COLUMNS)
    return f"CREATE OR REPLACE TEMP VIEW rollouts AS SELECT {columns} WHERE FALSE"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _dicts(answer: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    names = [column[0] for column in answer.description or ()]
    return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]
