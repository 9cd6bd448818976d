"""`chorus starter`: build the policy that a recipe starts from, or say where it lies."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from chorus.protocol.config.load import load_config
from chorus.starter.resolve import build_for


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="chorus starter", description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("runs/.cache"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    args = parser.parse_args(argv)
    config = load_config(args.recipe, args.overrides)
    print(build_for(config, args.cache))
    return os.EX_OK
