"""`chorus run RECIPE`: start everything on this machine, watch it learn, stop everything."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from chorus.deploy.dry_run import describe
from chorus.deploy.launcher import run
from chorus.deploy.placement import place, visible_cores, visible_gpus
from chorus.deploy.preflight import check_inputs
from chorus.protocol.config.load import load_config
from chorus.protocol.runtime.exits import CannotGoOn


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="chorus run", description=__doc__)
    parser.add_argument("recipe", type=Path, nargs="?", help="a recipe, e.g. recipes/demo.toml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on with the run in this folder")
    parser.add_argument("--dry-run", action="store_true", help="print what would be done and needed")
    parser.add_argument("--gpus", type=int, metavar="N", help="with --dry-run: as if this machine had N GPUs")
    parser.add_argument(
        "--tokens-per-second", type=float, metavar="RATE", help="with --dry-run: how long it takes at this rate"
    )
    args = parser.parse_args(argv)
    if (args.recipe is None) == (args.resume is None):
        raise CannotGoOn("give a recipe, or --resume with the folder of a run")
    source = args.recipe or args.resume / "config.json"
    if args.resume is not None and not source.is_file():
        raise CannotGoOn(f"--resume {args.resume}: there is no config.json in it; give the folder of a run")
    config = load_config(source, args.overrides)
    if args.dry_run:
        gpus = visible_gpus() if args.gpus is None else list(range(args.gpus))
        print(describe(config, place(config, visible_cores(), gpus), args.tokens_per_second))
        return os.EX_OK
    check_inputs(config)
    return run(config, str(source), resume=args.resume)
