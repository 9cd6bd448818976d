"""The experiment's picture and table, from the run folders alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from chorus.benchmarks import machine
from chorus.protocol.run_folder.folder import RunFolder

SMOOTH = 5  # steps: a training curve is a running mean
NEAR = 0.005  # nats: where the entropy counts as having come to its lowest
COLOURS = {13: "#0072b2", 4: "#e69f00", 1: "#cc79a7"}  # told apart also by the colour-blind
Curve = Callable[[Path], tuple[list[int], list[float]]]  # of a run's folder: its steps, and a value at each


@dataclass(frozen=True)
class Experiment:
    """What its runs came to in their first `steps`; a run may have gone on since."""

    folder: Path
    runs: Mapping[int, Sequence[Path]]  # number of templates -> one folder a seed
    steps: int

    def training(self, *path: str) -> Curve:
        """Running means of a figure in metrics.jsonl."""

        def curve(run_dir: Path) -> tuple[list[int], list[float]]:
            points = [(r["step"], v) for r in self.records(run_dir) if (v := _dig(r, path)) is not None]
            values = [v for _, v in points]
            return [s for s, _ in points], [fmean(values[max(0, k - SMOOTH + 1) : k + 1]) for k in range(len(values))]

        return curve

    def held_out(self, suite: str, key: str) -> Curve:
        """A figure measured on the checkpoints, the common start included."""

        def curve(run_dir: Path) -> tuple[list[int], list[float]]:
            measured = json.loads((run_dir / "curves.json").read_text())
            points = [self.start(), *(p for p in measured if p["step"] <= self.steps)]
            return [p["step"] for p in points], [p[suite][key] for p in points]

        return curve

    def start(self) -> dict[str, Any]:
        return json.loads((self.folder / "start.json").read_text())

    def records(self, run_dir: Path) -> list[dict[str, Any]]:
        return [r for r in RunFolder(run_dir).records() if r["step"] <= self.steps]


def draw(experiment: Experiment, path: Path) -> Path:
    """Nine panels: a line is the mean of the seeds, the band their range."""
    from matplotlib.figure import Figure

    training, held_out = experiment.training, experiment.held_out
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
        for arm, folders in experiment.runs.items():
            _line(panel, arm, [curve(run_dir) for run_dir in folders])
    for panel in axes[-1]:
        panel.set_xlabel("step")
    axes.flat[0].legend(fontsize=9)
    seeds = max(len(folders) for folders in experiment.runs.values())
    arms = ", ".join(map(str, experiment.runs))
    figure.suptitle(f"One starting policy under {arms} templates; mean and range of {seeds} seeds")
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


def markdown(experiment: Experiment) -> str:
    """The table: mean over the seeds and, in brackets, their range."""
    start, runs = experiment.start(), experiment.runs
    entropy = experiment.training("entropy")
    best = experiment.held_out("fixed", "accuracy")

    def tail(*path: str) -> Callable[[Path], float]:
        return lambda run: _tail([v for r in experiment.records(run) if (v := _dig(r, path)) is not None])

    rows: list[tuple[str, str, Callable[[Path], float]]] = [
        (f"held out, {label}: {what}", f"{start[suite][key]:.3f}", _last(experiment.held_out(suite, key)))
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
        ("training, last tenth: reward", "", tail("reward")),
        ("training, last tenth: accuracy", "", tail("accuracy")),
        ("training, last tenth: entropy", "", tail("entropy")),
        ("training, last tenth: distinct solutions of 8", "", tail("diversity", "distinct_solutions")),
        ("training, last tenth: distinct 2-grams", "", tail("diversity", "distinct_2")),
        ("training: lowest entropy", "", lambda run: _lowest(entropy(run))[0]),
        ("training: step of the lowest entropy", "", lambda run: _lowest(entropy(run))[1]),
        (f"training: first step within {NEAR} of it", "", lambda run: _near_lowest(entropy(run))),
        ("held out, qwen-math: best sampled accuracy", "", lambda run: _highest(best(run))[0]),
        ("held out, qwen-math: its step", "", lambda run: _highest(best(run))[1]),
        ("hours of training", "", lambda run: sum(r["seconds"] for r in experiment.records(run)) / 3600),
    ]
    about = ", ".join(f"{key} {value}" for key, value in machine.describe().items())
    seeds = ", ".join(f"{len(folders)} of {arm} templates" for arm, folders in runs.items())
    lines = [
        f"{experiment.folder.name}, {experiment.steps} steps; seeds: {seeds}; {about}",
        "",
        f"| | start | {' | '.join(f'{arm} templates' if arm > 1 else '1 template' for arm in runs)} |",
        f"| --- | --- |{' --- |' * len(runs)}",
    ]
    for label, begin, value in rows:
        digits = 0 if " step" in label else 3
        cells = [_cell([value(run) for run in folders], digits) for folders in runs.values()]
        lines.append(f"| {label} | {begin} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _last(curve: Curve) -> Callable[[Path], float]:
    return lambda run: curve(run)[1][-1]


def _tail(values: Sequence[float]) -> float:
    return fmean(values[-max(1, len(values) // 10) :])


def _lowest(points: tuple[list[int], list[float]]) -> tuple[float, int]:
    """(value, step), the earliest where several are lowest."""
    steps, values = points
    return min(zip(values, steps, strict=True))


def _highest(points: tuple[list[int], list[float]]) -> tuple[float, int]:
    """(value, step), the latest where several are highest."""
    steps, values = points
    return max(zip(values, steps, strict=True))


def _near_lowest(points: tuple[list[int], list[float]]) -> int:
    low, _ = _lowest(points)
    return next(step for step, value in zip(*points, strict=True) if value <= low + NEAR)


def _cell(values: Sequence[float], digits: int) -> str:
    text = f"{fmean(values):.{digits}f}"
    return f"{text} ({min(values):.{digits}f}-{max(values):.{digits}f})" if len(values) > 1 else text


def _dig(record: Mapping[str, Any], path: Sequence[str]) -> Any:
    value: Any = record
    for key in path:
        value = (value or {}).get(key)
    return value
