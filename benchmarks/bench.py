"""What every benchmark is told, and the runs of `chorus run` that some of them take."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from learner.figures import read_records
from protocol.config import RunConfig, load_config
from protocol.processes import spawn_guarded

RECIPE = Path(__file__).parents[1] / "recipes" / "demo.toml"
RUN_DEADLINE_S = 1200.0
WARM_UP_STEPS = 2  # of a run, left out: vLLM's first shapes, the first groups with nothing to overlap with


@dataclass(frozen=True)
class Bench:
    """`folder` is this measurement's own; `cache` holds models between measurements.

    `repeats`: pairs a row. `steps` of a run; `staleness`: the asynchronous runs' target. `quick`: as little
    work as shows that everything runs; its figures mean nothing.
    """

    folder: Path
    cache: Path
    repeats: int
    steps: int
    staleness: int
    quick: bool
    say: Callable[[str], None]

    def config(self, *overrides: str) -> RunConfig:
        """The demo's recipe, without evaluations."""
        return load_config(RECIPE, ["evaluation.problems=0", *overrides])

    def chorus_run(self, name: str, *overrides: str) -> Path:
        """A whole `chorus run` of the demo's recipe, no evaluations; returns its folder. Raises RuntimeError."""
        settings = [
            f"run.dir={self.folder}",
            f"run.name={name}",
            f"run.steps={self.steps}",
            "evaluation.problems=0",
            *overrides,
        ]
        arguments = [part for setting in settings for part in ("--set", setting)]
        log = self.folder / f"{name}.log"
        argv = [sys.executable, "-m", "cli.main", "run", str(RECIPE), *arguments]
        self.say(f"chorus run {name}")
        process = spawn_guarded(argv, name=name, log=log, grace_s=60.0)
        try:
            status = process.wait(RUN_DEADLINE_S)
        finally:
            process.stop(60.0)
        if status != 0:
            raise RuntimeError(f"the run {name} ended with exit status {status}; its log is {log}")
        return next(folder for folder in self.folder.glob(f"{name}-*") if folder.is_dir())


def steady(run_dir: Path) -> list[dict[str, Any]]:
    """The records of a run's steps without the warm-up. Raises ValueError where there are none."""
    records = read_records(run_dir)[WARM_UP_STEPS:]
    if not records:
        raise ValueError(f"{run_dir}: no steps after the {WARM_UP_STEPS} of the warm-up; raise --steps")
    return records


def step_seconds(run_dir: Path) -> float:
    """Mean wall seconds of a step, waiting included."""
    records = steady(run_dir)
    return sum(r["seconds"] for r in records) / len(records)
