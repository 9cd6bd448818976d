"""What every benchmark is told."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from chorus.protocol.config.load import load_config
from chorus.protocol.config.run import RunConfig

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "demo.toml"
WARM_UP_STEPS = 2  # of a run, left out: vLLM's first shapes, the first groups with nothing to overlap with


@dataclass(frozen=True)
class Bench:
    """`folder` is this measurement's own; `cache` holds models between measurements.

    `repeats`: pairs a row. `steps` of a run; `staleness`: the asynchronous runs' target. `quick`: as little
    work as shows that everything runs; its figures mean nothing.
    """

    folder: Path
    cache: Path
    repeats: int
    steps: int
    staleness: int
    quick: bool
    say: Callable[[str], None]
    objectives: tuple[str, ...] = ()  # for the line of that name; none: all

    def config(self, *overrides: str) -> RunConfig:
        """The demo's recipe, without evaluations."""
        return load_config(RECIPE, ["evaluation.problems=0", *overrides])


def say(text: str) -> None:
    """Progress, for who waits."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
