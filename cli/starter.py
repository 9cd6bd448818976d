"""`chorus starter`: build the demo's tiny policy, or say where it lies."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from protocol.config import load_config


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="chorus starter", description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("runs/.cache"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    args = parser.parse_args(argv)
    config = load_config(args.recipe, args.overrides)
    from starter.build import build_starter

    print(build_starter(args.cache, config.templates.names, 0))
    return os.EX_OK
