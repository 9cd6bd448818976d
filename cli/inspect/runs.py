"""List the runs in a folder, the newest first: running, finished or stopped, how far, and how well.

What has stopped goes on with `chorus run --resume RUN`.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import click

from chorus.cli.inspect.standing import Standing, is_run, standing
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.command_line import PATH, command, option
from chorus.protocol.runtime.exits import CannotGoOn

_SHOWN = ("reward", "accuracy", "entropy")


@command("runs", help=__doc__, examples=["chorus runs", "chorus runs /runs --json"])
@click.argument("folder", type=PATH, default="runs", help="that holds them, as run.dir of a recipe says")
@option("--json", "as_json", is_flag=True, help="print a JSON list")
def main(folder: Path, as_json: bool) -> int:
    if not folder.is_dir():
        raise CannotGoOn(f"{folder}: no such folder; give the one that holds runs (a recipe's run.dir)")
    folders = [RunFolder(path) for path in folder.iterdir() if path.is_dir()]
    found = [standing(run) for run in folders if is_run(run)]
    found.sort(key=lambda run: run.at, reverse=True)
    if as_json:
        print(json.dumps([asdict(run) | {"run": str(run.run.path)} for run in found], indent=2))
    elif found:
        print("\n".join(_table(found)))
    else:
        print(f"{folder}: there is no run in it yet")
    return os.EX_OK


def _table(runs: list[Standing]) -> list[str]:
    rows = [
        (
            run.run.name,
            run.state,
            f"step {run.step}/{run.steps}",
            *(f"{name} {run.last[name]:.3f}" if run.last.get(name) is not None else "" for name in _SHOWN),
            run.when,
        )
        for run in runs
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
