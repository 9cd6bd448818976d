"""`python -m chorus.benchmarks.experiments.relift`: problems that the tiny policy never solves, with ReLIFT, with
QuestA, or with reinforcement learning alone.

Settings stand in settings/relift.toml. Arms are compared after equal steps, and at equal tokens: at the newest
checkpoint up to which an arm has trained no more tokens, of rollouts and of solutions, than the arm with the fewest.
What they came to is measured apart and without hints, on the problems trained on and on held-out ones chosen in the
same way. A run that has ended is not run again, and what was measured is not measured again: start it again any time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from chorus.benchmarks import machine
from chorus.benchmarks.experiments.questa import (
    CANDIDATES,
    FIGURES,
    SAMPLES,
    cell,
    finished,
    measure,
    measure_start,
    never_solved,
    problems_of,
    say,
    stages_of,
    starting_policy,
)
from chorus.benchmarks.runs import run_to_its_end
from chorus.protocol.run_folder import checkpoints
from chorus.protocol.run_folder.folder import RunFolder

SETTINGS = Path(__file__).parent / "settings" / "relift.toml"
RECIPES = Path(__file__).resolve().parents[2] / "recipes"
TEMPLATES = ["qwen-math"]


@dataclass(frozen=True)
class Arm:
    recipe: str
    stages: str
    set: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    seeds: Sequence[int]
    steps: int
    checkpoint_every: int
    arms: Mapping[str, Arm]


def read_settings() -> Settings:
    fields: dict[str, Any] = tomllib.loads(SETTINGS.read_text(encoding="utf-8"))
    arms = {name: Arm(**arm) for name, arm in fields.pop("arms").items()}
    return Settings(arms=arms, **fields)


def main() -> int:
    settings = read_settings()
    parser = argparse.ArgumentParser(prog="python -m chorus.benchmarks.experiments.relift", description=__doc__)
    add = parser.add_argument
    add("--seeds", type=int, nargs="+", default=list(settings.seeds))
    add("--arms", nargs="+", default=list(settings.arms), choices=list(settings.arms))
    add("--steps", type=int, default=settings.steps, help="fewer: to try the command out; another folder then")
    add("--dir", type=Path, default=Path("runs"), help="where runs and the starter's cache lie (default: runs)")
    add("--nice", type=int, default=5, help="politeness towards other processes, 0 to 19 (default: 5)")
    args = parser.parse_args()
    os.nice(args.nice)
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    folder = args.dir / "relift" / f"{args.steps}-steps"
    folder.mkdir(parents=True, exist_ok=True)
    policy = starting_policy(args.dir / ".cache", TEMPLATES)
    start = measure_start(folder, policy)
    runs: dict[str, list[Path]] = {name: [] for name in args.arms}
    for seed in args.seeds:
        for name in args.arms:
            done = finished(folder, name, seed) or run(folder, name, settings, seed, args.steps, policy)
            runs[name].append(done)
    fewest = min(tokens_by_step(run_dir)[-1] for found in runs.values() for run_dir in found)
    for run_dir in (run_dir for found in runs.values() for run_dir in found):
        for step in (args.steps, step_at(run_dir, fewest)):
            counts_of(run_dir, step, start)
    table = report(runs, start, args.steps, fewest)
    (folder / "report.md").write_text(table, encoding="utf-8")
    print(table)
    return os.EX_OK


def run(folder: Path, name: str, settings: Settings, seed: int, steps: int, policy: Path) -> Path:
    """Raises RuntimeError when the run fails."""
    arm, label = settings.arms[name], f"{name}-seed-{seed}"
    overrides = {
        "run.dir": folder,
        "run.name": label,
        "run.steps": steps,
        "run.seed": seed,
        "model.path": policy,
        "curriculum.pass_rates": json.dumps([str(folder / "pass_rates.jsonl")]),
        "curriculum.stages": stages_of(arm.stages, steps),
        "learner.checkpoint_every": settings.checkpoint_every,
        "learner.keep_checkpoints": steps,
        "evaluation.problems": 0,
        # Patience, since the machine may be busy with something else.
        "learner.sync_deadline_s": 300,
        "generator.lease_s": 60,
    } | {key: json.dumps(value) for key, value in arm.set.items()}
    parts = [part for key, value in overrides.items() for part in ("--set", f"{key}={value}")]
    say(f"run {label}")
    run_to_its_end(label, folder / f"{label}.log", str(RECIPES / f"{arm.recipe}.toml"), *parts)
    run_dir = finished(folder, name, seed)
    assert run_dir is not None, f"{label} left no summary in {folder}"
    return run_dir


def tokens_by_step(run_dir: Path) -> list[int]:
    """Tokens trained on up to each step, those of stored solutions included."""
    records = RunFolder(run_dir).records()
    return list(accumulate(r["trained_tokens"] + (r.get("supervised_tokens") or 0) for r in records))


def step_at(run_dir: Path, tokens: int) -> int:
    """The newest checkpoint that had trained no more than so many tokens; the first one where all had."""
    by_step = tokens_by_step(run_dir)
    steps = [checkpoints.read_manifest(path).step for path in checkpoints.loadable(run_dir / "checkpoints")]
    return max((step for step in steps if by_step[step - 1] <= tokens), default=min(steps))


def counts_of(run_dir: Path, step: int, start: Mapping[str, Any]) -> dict[str, Any]:
    """Of a checkpoint, on the problems that were never solved at the start; measured once."""
    path = run_dir / f"counts-{step:06d}.json"
    if not path.is_file():
        say(f"measuring {run_dir.name}, step {step}")
        model = checkpoints.folder_of(run_dir / "checkpoints", step) / checkpoints.EXPORT
        counts = {}
        for side in ("train", "heldout"):
            hard = set(never_solved(start[side]))
            counts[side] = measure(model, [p for p in problems_of(side) if p.id in hard])
        path.write_text(json.dumps(counts) + "\n", encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def report(runs: Mapping[str, Sequence[Path]], start: Mapping[str, Any], steps: int, fewest: int) -> str:
    """Mean over the seeds, their range in brackets."""
    about = ", ".join(f"{key} {value}" for key, value in machine.describe().items())
    lines = [
        f"{steps} steps; seeds: {', '.join(f'{len(found)} of {name}' for name, found in runs.items())}; {about}",
        "",
        f"| | start | {' | '.join(runs)} |",
        f"| --- | --- |{' --- |' * len(runs)}",
    ]
    for side, said in (("train", "trained on"), ("heldout", "held out")):
        hard = {id: start[side][id] for id in never_solved(start[side])}
        size = f"{len(hard)} of {CANDIDATES}"
        lines.append(f"| **{said}**: problems with 0 of {SAMPLES} at the start | {size} |{' |' * len(runs)}")
        for label, of in FIGURES.items():
            for when, at in (("equal steps", lambda _: steps), ("equal tokens", lambda f: step_at(f, fewest))):
                cells = [cell([of(counts_of(f, at(f), start)[side]) for f in found]) for found in runs.values()]
                lines.append(f"| {said}: {label}, {when} | {of(hard):.3f} | {' | '.join(cells)} |")
    rows = {
        "tokens of rollouts trained on": lambda f: _total(f, "trained_tokens"),
        "tokens of solutions trained on": lambda f: _total(f, "supervised_tokens"),
        "supervised updates": lambda f: _total(f, "supervised_updates"),
        "step of equal tokens": lambda f: float(step_at(f, fewest)),
        "minutes": lambda f: json.loads((f / "summary.json").read_text(encoding="utf-8"))["wall_seconds"] / 60,
    }
    for label, figure in rows.items():
        lines.append(f"| {label} | | {' | '.join(cell([figure(f) for f in found], 0) for found in runs.values())} |")
    return "\n".join(lines) + "\n"


def _total(run_dir: Path, key: str) -> float:
    return float(sum(record.get(key) or 0 for record in RunFolder(run_dir).records()))


if __name__ == "__main__":
    sys.exit(main())
