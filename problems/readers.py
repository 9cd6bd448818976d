"""Rows of files and of the Hugging Face hub, each with the place that an error shall name.

One function a format; all yield (`file:line`, the row as it is there) and raise ValueError with the file and what to
do, or ImportError where the package that reads the format is not installed.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chorus.protocol.runtime.exits import first_line

_BYTE_ORDER_MARK = "\ufeff"

Row = tuple[str, Any]  # where it stands (`file:line`), what stands there


def jsonl_rows(path: Path) -> Iterator[Row]:
    """One JSON value a line; empty lines are passed over, and counted.

    A byte order mark is passed over wherever a line begins: files that have one may have been put together.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    number = 0
    with opener(path, "rt", encoding="utf-8") as lines:
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


def parquet_rows(path: Path) -> Iterator[Row]:
    """Batch by batch, so that a large file is never twice in memory. Rows count from 1."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            f"problems {path}: reading parquet needs pyarrow, which is not installed; "
            "`pip install pyarrow`, or convert the file to .jsonl"
        ) from error
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}:row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(
            f"problems {path}: can't be read as parquet after row {number} ({first_line(error)}); mend the file"
        ) from error


def hub_rows(spec: str, options: dict[str, str]) -> Iterator[Row]:
    """Rows of `hub:NAME[:SPLIT]`; takes `config` and `revision` out of `options`.

    NAME is a data set on the hub, or a local folder that `datasets` can read.
    """
    config, revision = options.pop("config", None), options.pop("revision", None)
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
