"""`chorus starter`: build the policy that a recipe starts from, or say where it lies."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from chorus.protocol.config.load import load_config


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="chorus starter", description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("runs/.cache"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    args = parser.parse_args(argv)
    config = load_config(args.recipe, args.overrides)
    if config.model.path == "smollm2":
        from chorus.starter.smollm2 import build_smollm2

        print(build_smollm2(args.cache))
    else:
        from chorus.starter.build import build_starter
        from chorus.starter.courses import CHAINS, COURSES

        extra = [Path(f) for f in config.templates.files]
        names = config.model.starter_templates or config.templates.names
        course = COURSES.get(config.model.path, CHAINS)
        print(build_starter(args.cache, names, 0, extra_templates=extra, course=course))
    return os.EX_OK
