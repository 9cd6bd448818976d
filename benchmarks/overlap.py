"""Do generating and training overlap? The demo asynchronous, synchronous, and each half alone.

All on the same cores by role: vLLM on one, the learner on the other. Runs take turns, asynchronous first.
A half alone is what that half needs for one step with the other one absent:

    generator   groups_per_step groups through the whole path, weights standing still
    learner     the trainer's step on the asynchronous run's stored rollouts
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch

from chorus.benchmarks.bench import WARM_UP_STEPS, Bench
from chorus.benchmarks.fleet import open_fleet
from chorus.benchmarks.generator import through_the_path
from chorus.benchmarks.machine import on_cores
from chorus.benchmarks.models import starter
from chorus.benchmarks.report import Row, at_most
from chorus.benchmarks.runs import chorus_run, step_seconds
from chorus.deploy.placement import place, visible_cores
from chorus.learner.training.distributed import DistributedTrainer
from chorus.learner.training.experience import make_experience, minibatches
from chorus.protocol.config.load import load_config
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.rollouts import read_step, stored_steps

GOAL_OF_SYNCHRONOUS = at_most(0.7)
GOAL_OF_SLOWER_HALF = at_most(1.25)


def measure(bench: Bench) -> Iterator[Row]:
    model = starter(bench)
    ahead: list[float] = []
    in_step: list[float] = []
    training: list[float] = []
    for k in range(bench.repeats):
        run_dir = _run(bench, f"async-{k + 1}", model, bench.staleness)
        ahead.append(step_seconds(run_dir))
        in_step.append(step_seconds(_run(bench, f"sync-{k + 1}", model, 0)))
        training.append(_learner_alone(run_dir))
        bench.say(f"seconds a step: {ahead[-1]:.2f} asynchronous, {in_step[-1]:.2f} synchronous")
    generating = _generator_alone(bench, model)
    slower = [max(pair) for pair in zip(generating, training, strict=True)]
    note = f"staleness {bench.staleness} against 0, steps {WARM_UP_STEPS + 1} to {bench.steps} of the demo"
    yield Row("overlap: async / sync", "s a step", ahead, in_step, GOAL_OF_SYNCHRONOUS, note)
    yield Row("overlap: async / slower half", "s a step", ahead, slower, GOAL_OF_SLOWER_HALF)
    yield Row("overlap: generator alone", "s a step", generating)
    yield Row("overlap: learner alone", "s a step", training)


def _run(bench: Bench, name: str, model: Path, staleness: int) -> Path:
    return chorus_run(bench, name, f"model.path={model}", f"staleness.target={staleness}")


def _learner_alone(run_dir: Path) -> float:
    """Seconds of a trainer's step on the run's stored rollouts, without its warm-up."""
    config = load_config(run_dir / "config.json")
    seconds: list[float] = []
    with on_cores(place(config, visible_cores(), gpus=[]).learner_cpus):
        crew = DistributedTrainer(config, torch.device("cpu"), None)
        for _, path in stored_steps(RunFolder(run_dir)):
            prepared = make_experience(read_step(path), config)
            parts = minibatches(prepared, config.learner.updates_per_step)
            started = time.monotonic()
            crew.step(parts)
            seconds.append(time.monotonic() - started)
    return sum(seconds[WARM_UP_STEPS:]) / len(seconds[WARM_UP_STEPS:])


def _generator_alone(bench: Bench, model: Path) -> list[float]:
    """Seconds for one step's groups, measured over as many groups as the runs' steps took."""
    config = bench.config(f"model.path={model}", f"staleness.target={bench.staleness}")
    per_step = config.learner.groups_per_step
    steps = bench.steps - WARM_UP_STEPS
    with open_fleet(bench, "overlap-generator", config) as fleet:
        through_the_path(fleet, WARM_UP_STEPS * per_step)
        return [through_the_path(fleet, steps * per_step)[1] / steps for _ in range(bench.repeats)]
