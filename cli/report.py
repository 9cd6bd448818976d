"""`chorus report RUN...`: runs and evaluations side by side, as one HTML page and a Markdown file."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from chorus.evaluation.report import plots
from chorus.evaluation.report.comparisons import evaluation_tables
from chorus.evaluation.report.pages import write
from chorus.evaluation.report.runs import arms_of, read_evaluation, read_run
from chorus.evaluation.report.tables import run_tables
from chorus.protocol.runtime.exits import CannotGoOn


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="chorus report", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="folders of runs, finished or not")
    parser.add_argument(
        "--eval", type=Path, nargs="+", default=[], metavar="FOLDER", dest="evals", help="of chorus eval"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/report"), metavar="FOLDER", help="default: runs/report")
    parser.add_argument("--title", default="Runs compared")
    args = parser.parse_args(argv)
    if not args.runs and not args.evals:
        raise CannotGoOn("give the folder of a run, or --eval with the folder of an evaluation")
    runs = [read_run(folder) for folder in args.runs]
    arms = arms_of(runs)
    found = run_tables(arms) + evaluation_tables(runs, [read_evaluation(folder) for folder in args.evals])
    drawn = {}
    if arms:
        drawn["curves"] = ("Training", plots.curves(arms))
        if (by_template := plots.by_template(arms)) is not None:
            drawn["templates"] = ("By template", by_template)
    try:
        page, text = write(args.out, args.title, found, drawn)
    except OSError as error:
        raise CannotGoOn(f"--out {args.out}: {error.strerror}; give a folder that can be written") from None
    print(f"{page}\n{text}")
    return os.EX_OK
