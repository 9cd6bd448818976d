"""Whole runs, as a person starts them, and what their metrics.jsonl says."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chorus.benchmarks.bench import RECIPE, WARM_UP_STEPS, Bench
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.processes import spawn_guarded

_GRACE_S = 60.0


def run_to_its_end(name: str, log: Path, *arguments: str, deadline_s: float = 3600.0, command: str = "run") -> None:
    """`chorus run ARGUMENTS`, or another command, in a process of its own, stopped at the deadline. Raises
    RuntimeError."""
    program_to_its_end(name, log, [sys.executable, "-m", "chorus.cli.main", command, *arguments], deadline_s)


def program_to_its_end(
    name: str, log: Path, argv: Sequence[str], deadline_s: float, env: Mapping[str, str] | None = None
) -> None:
    """Run `argv`, stopped at the deadline, its output in the log. env: in place of ours. Raises RuntimeError."""
    process = spawn_guarded(argv, name=name, env=env, log=log, grace_s=_GRACE_S)
    try:
        status = process.wait(deadline_s)
    finally:
        process.stop(_GRACE_S)
    if status != 0:
        raise RuntimeError(f"the run {name} ended with exit status {status}; its log is {log}")


def chorus_run(bench: Bench, name: str, *overrides: str) -> Path:
    """`chorus run` of the demo's recipe without evaluations; returns its folder. Raises RuntimeError."""
    settings = [
        f"run.dir={bench.folder}",
        f"run.name={name}",
        f"run.steps={bench.steps}",
        "evaluation.problems=0",
        *overrides,
    ]
    arguments = [part for setting in settings for part in ("--set", setting)]
    bench.say(f"chorus run {name}")
    run_to_its_end(name, bench.folder / f"{name}.log", str(RECIPE), *arguments)
    return next(folder for folder in bench.folder.glob(f"{name}-*") if folder.is_dir())


def steady(run_dir: Path) -> list[dict[str, Any]]:
    """The records of a run's steps without the warm-up. Raises ValueError where there are none."""
    records = RunFolder(run_dir).records()[WARM_UP_STEPS:]
    if not records:
        raise ValueError(f"{run_dir}: no steps after the {WARM_UP_STEPS} of the warm-up; raise --steps")
    return records


def step_seconds(run_dir: Path) -> float:
    """Mean wall seconds of a step, waiting included."""
    records = steady(run_dir)
    return sum(r["seconds"] for r in records) / len(records)
