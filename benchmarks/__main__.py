"""`python -m chorus.benchmarks` (`make bench`): measure, print the table, write results.json.

Every row pairs ours with a peer measured beside it; the columns are minimum / median / maximum over the
repeats, and a goal is held against the median. Leave the machine alone meanwhile: both of its cores are used.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from pathlib import Path

from chorus.benchmarks import machine
from chorus.benchmarks.bench import WARM_UP_STEPS, Bench, say
from chorus.benchmarks.report import Row, table
from chorus.protocol.config.presets import PRESETS

BENCHMARKS = (
    *("generator", "learner", "host", "head", "gpu", "memory", "sync", "control_plane", "overlap", "loop"),
    *("verifier", "verifier_quality", "objectives"),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chorus.benchmarks", description=__doc__)
    add = parser.add_argument
    add("--only", action="append", choices=BENCHMARKS, metavar="NAME", help=", ".join(BENCHMARKS))
    add("--repeats", type=int, default=3, help="pairs a row (default: 3)")
    add("--steps", type=int, default=12, help="steps of a run (default: 12)")
    add("--staleness", type=int, default=1, help="target of the asynchronous runs (default: 1)")
    add("--objective", action="append", choices=PRESETS, metavar="NAME", help="of the line `objectives` (default: all)")
    add("--quick", action="store_true", help="only show that it runs; its figures mean nothing")
    add("--dir", type=Path, default=Path("runs"), help="where runs and caches lie (default: runs)")
    args = parser.parse_args()
    if args.repeats < 1 or args.steps <= WARM_UP_STEPS or args.staleness < 1:
        parser.error(f"--repeats and --staleness start at 1, --steps at {WARM_UP_STEPS + 1}")
    # Read when torch is imported: threads that spin while they wait would take the services' cores.
    os.environ["OMP_WAIT_POLICY"] = "passive"
    bench = Bench(
        folder=args.dir / "bench" / time.strftime("%Y%m%d-%H%M%S"),
        cache=args.dir / ".cache",
        repeats=1 if args.quick else args.repeats,
        steps=WARM_UP_STEPS + 2 if args.quick else args.steps,
        staleness=args.staleness,
        quick=args.quick,
        objectives=tuple(args.objective or ()),
        say=say,
    )
    bench.folder.mkdir(parents=True)
    bench.cache.mkdir(parents=True, exist_ok=True)
    about = machine.describe() | {"repeats": bench.repeats, "quick": bench.quick}
    rows: list[Row] = []
    for name in args.only or BENCHMARKS:
        # Imported here: torch takes seconds, and must not be loaded before the line above.
        for row in importlib.import_module(f"chorus.benchmarks.{name}").measure(bench):
            rows.append(row)
            _write(bench.folder, about, rows)
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print(table(rows))
    return os.EX_OK


def _write(folder: Path, about: dict[str, object], rows: list[Row]) -> None:
    """After every row, so that it is kept when a later benchmark fails: in the folder, and as the newest."""
    text = json.dumps(about | {"rows": [row.as_dict() for row in rows]}, indent=2) + "\n"
    for path in (folder / "results.json", folder.parent / "results.json"):
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
