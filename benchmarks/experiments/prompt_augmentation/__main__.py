"""`python -m chorus.benchmarks.experiments.prompt_augmentation`: the demo under 13, 4 and 1 templates, three seeds.

Every run starts from the same policy, which knows all 13 layouts, and trains on the same number of samples. What the
runs came to is measured apart, on each one's checkpoints, with the same held-out problems and templates for all.
A run that has its steps is not run again, and one that was cut short goes on: start the command again at any time,
also with more steps.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from chorus.benchmarks.experiments.prompt_augmentation.report import Experiment, draw, markdown
from chorus.benchmarks.runs import run_to_its_end
from chorus.protocol.config.load import load_config

RECIPES = Path(__file__).resolve().parents[3] / "recipes"
RECIPE = RECIPES / "demo_13_templates.toml"
ARMS = {
    13: load_config(RECIPE).templates.names,
    4: load_config(RECIPES / "demo.toml").templates.names,
    1: load_config(RECIPES / "demo_single_template.toml").templates.names,
}
POINTS = 10  # checkpoints of a run that are measured
KEPT = 1000  # more checkpoints than any run has: they go once they are measured
DEADLINE_S = 6 * 3600.0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m chorus.benchmarks.experiments.prompt_augmentation", description=__doc__
    )
    add = parser.add_argument
    add("--steps", type=int, default=150, help="steps of every run (default: 150)")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--arms", type=int, nargs="+", default=list(ARMS), choices=list(ARMS), help="numbers of templates")
    add("--dir", type=Path, default=Path("runs"), help="where runs and the starter's cache lie (default: runs)")
    add("--picture", type=Path, help="where the picture goes (default: into the experiment's folder)")
    add("--nice", type=int, default=15, help="politeness towards other processes, 0 to 19 (default: 15)")
    add("--report-only", action="store_true", help="draw and print what is there; run nothing")
    args = parser.parse_args()
    os.nice(args.nice)
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    folder = args.dir / "prompt_augmentation"
    folder.mkdir(parents=True, exist_ok=True)
    if not args.report_only:
        starter = _starter(args.dir / ".cache")
        _measure_start(folder, starter)
        for seed in args.seeds:  # seed by seed, so that an experiment cut short is still a comparison
            for arm in args.arms:
                run_dir = _finished(folder, arm, seed, args.steps) or _run(folder, arm, seed, args.steps, starter)
                _measure(run_dir)
    runs = {arm: [r for s in args.seeds if (r := _finished(folder, arm, s, args.steps))] for arm in args.arms}
    runs = {arm: found for arm, found in runs.items() if found}
    if not runs:
        print(f"{folder}: no run has {args.steps} steps yet", file=sys.stderr)
        return os.EX_TEMPFAIL
    experiment = Experiment(folder, runs, args.steps)
    picture = draw(experiment, args.picture or folder / "prompt_augmentation.png")
    table = markdown(experiment)
    (folder / "report.md").write_text(table, encoding="utf-8")
    print(f"{table}\n{picture}")
    return os.EX_OK


def _starter(cache: Path) -> Path:
    """The policy that all runs start from, warmed up on all thirteen layouts."""
    from chorus.starter.build import build_starter

    return build_starter(cache, ARMS[13], log=_say)


def _folders(folder: Path, arm: int, seed: int) -> Iterator[Path]:
    """The folders of a run's starts, the newest first."""
    return iter(sorted(folder.glob(f"templates-{arm}-seed-{seed}-*"), reverse=True))


def _finished(folder: Path, arm: int, seed: int, steps: int) -> Path | None:
    return next((f for f in _folders(folder, arm, seed) if _trained(f) >= steps), None)


def _trained(run_dir: Path) -> int:
    """Steps of a run that has ended, or 0."""
    summary = run_dir / "summary.json"
    return json.loads(summary.read_text())["steps"] if summary.is_file() else 0


def _run(folder: Path, arm: int, seed: int, steps: int, starter: Path) -> Path:
    """Start a run, or go on with one that has a checkpoints. Raises RuntimeError when it fails."""
    name = f"templates-{arm}-seed-{seed}"
    begun = next((f for f in _folders(folder, arm, seed) if any(f.glob("checkpoints/*/manifest.json"))), None)
    settings: dict[str, object] = {"run.steps": steps, "learner.keep_checkpoints": KEPT}
    if not begun:
        settings |= {
            "run.dir": str(folder),
            "run.name": name,
            "run.seed": seed,
            "model.path": str(starter),
            "templates.names": json.dumps(ARMS[arm]),
            "evaluation.problems": 0,
            "learner.checkpoint_every": max(1, steps // POINTS),
            # Patience, since the machine may be busy with something else.
            "learner.sync_deadline_s": 300,
            "generator.lease_s": 60,
        }
    arguments = ["--resume", str(begun)] if begun else [str(RECIPE)]
    arguments += [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    _say(f"{'resume' if begun else 'run'} {name}")
    run_to_its_end(name, folder / f"{name}.log", *arguments, deadline_s=DEADLINE_S)
    run_dir = _finished(folder, arm, seed, steps)
    assert run_dir is not None, f"{name} left no summary in {folder}"
    return run_dir


def _measure_start(folder: Path, starter: Path) -> None:
    path = folder / "start.json"
    if not path.is_file():
        from chorus.benchmarks.experiments.prompt_augmentation.evaluate import evaluate

        _say("measuring the starting policy")
        path.write_text(json.dumps({"step": 0} | evaluate([starter], ARMS[13])[0], indent=2) + "\n")


def _measure(run_dir: Path) -> None:
    """Measure the run's new checkpoints into curves.json; afterwards only the last checkpoint is kept."""
    from chorus.protocol.run_folder import checkpoints

    path = run_dir / "curves.json"
    records = json.loads(path.read_text()) if path.is_file() else []
    measured = {record["step"] for record in records}
    found = sorted(m.parent for m in (run_dir / "checkpoints").glob("step-*/manifest.json"))
    new = {step: f for f in found if (step := checkpoints.read_manifest(f).step) not in measured}
    if not new:
        return
    from chorus.benchmarks.experiments.prompt_augmentation.evaluate import evaluate

    _say(f"measuring {len(new)} checkpoints of {run_dir.name}")
    points = evaluate([f / "huggingface" for f in new.values()], ARMS[13])
    records += [{"step": step} | point for step, point in zip(new, points, strict=True)]
    path.write_text(json.dumps(records, indent=2) + "\n")
    checkpoints.prune(run_dir / "checkpoints", 1)


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
