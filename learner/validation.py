"""Validation while a run trains, and which checkpoint it selects.

    due at a step ─▶ checkpoint ─▶ asked under one template ─▶ a line of validation.jsonl ─▶ selected.json

The selected checkpoint is the one with the highest sampled accuracy on the validation problems, the earlier one of
two equals. Held-out problems and test suites never enter: they are for saying how good the selected one is. It
stays when older checkpoints are pruned. All of it is on disk, so a resumed run selects what an unbroken one would.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from learner.evaluate import Evaluation
from learner.figures import read_records, write_json
from protocol.config import RunConfig

_RECORDS = "validation.jsonl"
_SELECTED = "selected.json"


def due(config: RunConfig, step: int) -> bool:
    """Every `evaluation.every` steps, and after the last one."""
    every = config.evaluation.every
    return bool(every) and step > 0 and (step % every == 0 or step == config.run.steps)


def read(run_dir: Path) -> list[dict[str, Any]]:
    """The validations so far, in order."""
    return read_records(run_dir, _RECORDS)


def known(run_dir: Path, step: int) -> bool:
    return any(r["step"] == step for r in read(run_dir))


def record(run_dir: Path, config: RunConfig, result: Evaluation) -> int:
    """Write a validation down; returns the step that is selected now."""
    with (run_dir / _RECORDS).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"template": config.validation_template, **result.as_dict()}) + "\n")
    return _select(run_dir)


def rewind(run_dir: Path, step: int) -> None:
    """Forget the validations of steps that a crash undid; a line that it cut short goes, too."""
    path = run_dir / _RECORDS
    if not path.is_file():
        return
    kept = [r for r in read_records(run_dir, _RECORDS) if r["step"] <= step]
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(json.dumps(r) + "\n" for r in kept), encoding="utf-8")
    partial.replace(path)
    if kept:
        _select(run_dir)
    else:
        (run_dir / _SELECTED).unlink(missing_ok=True)


def selected_step(run_dir: Path) -> int | None:
    path = run_dir / _SELECTED
    return json.loads(path.read_text(encoding="utf-8"))["step"] if path.is_file() else None


def summary(run_dir: Path) -> dict[str, Any]:
    """The last validation and that of the selected step; empty where none was made."""
    records = read_records(run_dir, _RECORDS)
    chosen = selected_step(run_dir)
    return {"last": records[-1], "selected": next(r for r in records if r["step"] == chosen)} if records else {}


def _select(run_dir: Path) -> int:
    records = read_records(run_dir, _RECORDS)
    best = max(records, key=lambda r: (r["accuracy"], -r["step"]))
    write_json(run_dir / _SELECTED, {"step": best["step"], "by": "validation accuracy, sampled", **best})
    return best["step"]
