"""A live run with scripted engines, for tests of what happens around it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from liverun import ROOT, LiveRun
from scripted_run import RECIPE

SUPPORT = ROOT / "tests" / "support"


def start_scripted_run(
    folder: Path,
    model: Path,
    steps: int = 1_000_000,
    replicas: int = 2,
    delay_s: float = 0.3,
    output: Path | None = None,
    resume: Path | None = None,
    overrides: Sequence[str] = (),
    real: int = 0,
) -> LiveRun:
    """The real launcher, Valkey, reward server and learner; the engines of the real agents are scripted, but for the
    first `real` ones."""
    runs = folder / "runs"
    runs.mkdir(exist_ok=resume is not None)
    recipe = folder / "scripted.toml"
    recipe.write_text(RECIPE.format(runs=runs, steps=steps, model=model, replicas=replicas))
    output = output or runs / "output.log"
    with output.open("wb") as log:
        argv = [sys.executable, str(SUPPORT / "scripted_run.py"), str(recipe)]
        argv += ["--resume", str(resume)] if resume else []
        argv += ["--real", str(real)]
        for item in overrides:
            argv += ["--set", item]
        process = subprocess.Popen(argv, cwd=ROOT, stdout=log, stderr=log, env=environment(delay_s))
    return LiveRun(process, runs, output)


def environment(delay_s: float) -> dict[str, str]:
    paths = os.pathsep.join([str(ROOT / "src"), str(SUPPORT)])
    return os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CHORUS_TEST_DELAY_S": str(delay_s)}


def start_generator(run: LiveRun, name: str, delay_s: float = 0.3) -> subprocess.Popen[bytes]:
    """One more generator, by hand, as on another machine."""
    config = str(run.folder / "config.json")
    argv = [sys.executable, str(SUPPORT / "receiving.py"), "generator", "--config", config]
    argv += ["--run-id", run.folder.name, "--name", name]
    with (run.folder / "logs" / f"{name}.log").open("wb") as log:
        return subprocess.Popen(argv, cwd=ROOT, stdout=log, stderr=log, env=environment(delay_s))
