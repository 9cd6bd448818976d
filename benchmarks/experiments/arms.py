"""An experiment of arms: one recipe, changed in a few keys, several seeds each; its settings stand in a file.

    settings/NAME.toml     recipe, steps, seeds, what all arms set, what each sets      written before anything runs
    RUNS/NAME/             a run an arm and seed, and report.md

A run that has ended is not run again, and one that was cut short goes on: start the command again at any time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from chorus.benchmarks import machine
from chorus.benchmarks.runs import run_to_its_end
from chorus.protocol.run_folder.files import read_json
from chorus.protocol.run_folder.folder import RunFolder

SETTINGS = Path(__file__).parent / "settings"
RECIPES = Path(__file__).resolve().parents[2] / "recipes"
LAST = 10  # steps whose mean a figure is
Figure = Callable[[RunFolder], float | None]


@dataclass(frozen=True)
class Settings:
    """`always` and each arm: keys of the recipe as `--set` takes them. deadline_s: of one run. command: `run`, or
    `finetune`."""

    recipe: str
    steps: int
    seeds: tuple[int, ...]
    deadline_s: float
    always: Mapping[str, Any]
    arms: Mapping[str, Mapping[str, Any]]
    command: str = "run"

    @classmethod
    def read(cls, name: str) -> Settings:
        fields = tomllib.loads((SETTINGS / f"{name}.toml").read_text(encoding="utf-8"))
        return cls(
            fields["recipe"],
            fields["steps"],
            tuple(fields["seeds"]),
            fields["deadline_s"],
            fields.get("always", {}),
            fields["arms"],
            fields.get("command", "run"),
        )


def main(name: str, about: str | None, figures: Mapping[str, Figure]) -> int:
    """The command of an experiment. figures: what is told of each arm, from its runs' folders."""
    settings = Settings.read(name)
    parser = argparse.ArgumentParser(prog=f"python -m chorus.benchmarks.experiments.{name}", description=about)
    add = parser.add_argument
    add("--arms", nargs="+", default=list(settings.arms), choices=list(settings.arms))
    add("--seeds", type=int, nargs="+", default=list(settings.seeds))
    add("--steps", type=int, default=settings.steps, help=f"of every run (default: {settings.steps})")
    add("--dir", type=Path, default=Path("runs"), help="where runs and the starter's cache lie (default: runs)")
    add("--nice", type=int, default=5, help="politeness towards other processes, 0 to 19 (default: 5)")
    add("--report-only", action="store_true", help="print what is there; run nothing")
    args = parser.parse_args()
    os.nice(args.nice)
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    folder = args.dir / name / f"{args.steps}-steps"
    folder.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds if not args.report_only else ():
        for arm in args.arms:
            if finished(folder, arm, seed, args.steps) is None:
                _run(folder, settings, arm, seed, args.steps, args.dir / ".cache")
    table = report(folder, args.arms, args.seeds, args.steps, figures)
    (folder / "report.md").write_text(table, encoding="utf-8")
    print(table)
    return os.EX_OK


def finished(folder: Path, arm: str, seed: int, steps: int) -> Path | None:
    """The folder of the arm's run, if it has come to its end."""
    return next((f for f in _folders(folder, arm, seed) if RunFolder(f).finished_steps() >= steps), None)


def _folders(folder: Path, arm: str, seed: int) -> list[Path]:
    """The folders of a run's starts, the newest first."""
    return sorted((f for f in folder.glob(f"{arm}-seed-{seed}-*") if f.is_dir()), reverse=True)


def _run(folder: Path, settings: Settings, arm: str, seed: int, steps: int, cache: Path) -> None:
    """Start a run, or go on with one that has a checkpoint. Raises RuntimeError when it fails."""
    name = f"{arm}-seed-{seed}"
    begun = next((f for f in _folders(folder, arm, seed) if any(f.glob("checkpoints/*/manifest.json"))), None)
    arguments = ["--resume", str(begun)] if begun else [str(RECIPES / f"{settings.recipe}.toml")]
    if not begun:
        fixed = {"run.dir": str(folder), "run.name": name, "run.seed": seed, "run.steps": steps}
        fixed |= {"model.path": str(_model(settings, arm, cache))}
        # Patience, since the machine may be busy with something else.
        fixed |= {"learner.sync_deadline_s": 300, "generator.lease_s": 60}
        for key, value in {**settings.always, **settings.arms[arm], **fixed}.items():
            arguments += ["--set", f"{key}={_toml(value)}"]
    print(f"{time.strftime('%H:%M:%S')} {'resume' if begun else 'run'} {name}", file=sys.stderr, flush=True)
    run_to_its_end(name, folder / f"{name}.log", *arguments, deadline_s=settings.deadline_s, command=settings.command)


def _model(settings: Settings, arm: str, cache: Path) -> Path:
    """The policy that every arm starts from, built once for all of them."""
    from chorus.protocol.config.load import load_config
    from chorus.starter.resolve import build_for

    keys = {**settings.always, **settings.arms[arm]}
    overrides = [f"{key}={_toml(value)}" for key, value in keys.items()]
    return build_for(load_config(RECIPES / f"{settings.recipe}.toml", overrides), cache)


def _toml(value: Any) -> str:
    return json.dumps(value) if isinstance(value, str | list | bool) else str(value)


def report(folder: Path, arms: Sequence[str], seeds: Sequence[int], steps: int, figures: Mapping[str, Figure]) -> str:
    """Mean over the seeds, their range in brackets."""
    runs = {arm: [RunFolder(f) for seed in seeds if (f := finished(folder, arm, seed, steps))] for arm in arms}
    about = ", ".join(f"{key} {value}" for key, value in machine.describe().items())
    lines = [
        f"{folder.name}; seeds: {', '.join(f'{len(found)} of {arm}' for arm, found in runs.items())}; {about}",
        "",
        f"| | {' | '.join(arms)} |",
        f"| --- |{' --- |' * len(arms)}",
    ]
    for said, figure in {**figures, "minutes": _minutes}.items():
        cells = [_cell([value for run in runs[arm] if (value := figure(run)) is not None]) for arm in arms]
        lines.append(f"| {said} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "-"
    text = f"{fmean(values):.3f}"
    return f"{text} ({min(values):.3f}-{max(values):.3f})" if len(values) > 1 else text


def evaluated(when: str, figure: str) -> Figure:
    """Of the held-out evaluation `before` or `after` the run."""
    return lambda run: read_json(run.evaluation(when)).get(figure)


def trained(key: str, first: bool = False) -> Figure:
    """Of the last steps' records, or of the first ones'; a mean over those that have it."""

    def figure(run: RunFolder) -> float | None:
        records = run.records()
        values = [r[key] for r in (records[:LAST] if first else records[-LAST:]) if r.get(key) is not None]
        return fmean(values) if values else None

    return figure


def _minutes(run: RunFolder) -> float | None:
    seconds = read_json(run.summary).get("wall_seconds")
    return None if seconds is None else seconds / 60
