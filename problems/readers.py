"""Rows of files and of the Hugging Face hub, each with the place that an error shall name.

One function a format; all yield (`file:line`, the row as it is there) and raise ValueError with the file and what to
do, or ImportError where the package that reads the format is not installed.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from chorus.problems.fetch.catalogue import fetched_by
from chorus.problems.folders import chosen_files, saved_files
from chorus.protocol.reasoning_gym import PREFIX as GYM
from chorus.protocol.runtime.exits import first_line

_BYTE_ORDER_MARK = "\ufeff"

Row = tuple[str, Any]  # where it stands (`file:line`), what stands there


def open_rows(source: str, options: dict[str, str]) -> tuple[Iterator[Row], tuple[str, ...]]:
    """The rows of a file, a folder or the hub, and the options that it may have.

    Takes those out of `options`.
    """
    if source.startswith("hub:"):
        return hub_rows(source, options), ("config", "revision")
    path = Path(source)
    if path.is_dir():
        split, config = options.pop("split", None), options.pop("config", None)
        files = saved_files(path, split) or chosen_files(path, split, config, tuple(_READERS))
        return _of_files(files), ("split", "config")
    if "*" in source:
        files = sorted(path.parent.glob(path.name)) if "*" not in str(path.parent) else sorted(Path().glob(source))
        if not files:
            raise ValueError(f"problems {source!r}: no file is called so; paths are relative to the working directory")
        if unknown := [file for file in files if _reader(file) is None]:
            raise ValueError(
                f"problems {source!r}: {unknown[0]} is of an unknown kind; give one of {', '.join(_READERS)}"
            )
        return _of_files(files), ()
    if _reader(path) is None:
        raise ValueError(
            f"problems {source!r}: unknown kind of source; give a .jsonl, .json, .csv, .tsv, .parquet or .arrow file, "
            f"a folder, hub:NAME[:SPLIT], {GYM}TASK, or arithmetic:STYLE"
        )
    if not path.is_file():
        mend = fetched_by(path) or "give a path that begins in the working directory"
        raise ValueError(f"problems {source!r}: no such file; {mend}")
    return _of_files([path]), ()


def _of_files(files: list[Path]) -> Iterator[Row]:
    for file in files:
        reader = _reader(file)
        if reader is not None:
            _refuse_what_stands_in_for_it(file)
            yield from reader(file)


def _refuse_what_stands_in_for_it(file: Path) -> None:
    """Raises ValueError for what a download leaves in a file's place when it goes wrong."""
    with file.open("rb") as opened:
        begins = opened.read(64).lstrip().lower()
    if begins.startswith(b"version https://git-lfs"):
        raise ValueError(f"problems {file}: a pointer of Git LFS, and not the file: `git lfs pull` fetches it")
    if begins.startswith((b"<!doctype", b"<html")):
        raise ValueError(
            f"problems {file}: a web page, and not the file: download it anew, by the link to the raw file"
        )


def _reader(path: Path) -> Callable[[Path], Iterator[Row]] | None:
    return next((read for ending, read in _READERS.items() if path.name.endswith(ending)), None)


def _opened(path: Path) -> Any:
    return (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8", newline="")


def jsonl_rows(path: Path) -> Iterator[Row]:
    """One JSON value a line; empty lines are passed over, and counted.

    A byte order mark is passed over wherever a line begins: files that have one may have been put together.
    """
    number = 0
    with _opened(path) as lines:
        try:
            for number, line in enumerate(lines, 1):
                text = line.lstrip(_BYTE_ORDER_MARK)
                if text.strip():
                    yield f"{path}:{number}", _json(text, f"{path}:{number}")
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"problems {path}: can't be read after line {number} ({error}); mend the file") from error
        except UnicodeDecodeError as error:
            raise ValueError(
                f"problems {path}: can't be read after line {number} ({error}); save the file as UTF-8"
            ) from error


