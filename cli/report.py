"""Runs and evaluations side by side, as one HTML page and a Markdown file."""

from __future__ import annotations

import os
from pathlib import Path

import click

from chorus.protocol.runtime.command_line import PATH, command, option
from chorus.protocol.runtime.exits import CannotGoOn


@command(
    "report",
    help=__doc__,
    examples=["chorus report runs/a runs/b runs/c --eval runs/evals/some-model-math-greedy-5 --out runs/compared"],
)
@click.argument("folders", type=PATH, nargs=-1, metavar="[RUN]...", help="folders of runs, finished or not")
@option("--eval", "evals", type=PATH, several=True, metavar="FOLDER...", help="of chorus eval")
@option("--out", type=PATH, default="runs/report", metavar="FOLDER", help="where the two go")
@option("--title", default="Runs compared")
def main(folders: tuple[Path, ...], evals: tuple[Path, ...], out: Path, title: str) -> int:
    from chorus.evaluation.report import plots
    from chorus.evaluation.report.comparisons import by_condition, evaluation_tables
    from chorus.evaluation.report.pages import write
    from chorus.evaluation.report.runs import arms_of, read_evaluation, read_run
    from chorus.evaluation.report.tables import run_tables

    if not folders and not evals:
        raise CannotGoOn("give the folder of a run, or --eval with the folder of an evaluation")
    runs = [read_run(folder) for folder in folders]
    arms = arms_of(runs)
    tables = run_tables(arms) + evaluation_tables(runs, [read_evaluation(folder) for folder in evals])
    drawn = {}
    if arms:
        drawn["curves"] = ("Training", plots.curves(arms))
        if (by_template := plots.by_template(arms)) is not None:
            drawn["templates"] = ("By template", by_template)
    for number, found in enumerate(by_condition(runs, []), 1):
        if (svg := plots.checkpoints(found)) is not None:
            drawn[f"checkpoints-{number}"] = (f"Checkpoints on {found[0][1]['spec']['suite']}", svg)
    try:
        page, text = write(out, title, tables, drawn)
    except OSError as error:
        raise CannotGoOn(f"--out {out}: {error.strerror}; give a folder that can be written") from None
    print(f"{page}\n{text}")
    return os.EX_OK
