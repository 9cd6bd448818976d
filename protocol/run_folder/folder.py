"""A run's folder: every path in it, one atomic writer, one reader of JSON and of JSON lines."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any


def append_record(run_dir: Path, record: dict[str, Any]) -> None:
    """A figure that is no finite number becomes null, since JSON has no word for it, and `not_finite` names it."""
    if bad := not_finite(record):
        record = {**_nulled(record), "not_finite": bad}
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(record, allow_nan=False) + "\n")


def not_finite(value: Any, name: str = "") -> list[str]:
    """Where a record holds NaN or an infinity, as `by_template.boxed.entropy`."""
    if isinstance(value, float):
        return [] if math.isfinite(value) else [name]
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    return [found for key, part in parts for found in not_finite(part, f"{name}.{key}" if name else str(key))]


def _nulled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nulled(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_nulled(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_records(run_dir: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    """Records in step order; a line that a crash cut short is skipped."""
    path = run_dir / name
    records = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def rewind_records(run_dir: Path, step: int) -> None:
    """Forget the steps that a crash undid; they will be trained and recorded again."""
    kept = [r for r in read_records(run_dir) if r["step"] <= step]
    partial = run_dir / "metrics.jsonl.partial"
    partial.write_text("".join(json.dumps(r) + "\n" for r in kept))
    partial.rename(run_dir / "metrics.jsonl")


def write_json(path: Path, value: Any) -> None:
    """Write whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n")
    partial.rename(path)
