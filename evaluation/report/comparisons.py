"""The report's tables of evaluations: a run's checkpoints, other models, and the published rows beside them.

Compared is only what was asked under one condition: the same problems, template, decoding, limits and grader. Of a
run's checkpoints the last and the one that validation selected are named; the best *on the test problems* is marked as
what it is, a maximum over them.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chorus.evaluation.curve import OPTIMISTIC, best, roles, what_one_seed_can_say
from chorus.evaluation.records import Spec
from chorus.evaluation.report.runs import Run
from chorus.evaluation.report.tables import Table

PAPER = Path(__file__).parent.parent / "paper.toml"
MOST_ROWS = 8  # of one run; of more checkpoints those that are something, the others in the picture
_CONDITION = (
    "suite",
    "problems",
    "template",
    "decoding",
    "n",
    "temperature",
    "top_p",
    "max_tokens",
    "mode",
    "limit",
    "hint_ratio",
    "allow_answer_in_hint",
)
# An evaluation written down before a field was there was made with the field's default.
_DEFAULTS = {name: field.default for name, field in Spec.model_fields.items() if not field.is_required()}


def evaluation_tables(runs: Sequence[Run], others: Sequence[Mapping[str, Any]]) -> list[Table]:
    """One table a condition; `others` are evaluations of no run. The paper's whole suite has the paper's rows, too."""
    return [_condition(found) for found in by_condition(runs, others)]


Evaluated = tuple[Run | None, Mapping[str, Any]]


def by_condition(runs: Sequence[Run], others: Sequence[Mapping[str, Any]]) -> list[list[Evaluated]]:
    """What was asked alike, together, a run's checkpoints in the order of their steps."""
    conditions: dict[str, list[Evaluated]] = {}
    pairs = [(run, e) for run in runs for e in run.evaluations] + [(None, e) for e in others]
    for run, e in pairs:
        if not e.get("benchmarks"):
            continue  # nothing answered yet
        key = json.dumps([(_DEFAULTS | e["spec"]).get(name) for name in _CONDITION], sort_keys=True)
        conditions.setdefault(key, []).append((run, e))
    return list(conditions.values())


def _condition(found: Sequence[Evaluated]) -> Table:
    spec = _DEFAULTS | found[0][1]["spec"]
    names = list(spec["problems"])
    averaged = len(names) > 1
    titles = [spec["titles"][name] for name in names]
    header = ["model", "checkpoint", *titles, *(["macro", "micro"] if averaged else [])]
    shown = [(run, e) for run, e in found if run is None or _is_shown(run, e, found)]
    rows = [
        [run.name if run else e["spec"]["model"], _role(run, e, found), *_percent(e, names, averaged)]
        for run, e in shown
    ]
    if spec["decoding"] == "greedy":
        how = f"greedy, mean of {spec['n']} runs"
    else:
        how = f"avg@{spec['n']} at temperature {spec['temperature']:g}, top-p {spec['top_p']:g}"
    notes = [
        f"Percent, with 95 % bootstrap intervals over problems. {how}, template {spec['template']}, at most "
        f"{spec['max_tokens']} tokens, grader {spec['mode']}."
    ]
    if len(shown) < len(found):
        notes.append(f"{len(found) - len(shown)} more checkpoints were measured; the picture has all of them.")
    notes += what_one_seed_can_say(found[-1][1])
    notes += _shortfalls(shown)
    paper = tomllib.loads(PAPER.read_text(encoding="utf-8"))
    if spec["suite"] == paper["suite"] and names == paper["benchmarks"]:
        for row in paper["row"]:
            cells = [f"{value:.1f}" for value in (*row["accuracy"], row["macro"], row["micro"])]
            rows.append([row["method"], "published", *cells])
        notes.append(f"Published: {paper['source']}.")
    return Table(f"Evaluation on {spec['suite']}", header, rows, notes)


def _is_shown(run: Run, e: Mapping[str, Any], found: Sequence[Evaluated]) -> bool:
    mine = [other for other_run, other in found if other_run is run]
    return len(mine) <= MOST_ROWS or e is best(mine) or bool(roles(e["spec"].get("step"), run.last, run.selected))


def _shortfalls(found: Sequence[Evaluated]) -> list[str]:
    limit = found[0][1]["spec"].get("limit")
    notes = (
        [] if limit is None else [f"Only the first {limit} problems of each benchmark: not the published benchmark."]
    )
    for run, e in found:
        name = run.name if run else e["spec"]["model"]
        spec = e["spec"]
        runs = spec["n"] if spec["decoding"] == "greedy" else 1
        for benchmark, b in e["benchmarks"].items():
            if limit is None and b["expected"] and b["problems"] != b["expected"]:
                notes.append(f"{name}: {b['problems']} of the {b['expected']} problems of {b['title']}.")
            if b["ungraded"]:
                notes.append(f"{name}: on {b['title']} the verifier failed {b['ungraded']} times (counted as wrong).")
            if runs > 1 and len(b["runs"] or ()) < runs:
                notes.append(f"{name}: {len(b['runs'])} of {runs} runs over {benchmark} so far.")
        if missing := [spec["titles"][m] for m in spec["problems"] if m not in e["benchmarks"]]:
            notes.append(f"{name}: no answers yet on {', '.join(missing)}; its averages leave them out.")
    return notes


def _role(run: Run | None, e: Mapping[str, Any], found: Sequence[Evaluated]) -> str:
    step = e["spec"].get("step")
    if run is None or step is None:
        return "-"
    told = roles(step, run.last, run.selected)
    mine = [other for other_run, other in found if other_run is run]
    if len(mine) > 1 and e is best(mine):
        told.append(OPTIMISTIC.format(len(mine)))
    return f"step {step}" + (f": {', '.join(told)}" if told else "")


def _percent(e: Mapping[str, Any], names: Sequence[str], averaged: bool) -> list[str]:
    parts = [e["benchmarks"].get(name) for name in names] + ([e["macro"], e["micro"]] if averaged else [])
    return [
        "-"
        if part is None
        else f"{100 * part['accuracy']:.1f} ({'-'.join(f'{100 * v:.1f}' for v in part['interval'])})"
        for part in parts
    ]
