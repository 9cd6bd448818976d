"""A working folder whose packages bear our rooms' names, and those of libraries: people's repositories do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from liverun import DEMO, QUICK, LiveRun

ROOMS = sorted(path.parent.name for path in (Path(__file__).parents[2] / "src" / "chorus").glob("*/__init__.py"))
LIBRARIES = ("redis", "torch", "vllm", "uvicorn", "sympy", "msgpack", "numpy")
IN_THE_WAY = "stood in the way"


def crowd(folder: Path) -> Path:
    """Every package in it raises; `chorus` is the plain folder that `git clone` makes."""
    for name in (*ROOMS, *LIBRARIES):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(f"raise RuntimeError('the folder {name} {IN_THE_WAY}')\n")
    (folder / "chorus" / "learner").mkdir(parents=True)
    return folder


def environment() -> dict[str, str]:
    """As a person has it: no PYTHONPATH and no safe path of the tests' own."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "CHORUS_"))}


def start_demo_there(folder: Path, *overrides: str) -> LiveRun:
    """`chorus run` of the demo, asked for in that folder, with its runs below it."""
    argv = [str(Path(sys.executable).with_name("chorus")), "run", str(DEMO), "--set", "run.dir=runs"]
    argv += [word for item in (*QUICK, *overrides) for word in ("--set", item)]
    output = folder / "output.log"
    with output.open("wb") as log:
        process = subprocess.Popen(argv, cwd=folder, stdout=log, stderr=log, env=environment())
    return LiveRun(process, folder / "runs", output)