def _json(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"problems {where}: not valid JSON: {error.msg} (column {error.colno}); write one object a line"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ValueError(too_much(where, error)) from None


def too_much(where: object, error: Exception) -> str:
    """JSON that Python does not read."""
    if isinstance(error, RecursionError):
        return f"problems {where}: its lists and objects are nested too deeply; remove the row, or flatten it"
    return f"problems {where}: a number of thousands of digits ({first_line(error):.60}); write it as a text, in quotes"


def json_rows(path: Path) -> Iterator[Row]:
    """A list of rows, an object that holds one such list or a row under each key, or a single row; also JSON lines
    under this name."""
    text = _whole_text(path)
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            yield from jsonl_rows(path)
            return
        place = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"problems {path}: not valid JSON: {error.msg} ({place}); mend the file") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(too_much(path, error)) from None
    if isinstance(found, dict):
        found = _rows_within(found, path)
    if not isinstance(found, list):
        raise ValueError(f"problems {path}: holds {found!r:.40}, where a list of rows was expected; mend the file")
    for number, row in enumerate(found, 1):
        yield f"{path}:row {number}", row


def _rows_within(found: dict[str, Any], path: Path) -> list[Any]:
    names = ", ".join(list(found)[:10])
    if _holds_columns(found):
        raise ValueError(f"problems {path}: holds columns ({names}), not rows; save it as a list of rows")
    if _holds_keyed_rows(found):
        return [{"id": key} | row for key, row in found.items()]
    lists = [rows for rows in found.values() if isinstance(rows, list) and rows and isinstance(rows[0], dict)]
    if len(lists) > 1 and len(lists) == len(found):
        raise ValueError(f"problems {path}: holds several lists ({names}); save each as a file of its own")
    return lists[0] if len(lists) == 1 and "problem" not in found else [found]


def _holds_columns(found: dict[str, Any]) -> bool:
    """Whether this is `{"problem": ["1+1", "2+2"], "answer": ["2", "4"]}`, or with an object of rows each."""
    if found and all(isinstance(column, dict) and "0" in column for column in found.values()):
        return True
    lists = [column for column in found.values() if isinstance(column, list)]
    plain = all(isinstance(value, str | int | float | bool | None) for column in lists for value in column)
    return len(found) == len(lists) > 1 and plain and len({len(column) for column in lists} - {1}) == 1


def _holds_keyed_rows(found: dict[str, Any]) -> bool:
    """Whether this is `{"a1": {"problem": ...}, "a2": {"problem": ...}}`."""
    rows = [row for row in found.values() if isinstance(row, dict)]
    return len(rows) == len(found) > 1 and len({frozenset(row) for row in rows}) == 1


def _whole_text(path: Path) -> str:
    try:
        with _opened(path) as file:
            return file.read().lstrip(_BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        raise ValueError(f"problems {path}: can't be read ({error}); save the file as UTF-8") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"problems {path}: can't be read ({error}); mend the file") from error


def csv_rows(path: Path) -> Iterator[Row]:
    """A header, then a row a record; every value is a text. Rows count from 1, the header not among them.

    A header without a comma, but with semicolons or tabs, says that these stand between the fields.
    """
    csv.field_size_limit(2**31 - 1)
    text = _whole_text(path)
    names = text.partition("\n")[0]
    between = "\t" if ".tsv" in path.suffixes else next((sign for sign in ",;\t" if sign in names), ",")
    try:
        records = csv.reader(io.StringIO(text, newline=""), delimiter=between, strict=True)
        header = next(records, [])
        if len(set(header)) < len(header):
            raise ValueError(f"problems {path}: two columns have the same name in its header; rename one")
        for number, record in enumerate((r for r in records if r), 1):
            if len(record) != len(header):
                raise ValueError(
                    f"problems {path}:row {number}: {len(record)} fields where the header has {len(header)}; put texts "
                    "with commas and line breaks into quotes"
                )
            yield f"{path}:row {number}", dict(zip(header, record, strict=True))
    except csv.Error as error:
        raise ValueError(f"problems {path}: can't be read as CSV ({error}); mend the file") from error


