"""Services started in a working folder whose packages bear our rooms' names. The whole run there: test_vllm.py."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from crowded import crowd, environment
from scripted_run import RECIPE

from chorus.deploy import launcher
from chorus.deploy.placement import place
from chorus.deploy.services import Chosen, reward_server_service, services_of
from chorus.protocol.config.load import load_config
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.processes import Guarded


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    return crowd(tmp_path / "work")


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
