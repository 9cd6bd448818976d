"""An analysis as tables and plots, in the report's style."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from chorus.evaluation.report import pages
from chorus.evaluation.report.plots import COLOURS
from chorus.evaluation.report.tables import Table

_SHOWN = 20  # problems of a set that the page names; analysis.json has all
CAPTION = "Means over the problems that both models were asked."
_TITLES = {"plan": "Plan", "knowledge": "Knowledge", "subproblems": "Subproblems"}


def write(folder: Path, title: str, found: Mapping[str, Any]) -> tuple[Path, Path]:
    """report.html and report.md; returns both paths."""
    tables = [_heats(found["temperatures"])] if found["temperatures"]["base"]["accuracy"] else []
    plots = {"temperatures": ("Accuracy over temperature", _curves(_heat_points(found), "temperature", log=True))}
    if "decomposition" in found:
        tables = [*_decomposition(found["decomposition"]), *tables]
        plots = {"coverage": ("Coverage", _curves(_coverage_points(found), "answers", log=True)), **plots}
    tables += [_axis(axis, models) for axis, models in found["axes"].items()]
    return pages.write(folder, title, tables, plots if found["temperatures"]["base"]["accuracy"] else {}, CAPTION)


def _decomposition(d: Mapping[str, Any]) -> list[Table]:
    n, rows = d["samples"], []
    for k, (base, trained) in d["coverage"].items():
        rows.append([f"coverage@{k}", _percent(base), _percent(trained), _points(trained - base), ""])
    low, high = d["gain_interval"]
    rows.insert(
        0, ["precision", *map(_percent, d["precision"]), _points(d["gain"]), f"{_points(low)} to {_points(high)}"]
    )
    low, high = d["wall_interval"]
    rows[-1][-1] = f"{_points(low)} to {_points(high)}"
    wall = "includes 0: a coverage wall, training has not been shown to solve more" if d["wall"] else "excludes 0"
    notes = [
        f"{d['problems']} problems, {n} answers each at temperature {d['temperature']:g}; percent, gains in points, "
        "with 95 % intervals of drawing the problems again.",
        f"Of the gain in precision {_points(d['covered'])} points are on problems that the base solves at least once "
        f"of {n}, {_points(d['newly'])} on those that only the trained model does.",
        f"The interval of the gain in coverage@{n} {wall}.",
    ]
    sets = [[name, str(len(d[key])), _named(d[key])] for name, key in (("new", "new_solve"), ("lost", "lost_solve"))]
    return [
        Table("Sharper, or solving more", ["", "base", "trained", "gain", "95 %"], rows, notes),
        Table(
            "Problems that only one of them solves",
            ["", "problems", "which"],
            sets,
            [f"New: 0 of {n} by the base, at least one by the trained model. Lost: the other way round."],
        ),
    ]


def _heats(models: Mapping[str, Any]) -> Table:
    heats = list(models["base"]["accuracy"])
    rows = [
        [
            name,
            *(_percent(of["accuracy"].get(heat)) for heat in heats),
            "-" if of["slope"] is None else f"{of['slope']:+.3f}",
        ]
        for name, of in models.items()
    ]
    notes = [
        "Percent right by sampling temperature. Slope: of accuracy over temperature, by least squares; near 0 is "
        "robust."
    ]
    return Table("Robustness to temperature", ["", *heats, "slope"], rows, notes)


def _axis(axis: str, models: Mapping[str, Any]) -> Table:
    with_it = {"subproblems": "every part solved (SSR)"}.get(axis, f"with {axis}")
    whole = "whole problem" if axis == "subproblems" else "without"
    rows = []
    for name, of in models.items():
        if not of["problems"]:
            continue
        low, high = of["interval"]
        cells = [
            _percent(of["first"]),
            _percent(of["second"]),
            _points(of["delta"]),
            f"{_points(low)} to {_points(high)}",
        ]
        rows.append([name, str(of["problems"]), *cells, f"+{of['gained']} / -{of['lost']}", *_first_failures(of)])
    header = ["", "problems", with_it, whole, "difference", "95 %", "flips"]
    header += ["first part that fails"] if axis == "subproblems" else []
    notes = [
        "The same problems both times; those without an annotation are left out on both sides. Solved: half of the "
        "answers right, at least."
    ]
    return Table(_TITLES[axis], header, rows, notes)


def _first_failures(of: Mapping[str, Any]) -> list[str]:
    if "first_failures" not in of:
        return []
    failures = list(of["first_failures"].values())
    counts = {k: failures.count(k) for k in sorted({k for k in failures if k is not None})}
    return [", ".join(f"{k}: {n}" for k, n in counts.items()) or "none"]


def _named(ids: Sequence[str]) -> str:
    more = f", and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return ", ".join(ids[:_SHOWN]) + more or "none"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _coverage_points(found: Mapping[str, Any]) -> dict[str, list[tuple[float, float]]]:
    coverage = found["decomposition"]["coverage"]
    return {
        name: [(float(k), pair[place]) for k, pair in coverage.items()]
        for place, name in enumerate(("base", "trained"))
    }


def _heat_points(found: Mapping[str, Any]) -> dict[str, list[tuple[float, float]]]:
    return {
        name: [(float(heat), value) for heat, value in of["accuracy"].items()]
        for name, of in found["temperatures"].items()
    }


def _curves(lines: Mapping[str, Sequence[tuple[float, float]]], label: str, log: bool) -> str:
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    panel = figure.subplots()
    for (name, points), colour in zip(lines.items(), COLOURS, strict=False):
        panel.plot([x for x, _ in points], [y for _, y in points], color=colour, marker="o", linewidth=1.5, label=name)
    if log:
        panel.set_xscale("log", base=2 if label == "answers" else 10)
    panel.set_xlabel(label, fontsize=9)
    panel.set_ylim(-0.02, 1.02)
    panel.grid(alpha=0.3)
    panel.legend()
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()
