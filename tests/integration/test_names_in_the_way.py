"""A run in a working folder whose packages bear our rooms' names, and those of libraries: people's repositories do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from liverun import LiveRun, end_run
from scripted_run import RECIPE
from tinymodel import save_tiny_model

from chorus.deploy import launcher
from chorus.deploy.placement import place
from chorus.deploy.services import Chosen, reward_server_service, services_of
from chorus.protocol.config.load import load_config
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.processes import Guarded

ROOMS = sorted(path.parent.name for path in (Path(__file__).parents[2] / "src" / "chorus").glob("*/__init__.py"))
LIBRARIES = ("redis", "torch", "vllm", "uvicorn", "sympy", "msgpack", "numpy")


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    """Every package in it raises; `chorus` is the plain folder that `git clone` makes."""
    folder = tmp_path / "work"
    for name in (*ROOMS, *LIBRARIES):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(f"raise RuntimeError('the folder {name} stood in the way')\n")
    (folder / "chorus" / "learner").mkdir(parents=True)
    return folder


def environment() -> dict[str, str]:
    """As a person has it: no PYTHONPATH and no safe path of the tests' own."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "CHORUS_"))}


@pytest.mark.slow
def test_the_first_step_is_trained_with_a_real_vllm(crowded: Path) -> None:
    model = save_tiny_model(crowded / "model", hidden_size=64)
    (crowded / "my.toml").write_text(RECIPE.format(runs="runs", steps=1, model="model", replicas=1))
    sets = ['generator.vllm_args=["--enforce-eager"]', "staleness.target=0", "generator.lease_s=15"]
    sets += ["learner.sync_deadline_s=60", "learner.head_deadline_s=60"]
    argv = [str(Path(sys.executable).with_name("chorus")), "run", "my.toml", *(f"--set={item}" for item in sets)]
    output = crowded / "output.log"
    with output.open("wb") as log:
        process = subprocess.Popen(argv, cwd=crowded, stdout=log, stderr=log, env=environment())
    run = LiveRun(process, crowded / "runs", output)
    try:
        assert run.finish(600) == 0, run.tail()
    finally:
        end_run(run)
    assert model.is_dir()
    assert "step 1/1" in output.read_text()
    assert run.summary()["steps"] == 1
    record = json.loads((run.folder / "metrics.jsonl").read_text())
    assert record["groups"] == 4  # each of them graded
    assert "stood in the way" not in run.tail()


@pytest.mark.slow
def test_every_service_s_command_starts_there_two_ranks_of_the_learner_among_them(crowded: Path) -> None:
    sets = ["placement.learner_ranks=2", "redis.url=redis://127.0.0.1:1/0", "reward.url=http://127.0.0.1:1"]
    (crowded / "my.toml").write_text(RECIPE.format(runs="runs", steps=1, model="model", replicas=1))
    config = load_config(crowded / "my.toml", sets)
    placement = place(config, [0, 1], [])
    assert placement.learner_ranks == 2
    chosen = Chosen(config, RunFolder(crowded / "run"), placement, False, True, False)
    started = []
    for service in (reward_server_service(chosen), *services_of(chosen)):
        words = [*service.argv[: service.argv.index("chorus.cli.main") + 2], "--help"]
        started.append(
            subprocess.Popen(words, cwd=crowded, env=service.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        )
    for process in started:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
        assert b"usage: chorus" in output.lower()


def test_the_starter_s_builder_starts(crowded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (crowded / "run" / "logs").mkdir(parents=True)
    asked: list[list[str]] = []

    def see(argv: list[str], **_: object) -> Guarded:
        asked.append(list(argv))
        raise InterruptedError

    monkeypatch.setattr(launcher, "spawn_guarded", see)
    with pytest.raises(InterruptedError):
        launcher._build_starter(RunFolder(crowded / "run"), crowded / "cache", lambda _: None)
    command = asked[0][: asked[0].index("starter") + 1]
    result = subprocess.run(
        [*command, "--help"], cwd=crowded, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
