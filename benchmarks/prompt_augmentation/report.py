"""The experiment's picture and table, from the run folders alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks import machine
from learner.figures import read_records

Runs = Mapping[int, Sequence[Path]]  # number of templates -> one folder a seed
SMOOTH = 5  # steps: a training curve is a running mean
COLOURS = {13: "#0072b2", 4: "#e69f00", 1: "#cc79a7"}  # told apart also by the colour-blind


def training_curve(run_dir: Path, *path: str) -> tuple[list[int], list[float]]:
    """Steps and running means of a figure in metrics.jsonl."""
    points = [(r["step"], _dig(r, path)) for r in read_records(run_dir)]
    points = [(step, value) for step, value in points if value is not None]
    values = [v for _, v in points]
    return [s for s, _ in points], [fmean(values[max(0, k - SMOOTH + 1) : k + 1]) for k in range(len(values))]


def held_out_curve(folder: Path, run_dir: Path, suite: str, key: str) -> tuple[list[int], list[float]]:
    """Steps and values of a figure measured on the checkpoints, the common start included."""
    points = [json.loads((folder / "start.json").read_text()), *json.loads((run_dir / "curves.json").read_text())]
    return [p["step"] for p in points], [p[suite][key] for p in points]


def draw(folder: Path, runs: Runs, path: Path) -> Path:
    """Nine panels: a line is the mean of the seeds, the band their range."""
    from matplotlib.figure import Figure

    def held_out(suite: str, key: str) -> Callable[[Path], tuple[list[int], list[float]]]:
        return lambda run_dir: held_out_curve(folder, run_dir, suite, key)

    def training(*keys: str) -> Callable[[Path], tuple[list[int], list[float]]]:
        return lambda run_dir: training_curve(run_dir, *keys)

    panels = [
        ("Training: reward", training("reward")),
        ("Training: entropy [nats a token]", training("entropy")),
        ("Training: distinct solutions of 8", training("diversity", "distinct_solutions")),
        ("Held out, qwen-math: accuracy, sampled", held_out("fixed", "accuracy")),
        ("Held out, qwen-math: accuracy, greedy", held_out("fixed", "greedy")),
        ("Held out, qwen-math: entropy [nats a token]", held_out("fixed", "entropy")),
        ("Held out, all 13 templates: accuracy, sampled", held_out("all", "accuracy")),
        ("Held out, all 13 templates: format score", held_out("all", "format")),
        ("Held out, qwen-math: distinct solutions of 4", held_out("fixed", "distinct_solutions")),
    ]
    figure = Figure(figsize=(14, 10), layout="constrained")
    axes = figure.subplots(3, 3, sharex=True)
    for panel, (title, curve) in zip(axes.flat, panels, strict=True):
        panel.set_title(title, fontsize=10)
        panel.grid(alpha=0.3)
        panel.margins(x=0.02)
        for arm, folders in runs.items():
            _line(panel, arm, [curve(run_dir) for run_dir in folders])
    for panel in axes[-1]:
        panel.set_xlabel("step")
    axes.flat[0].legend(fontsize=9)
    seeds = max(len(folders) for folders in runs.values())
    figure.suptitle(f"One starting policy under {', '.join(map(str, runs))} templates; mean and range of {seeds} seeds")
    figure.savefig(path, dpi=110)
    return path


def _line(panel: Any, arm: int, curves: Sequence[tuple[list[int], list[float]]]) -> None:
    length = min(len(steps) for steps, _ in curves)
    steps = curves[0][0][:length]
    columns = list(zip(*(values[:length] for _, values in curves), strict=True))
    panel.plot(
        steps, [fmean(c) for c in columns], color=COLOURS[arm], label=f"{arm} template{'s' * (arm > 1)}", linewidth=1.5
    )
    if len(curves) > 1:
        low, high = [min(c) for c in columns], [max(c) for c in columns]
        panel.fill_between(steps, low, high, color=COLOURS[arm], alpha=0.15, linewidth=0)


def markdown(folder: Path, runs: Runs) -> str:
    """The table: mean over the seeds and, in brackets, their range."""
    start = json.loads((folder / "start.json").read_text())
    rows: list[tuple[str, str, Callable[[Path], float]]] = [
        (f"held out, {label}: {what}", f"{start[suite][key]:.3f}", _last(folder, suite, key))
        for suite, label in (("fixed", "qwen-math"), ("all", "all 13"))
        for key, what in (
            ("accuracy", "accuracy, sampled"),
            ("greedy", "accuracy, greedy"),
            ("format", "format"),
            ("entropy", "entropy, nats a token"),
            ("distinct_solutions", "distinct solutions of 4"),
            ("solution_entropy", "entropy of the solutions, nats"),
        )
    ]
    rows += [
        ("training, last tenth: reward", "", lambda run: _tail(run, "reward")),
        ("training, last tenth: accuracy", "", lambda run: _tail(run, "accuracy")),
        ("training, last tenth: entropy", "", lambda run: _tail(run, "entropy")),
        ("training, last tenth: distinct solutions of 8", "", lambda r: _tail(r, "diversity", "distinct_solutions")),
        ("training, last tenth: distinct 2-grams", "", lambda r: _tail(r, "diversity", "distinct_2")),
        ("training: lowest entropy", "", lambda run: _lowest(run)[1]),
        ("training: step of the lowest entropy", "", lambda run: float(_lowest(run)[0])),
        ("held out, qwen-math: best sampled accuracy", "", lambda run: max(_points(folder, run))[0]),
        ("held out, qwen-math: its step", "", lambda run: float(max(_points(folder, run))[1])),
        ("hours", "", lambda run: json.loads((run / "summary.json").read_text())["wall_seconds"] / 3600),
    ]
    about = ", ".join(f"{key} {value}" for key, value in machine.describe().items())
    lines = [
        f"{folder.name}; seeds: {', '.join(f'{len(f)} of {arm} templates' for arm, f in runs.items())}; {about}",
        "",
        f"| | start | {' | '.join(f'{arm} templates' if arm > 1 else '1 template' for arm in runs)} |",
        f"| --- | --- |{' --- |' * len(runs)}",
    ]
    for label, begin, value in rows:
        digits = 0 if label.endswith("step") or "step of" in label else 3
        cells = [_cell([value(run) for run in folders], digits) for folders in runs.values()]
        lines.append(f"| {label} | {begin} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _last(folder: Path, suite: str, key: str) -> Callable[[Path], float]:
    return lambda run: held_out_curve(folder, run, suite, key)[1][-1]


def _points(folder: Path, run_dir: Path) -> list[tuple[float, int]]:
    steps, values = held_out_curve(folder, run_dir, "fixed", "accuracy")
    return list(zip(values, steps, strict=True))


def _tail(run_dir: Path, *path: str) -> float:
    values = [v for r in read_records(run_dir) if (v := _dig(r, path)) is not None]
    return fmean(values[-max(1, len(values) // 10) :])


def _lowest(run_dir: Path) -> tuple[int, float]:
    """(step, value) of the lowest point of the smoothed entropy."""
    steps, values = training_curve(run_dir, "entropy")
    return min(zip(steps, values, strict=True), key=lambda point: point[1])


def _cell(values: Sequence[float], digits: int) -> str:
    text = f"{fmean(values):.{digits}f}"
    return f"{text} ({min(values):.{digits}f}-{max(values):.{digits}f})" if len(values) > 1 else text


def _dig(record: Mapping[str, Any], path: Sequence[str]) -> Any:
    value: Any = record
    for key in path:
        value = (value or {}).get(key)
    return value
