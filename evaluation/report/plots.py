"""The report's plots as SVG text: a line an arm, with a band from the lowest to the highest of its runs.

Names of runs and templates are strangers' text: they are never read as mathematics, and a name that begins with an
underscore still stands in the legend.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from chorus.evaluation.curve import best
from chorus.evaluation.report.comparisons import Evaluated
from chorus.evaluation.report.runs import Arm, Run, dig, templates_of

Curve = Callable[[Run], list[tuple[int, float]]]
PANELS: list[tuple[str, ...]] = [  # title, path in a record of metrics.jsonl
    ("Reward", "reward"),
    ("Accuracy of the training samples", "accuracy"),
    ("Format score", "format"),
    ("Entropy of the policy [nats a token]", "entropy"),
    ("Distinct solutions a problem", "diversity", "distinct_solutions"),
    ("Answer length [tokens]", "response_tokens_mean"),
    ("Truncated answers [share]", "truncated"),
    ("Staleness, mean [steps]", "staleness_mean"),
    ("Speed [trained tokens/s]", "tokens_per_second"),
]
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"]  # Okabe and Ito
STYLES = ["-", "--", ":", "-."]
COLUMNS = 3
_LINE_CHARACTERS = 150  # that a line of the legend holds


def curves(arms: Sequence[Arm]) -> str:
    """What the runs measured while they trained, and their validation."""
    panels = [(title, smoothed(*path)) for title, *path in PANELS]
    if any(run.validations for arm in arms for run in arm.runs):
        panels.append(("Validation accuracy, sampled", _validation))
    return _draw(panels, arms)


def by_template(arms: Sequence[Arm]) -> str | None:
    """Accuracy under each template; None where one template was drawn, or none."""
    names = templates_of(arms)
    panels = [(f"Accuracy under {name}", smoothed("by_template", name, "accuracy")) for name in names]
    return _draw(panels, arms) if len(names) > 1 else None


def checkpoints(found: Sequence[Evaluated]) -> str | None:
    """Each benchmark and both averages over a run's checkpoints, with their 95 % intervals; None below two of one run.

    A square is the last, a diamond the one that validation selected, a hollow circle the best on these very problems.
    """
    by_run: dict[str, tuple[Run, list[Mapping[str, Any]]]] = {}
    for run, e in found:
        if run is not None and e["spec"].get("step") is not None:
            by_run.setdefault(run.name, (run, []))[1].append(e)
    runs = [(run, sorted(mine, key=lambda e: e["spec"]["step"])) for run, mine in by_run.values() if len(mine) > 1]
    if not runs:
        return None
    first = runs[0][1][0]
    names = [("benchmarks", name) for name in first["benchmarks"]]
    titles = [b["title"] for b in first["benchmarks"].values()]
    if len(names) > 1:
        names, titles = [*names, ("macro",), ("micro",)], [*titles, "macro average", "micro average"]
    figure, axes = _panels(len(names))
    lines: list[Any] = []
    for panel, title, path in zip(axes, titles, names, strict=False):
        _frame(panel, title)
        lines = [_measured(panel, run, mine, path, number) for number, (run, mine) in enumerate(runs)]
    return _finished(figure, lines, [run.name for run, _ in runs])


def _measured(panel: Any, run: Run, mine: Sequence[Mapping[str, Any]], path: tuple[str, ...], number: int) -> Any:
    points = [(e["spec"]["step"], part) for e in mine if (part := _part(e, path)) is not None]
    steps, values = [step for step, _ in points], [part["accuracy"] for _, part in points]
    colour = COLOURS[number % len(COLOURS)]
    (line,) = panel.plot(steps, values, color=colour, linestyle=STYLES[number // len(COLOURS) % len(STYLES)])
    low, high = ([part["interval"][end] for _, part in points] for end in (0, 1))
    panel.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    at = dict(zip(steps, values, strict=True))
    top = best(mine)["spec"]["step"]
    for step, marker, face in ((run.last, "s", colour), (run.selected, "D", colour), (top, "o", "none")):
        if step in at:
            panel.plot(
                [step], [at[step]], marker=marker, color=colour, markerfacecolor=face, markersize=7, linestyle=""
            )
    return line


def _part(e: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any] | None:
    value: Any = e
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def smoothed(*path: str) -> Curve:
    """A metric of metrics.jsonl as running means over a fiftieth of the run."""

    def curve(run: Run) -> list[tuple[int, float]]:
        points = [(r["step"], v) for r in run.records if (v := dig(r, path)) is not None and math.isfinite(v)]
        window = max(1, len(run.records) // 50)
        values = [v for _, v in points]
        return [(step, fmean(values[max(0, k - window + 1) : k + 1])) for k, (step, _) in enumerate(points)]

    return curve


def band(points: Sequence[list[tuple[int, float]]]) -> list[tuple[int, float, float, float]]:
    """(step, mean, lowest, highest) over the runs, at the steps that all of them have."""
    by_run = [dict(run) for run in points if run]
    if not by_run:
        return []
    steps = sorted(set.intersection(*(set(run) for run in by_run)))
    return [(s, fmean(v), min(v), max(v)) for s in steps if (v := [run[s] for run in by_run])]


def _validation(run: Run) -> list[tuple[int, float]]:
    return [(r["step"], r["accuracy"]) for r in run.validations]


def _draw(panels: Sequence[tuple[str, Curve]], arms: Sequence[Arm]) -> str:
    figure, axes = _panels(len(panels))
    lines: list[Any] = []
    for panel, (title, curve) in zip(axes, panels, strict=False):
        lines = _panel(panel, title, curve, arms)
    return _finished(figure, lines, [arm.label for arm in arms])


def _panels(count: int) -> tuple[Figure, list[Any]]:
    rows = -(-count // COLUMNS)
    figure = Figure(figsize=(13, 3.2 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False)
    for panel in axes.flat[count:]:
        panel.set_axis_off()
    return figure, list(axes.flat)


def _finished(figure: Figure, lines: Sequence[Any], labels: Sequence[str]) -> str:
    columns = max(1, min(len(labels), _LINE_CHARACTERS // (8 + max(map(len, labels)))))
    legend = figure.legend(lines, labels, loc="outside upper left", ncols=columns)
    for text in legend.get_texts():
        text.set_parse_math(False)
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def _frame(panel: Any, title: str) -> None:
    panel.set_title(title, fontsize=10, parse_math=False)
    panel.grid(alpha=0.3)
    panel.margins(x=0.02)
    panel.set_xlabel("step", fontsize=9)


def _panel(panel: Any, title: str, curve: Curve, arms: Sequence[Arm]) -> list[Any]:
    _frame(panel, title)
    lines = []
    for number, arm in enumerate(arms):
        points = band([curve(run) for run in arm.runs])
        steps = [p[0] for p in points]
        colour, style = COLOURS[number % len(COLOURS)], STYLES[number // len(COLOURS) % len(STYLES)]
        marker = "o" if len(points) == 1 else None
        lines += panel.plot(steps, [p[1] for p in points], color=colour, linestyle=style, marker=marker, linewidth=1.5)
        if len(arm.runs) > 1:
            low, high = [p[2] for p in points], [p[3] for p in points]
            panel.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    return lines
