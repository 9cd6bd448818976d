"""How many generators a run needs, simulated before anybody pays for them.

Speeds come from a recorded run (--run, whose configuration counts where no recipe is given); each of them can be given
instead, and without a run the engine's and the learner's must be. --lengths replaces the recorded completions: a file
with one length a line, or another run.
"""

from __future__ import annotations

import json
import math
import os
import re
import statistics
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from chorus.deploy.simulator.calibrate import Calibration, calibrate, read_lengths, stored_lengths
from chorus.deploy.simulator.forecast import Forecast, forecast, recommend, remarks
from chorus.deploy.simulator.pace import EngineSpeed, Pace, groups_of
from chorus.protocol.config.load import load_config
from chorus.protocol.config.run import RunConfig
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.command_line import PATH, command, option, overrides_option
from chorus.protocol.runtime.exits import CannotGoOn

_MOST_GENERATORS = 1024


@command(
    "plan",
    help=__doc__,
    examples=[
        "chorus plan runs/demo-20261122-041622 --generators 1..8",
        "chorus plan recipes/demo.toml --run runs/demo-20261122-041622 --generators 1..8",
        "chorus plan recipes/qwen2.5-math-1.5b_async.toml --lengths lengths.txt --rates 1:150,64:5000,256:10000 \\\n"
        "      --learner-rate 33000 --generators 1..7      # 8 GPUs, of which two learn",
    ],
)
@click.argument("recipe", type=PATH, help="a recipe; or a run's folder: then --run is that folder too")
@option("--generators", default="1..16", metavar="N..M", help="fleet sizes, e.g. 1..16 or 1,2,4,8")
@option("--run", type=PATH, metavar="RUN", help="a run's folder: speeds, syncs and lengths are taken from it")
@option("--lengths", type=PATH, metavar="FILE", help="completion lengths, one a line, or a run's folder")
@option("--rates", metavar="N:RATE,...", help="an engine's tokens/s in total, by sequences that run at once")
@option("--learner-rate", type=float, metavar="TOKENS", help="tokens/s the learner trains while it does not wait")
@option("--grade-seconds", type=float, metavar="S", help="grading of a group (default: the run's, or 0)")
@option("--pause-seconds", type=float, metavar="S", help="an engine's pause for new weights (default: the run's, or 0)")
@option(
    "--link-seconds",
    type=float,
    metavar="S",
    help="one copy of the weights on the learner's link; each further generator makes all weights so much "
    "later (default: 0)",
)
@option("--steps", type=int, default=100, help="steps to simulate for each fleet")
@option("--seed", type=int, default=0, help="of the groups that are drawn from single lengths")
@overrides_option
@option("--json", is_flag=True, help="print one JSON object instead of a table")
def main(**options: Any) -> int:
    args = SimpleNamespace(**options)
    if args.recipe.is_dir():
        args.run = args.run or args.recipe
        args.recipe = RunFolder(args.recipe).existing().config
    config = load_config(args.recipe, args.overrides)
    known = _calibration(args, config)
    fleets = _fleets(args.generators)
    forecasts = [forecast(config, known.pace, n, args.steps) for n in fleets]
    chosen, why = recommend(forecasts, config)
    notes = [*known.notes.values(), *remarks(config, known.pace, forecasts, chosen, args.steps)]
    if args.json:
        told = {
            "calibration": known.told,
            "forecasts": [asdict(f) for f in forecasts],
            "recommended": chosen.generators,
            "why": why,
            "notes": notes,
        }
        print(json.dumps(told, indent=2))
    else:
        _show(known.told, forecasts, chosen, why, notes)
    return os.EX_OK


def _fleets(text: str) -> list[int]:
    """1..4 -> 1, 2, 3, 4; 1,4,2 -> 1, 2, 4."""
    parts = [re.fullmatch(r"(\d{1,6})(?:\.\.(\d{1,6}))?", part.strip()) for part in text.split(",")]
    sizes = {n for p in parts if p for n in range(int(p[1]), int(p[2] or p[1]) + 1)}
    if not all(parts) or not sizes or min(sizes) < 1 or max(sizes) > _MOST_GENERATORS:
        raise CannotGoOn(f"--generators {text}: write fleet sizes from 1 to {_MOST_GENERATORS}, as 1..16 or 1,2,4,8")
    return sorted(sizes)