def parquet_rows(path: Path) -> Iterator[Row]:
    """Batch by batch, so that a large file is never twice in memory. Rows count from 1."""
    pyarrow = _pyarrow(path, "parquet")

    def batches() -> Iterator[Any]:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield from file.iter_batches(1024)

    return _rows_of(path, "parquet", batches(), pyarrow.ArrowException)


def arrow_rows(path: Path) -> Iterator[Row]:
    """A file as `datasets` saves them, or a Feather file."""
    pyarrow = _pyarrow(path, "arrow files")

    def batches() -> Iterator[Any]:
        with pyarrow.OSFile(str(path)) as file:
            is_feather = file.read(6) == b"ARROW1"
            file.seek(0)
            if is_feather:
                whole = pyarrow.ipc.open_file(file)
                yield from (whole.get_batch(k) for k in range(whole.num_record_batches))
            else:
                yield from pyarrow.ipc.open_stream(file)

    return _rows_of(path, "arrow", batches(), pyarrow.ArrowException)


def _rows_of(path: Path, form: str, batches: Iterator[Any], unreadable: type[Exception]) -> Iterator[Row]:
    number = 0
    try:
        for batch in batches:
            has_bytes = "binary" in str(batch.schema)
            for row in batch.to_pylist():
                number += 1
                yield f"{path}:row {number}", _decoded(row) if has_bytes else row
    except (unreadable, OSError) as error:
        raise ValueError(
            f"problems {path}: can't be read as {form} after row {number} ({first_line(error)}); mend the file"
        ) from error


def _decoded(value: Any) -> Any:
    """Bytes that are text as text; others, such as pictures, as they are."""
    if isinstance(value, dict):
        return {key: _decoded(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value


def _pyarrow(path: Path, what: str) -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            f"problems {path}: reading {what} needs pyarrow, which is not installed; "
            "`pip install pyarrow`, or convert the file to .jsonl"
        ) from error
    return pyarrow


def hub_rows(spec: str, options: dict[str, str]) -> Iterator[Row]:
    """Rows of `hub:NAME[:SPLIT]`; takes `config` and `revision` out of `options`.

    NAME is a data set on the hub, or a local folder that `datasets` can read or has saved.
    """
    config, revision = options.pop("config", None), options.pop("revision", None)
    name, _, split = spec.removeprefix("hub:").partition(":")
    if Path(name).is_dir() and (files := saved_files(Path(name), split or None)):
        return _of_files(files)
    return _hub_rows(spec, config, revision)


def _hub_rows(spec: str, config: str | None, revision: str | None) -> Iterator[Row]:
    try:
        from datasets import load_dataset  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            f"problems {spec!r}: the hub needs `datasets`, which is not installed; "
            "`pip install datasets`, or give a .jsonl file"
        ) from error
    name, _, split = spec.removeprefix("hub:").partition(":")
    try:
        rows = load_dataset(name, config, split=split or "train", revision=revision)
    except Exception as error:  # hub clients raise what they like
        raise ValueError(
            f"problems {spec!r}: `datasets` can't load it ({type(error).__name__}: {first_line(error)}); is the name "
            "right, does the set have that split and that config (`?config=`), and is the hub in reach?"
        ) from error
    for number, row in enumerate(rows, 1):
        yield f"{spec} row {number}", row


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    f"{ending}{packed}": read
    for ending, read in (
        (".jsonl", jsonl_rows),
        (".ndjson", jsonl_rows),
        (".json", json_rows),
        (".csv", csv_rows),
        (".tsv", csv_rows),
    )
    for packed in ("", ".gz")
} | {".parquet": parquet_rows, ".arrow": arrow_rows, ".feather": arrow_rows}
