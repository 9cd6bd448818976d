"""`chorus plan` against a real run: scripted engines of a fixed speed, everything else as it is.

One run, whose fleet grows from one generator to three. The simulation is calibrated on what the run recorded with one
generator alone, and must then tell the samples a second of all three fleets.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from liverun import ROOT, LiveRun, end_run
from scripted_run import RECIPE
from scriptedlive import SUPPORT, environment

from deploy.simulator.calibrate import calibrate
from deploy.simulator.forecast import forecast
from deploy.simulator.pace import groups_of
from learner.figures import read_records
from protocol.config import load_config

pytestmark = pytest.mark.slow
TOLERANCE = 0.15
STEPS = {1: 6, 2: 9, 3: 12}  # to measure, by number of generators
ENGINE = {
    "CHORUS_TEST_ENGINE": "rated.py",
    "CHORUS_TEST_STEP_MS": "30",
    "CHORUS_TEST_SEQUENCE_MS": "2.5",
    "CHORUS_TEST_LENGTHS": "6..16",
}


@pytest.fixture
def run(tmp_path: Path, tiny_model: Path) -> Iterator[LiveRun]:
    """Two groups at once in each generator, so that one alone can't take all that is outstanding."""
    runs = tmp_path / "runs"
    runs.mkdir()
    text = RECIPE.format(runs=runs, steps=1_000_000, model=tiny_model, replicas=1)
    text = text.replace("[generator]\n", "[generator]\ngroups_in_flight = 2\n")
    text = text.replace("checkpoint_every = 5", "checkpoint_every = 1000000").replace("target = 1", "target = 2")
    recipe = tmp_path / "rated.toml"
    recipe.write_text(text)
    argv = [sys.executable, str(SUPPORT / "scripted_run.py"), str(recipe)]
    with (runs / "output.log").open("wb") as log:
        process = subprocess.Popen(argv, cwd=ROOT, stdout=log, stderr=log, env=environment(0.0) | ENGINE)
    run = LiveRun(process, runs, runs / "output.log")
    yield run
    end_run(run)


def one_more(run: LiveRun, name: str) -> subprocess.Popen[bytes]:
    argv = [sys.executable, str(SUPPORT / "rated.py"), "generator", "--config", str(run.folder / "config.json")]
    argv += ["--run-id", run.folder.name, "--name", name]
    with (run.folder / "logs" / f"{name}.log").open("wb") as log:
        return subprocess.Popen(argv, cwd=ROOT, stdout=log, stderr=log, env=environment(0.0) | ENGINE)


def measured(run: LiveRun, generators: int) -> float:
    """Samples a second over the steps to come, once as many generators are at work and a window has passed."""
    run.until(lambda: sum(m.state == "ready" for m in run.members()) == generators, f"{generators} generators at work")
    first = run.step() + 3
    run.wait_step(first + STEPS[generators], 60)
    records = {r["step"]: r for r in read_records(run.folder)}
    seconds = records[first + STEPS[generators]]["time"] - records[first]["time"]
    return STEPS[generators] * 16 / seconds


def test_the_predicted_samples_a_second_of_one_to_three_engines_are_within_15_percent(run: LiveRun) -> None:
    run.wait_step(1, 120)
    seen = {1: measured(run, 1)}
    config, known = load_config(run.folder / "config.json"), calibrate(run.folder)
    others = []
    try:
        for generators in (2, 3):
            others.append(one_more(run, f"more-{generators}"))
            seen[generators] = measured(run, generators)
    finally:
        for process in others:
            process.kill()
            process.wait()

    groups = groups_of(known.lengths, config.sampling.group_size, config.sampling.max_tokens, seed=0)
    told = {n: forecast(config, replace(known.pace, groups=groups), n).samples_per_s for n in seen}
    print("samples/s by generators, measured and predicted:", seen, told)  # -s shows it
    for n in seen:
        assert abs(told[n] / seen[n] - 1) <= TOLERANCE, f"{n} generators: {seen} measured, {told} predicted"
    assert seen[3] > 1.7 * seen[1], "the fleet mattered"