def _calibration(args: SimpleNamespace, config: RunConfig) -> Calibration:
    """The run's pace, with what the command line gives instead. Raises CannotGoOn where something is missing."""
    if args.steps < 1:
        raise CannotGoOn(f"--steps {args.steps}: simulate at least one step")
    known = calibrate(args.run) if args.run else _without_a_run(args)
    pace, told, notes = known.pace, dict(known.told), dict(known.notes)
    if args.rates:
        pace = replace(pace, engine=EngineSpeed.from_rates(_rates(args.rates)))
        told["engine"] = f"{args.rates} (sequences:tokens/s), as given"
        notes.pop("engine", None)
    if args.learner_rate is not None:
        pace = replace(pace, learner=(1.0 / _positive("--learner-rate", args.learner_rate),))
        told["learner"] = f"{args.learner_rate:,g} tokens/s, as given"
    if args.grade_seconds is not None:
        pace = replace(pace, grade_s=_positive("--grade-seconds", args.grade_seconds, zero=True))
        told["grading"] = f"{args.grade_seconds:g} s a group, as given"
    if args.pause_seconds is not None:
        pause_s, check_s = _positive("--pause-seconds", args.pause_seconds, zero=True), pace.sync_s - pace.pause_s
        pace = replace(pace, pause_s=pause_s, sync_s=pause_s + check_s)
        told["weights"] = f"an engine pauses {pause_s:g} s a sync, as given"
        notes.pop("weights", None)
    if args.link_seconds is not None:
        pace = replace(pace, link_s=_positive("--link-seconds", args.link_seconds, zero=True))
        told["link"] = f"each further generator makes all weights {args.link_seconds:g} s later, as given"
    lengths = known.lengths
    if args.lengths:
        lengths = stored_lengths(args.lengths) if args.lengths.is_dir() else [[n] for n in read_lengths(args.lengths)]
    groups = groups_of(lengths, config.sampling.group_size, config.sampling.max_tokens, args.seed)
    tokens, longest = statistics.fmean(g.total for g in groups), statistics.fmean(g.longest for g in groups)
    told["groups"] = (
        f"{config.sampling.group_size} x {tokens / config.sampling.group_size:,.0f} tokens on average, the "
    )
    told["groups"] += f"longest {longest:,.0f}"
    return Calibration(replace(pace, groups=groups), lengths, told, notes)


def _without_a_run(args: SimpleNamespace) -> Calibration:
    needed = {"--lengths": args.lengths, "--rates": args.rates, "--learner-rate": args.learner_rate}
    if missing := [name for name, value in needed.items() if value is None]:
        raise CannotGoOn(
            f"without a recorded run {' and '.join(missing)} must be given: name a run's folder with --run, or say "
            "what an engine and the learner do a second and how long completions are"
        )
    return Calibration(Pace(groups=(), engine=EngineSpeed(((1, 1.0),)), learner=()), [], {}, {})


def _positive(option: str, value: float, zero: bool = False) -> float:
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise CannotGoOn(f"{option} {value:g}: give a number {'of 0 or more' if zero else 'above 0'}")
    return value


def _rates(text: str) -> list[tuple[float, float]]:
    """1:90,32:2100 -> [(1, 90), (32, 2100)]."""
    found = [re.fullmatch(r"\s*(\d+(?:\.\d+)?):(\d+(?:\.\d+)?)\s*", part) for part in text.split(",")]
    pairs = [(float(m[1]), float(m[2])) for m in found if m]
    if (
        len(pairs) < len(found)
        or any(n < 1 or rate <= 0 for n, rate in pairs)
        or len({n for n, _ in pairs}) < len(pairs)
    ):
        raise CannotGoOn(f"--rates {text}: write sequences:tokens/s pairs, as 1:90,32:2100,256:9000")
    return sorted(pairs)


def _show(told: dict[str, str], forecasts: list[Forecast], chosen: Forecast, why: str, notes: list[str]) -> None:
    console = Console(highlight=False)
    for topic, text in told.items():
        console.print(f"{topic:9} {text}", markup=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("generators", "samples/s", "steps/h", "learner idle", "fleet idle", "staleness", "at most"):
        table.add_column(name, justify="right")
    for f in forecasts:
        cells = (
            f"{'* ' if f is chosen else ''}{f.generators}",
            f"{f.samples_per_s:.3g}",
            f"{f.steps_per_hour:,.4g}",
            f"{f.learner_idle:.0%}",
            f"{f.generators_idle:.0%}",
            f"{f.staleness_mean:.2f}",
            str(f.staleness_max),
        )
        table.add_row(*cells, style="bold" if f is chosen else None)
    console.print(table)
    console.print(f"* {why}", markup=False, soft_wrap=True)
    for note in notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
