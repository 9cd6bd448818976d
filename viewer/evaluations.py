"""What a run's evaluations say, with intervals, and the answers behind each figure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from statistics import fmean
from typing import Any

from chorus.evaluation.estimators import bootstrap_interval
from chorus.protocol.run_folder.files import read_json, read_lines
from chorus.protocol.run_folder.folder import RunFolder
from chorus.viewer.store import Rollouts

_PARTS = ("level", "domain", "template")
_SQL = """
    SELECT problem_id, level, domain, template,
           avg(accuracy) FILTER (WHERE temperature > 0) AS sampled,
           avg(accuracy) FILTER (WHERE temperature = 0) AS greedy
    FROM rollouts GROUP BY ALL ORDER BY problem_id, template"""


def evaluations(run: RunFolder) -> dict[str, Any]:
    """Before and after, validations, and suites with their intervals; `answers`: whether those behind it are there."""
    heldout = []
    for name in ("before", "after"):
        if told := read_json(run.evaluation(name)):
            heldout.append({**told, "name": name, "cells": cells(run, name), "answers": run.evaluated(name).exists()})
    validations = []
    for told in read_lines(run.validations):
        name = f"step-{told.get('step') or 0:06d}"
        validations.append({**told, "name": name, "answers": run.evaluated(name).exists()})
    suites = []
    for path in sorted(run.evaluations.glob("*/summary.json")):
        suites.append({"name": path.parent.name, **read_json(path)})
    return {
        "heldout": heldout,
        "validations": validations,
        "selected": read_json(run.selected),
        "suites": suites,
    }


def cells(run: RunFolder, name: str) -> list[dict[str, Any]]:
    """Of all problems (`by` is empty) and of each level, domain and template, where there are several: how many
    problems, and their accuracy with its interval, sampled and greedy."""
    try:
        about = run.evaluated(name).stat()
    except FileNotFoundError:
        return []
    return _cells(run, name, about.st_mtime_ns)


@lru_cache(maxsize=64)
def _cells(run: RunFolder, name: str, changed_ns: int) -> list[dict[str, Any]]:
    rows = Rollouts(run, name).rows(_SQL)
    found = [_cell("", "", rows)]
    for by in _PARTS:
        parts = defaultdict(list)
        for row in rows:
            if row[by] is not None:
                parts[row[by]].append(row)
        if len(parts) > 1:
            found += [_cell(by, str(part), parts[part]) for part in sorted(parts)]
    return found


def _cell(by: str, name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    cell: dict[str, Any] = {"by": by, "name": name, "problems": len({row["problem_id"] for row in rows})}
    for how in ("sampled", "greedy"):
        known = [row[how] for row in rows if row[how] is not None]
        if known:
            cell[how] = {"accuracy": fmean(known), "interval": bootstrap_interval([known], "micro", 0)}
    return cell


def answers(
    run: RunFolder, suite: str, benchmark: str, filters: Mapping[str, str], limit: int, offset: int
) -> dict[str, Any]:
    """The answers behind a cell of a suite. filters: level, subject, verdict; an empty one lets all through."""
    folders = {path.name: path for path in run.evaluations.glob("*") if path.is_dir()}
    if suite not in folders:
        return {"answers": [], "total": 0}
    found = []
    for line in read_lines(folders[suite] / "answers.jsonl"):
        if line.get("benchmark") != benchmark:
            continue
        about = {key: line.get(key) for key in ("id", "run", "level", "subject")}
        for sample in line.get("samples") or ():
            answer = {**about, **sample}
            if all(not wanted or str(answer.get(key)) == wanted for key, wanted in filters.items()):
                found.append(answer)
    return {"answers": found[offset : offset + limit], "total": len(found)}
