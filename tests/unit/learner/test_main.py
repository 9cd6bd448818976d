"""`chorus learner` where it does not train: a run that is at its end already, and a GPU without memory."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import redis
import torch

from chorus.learner import main as learner
from chorus.protocol.ledger import FencedError, Keys
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.owner import Owner

RECIPE = """
[run]
steps = 50
[model]
path = "any"
[problems]
train = ["any"]
[templates]
names = ["qwen-math"]
"""
OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 36.00 MiB. GPU 0 has a total capacity of 79.18 GiB of which 5.12 MiB is "
    "free. Process 867 has 18.31 GiB memory in use. If reserved but unallocated memory is large try something."
)


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return ["--config", str(tmp_path / "recipe.toml"), "--run-id", "r", "--run-dir", str(tmp_path)]


@pytest.fixture
def finished(arguments: list[str], tmp_path: Path) -> list[str]:
    """Arguments for a run that has trained all its steps, as a container's engine starts it at the next `up`."""
    (tmp_path / "summary.json").write_text(json.dumps({"steps": 50}))
    return arguments


def test_a_finished_run_that_is_resumed_ends_at_once_with_0(
    finished: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert learner.main([*finished, "--resume"]) == 0
    assert "all 50 steps are trained" in capsys.readouterr().out


def test_a_finished_run_with_more_steps_to_train_goes_on(finished: list[str]) -> None:
    with pytest.raises(CannotGoOn, match=r"redis\.url is empty"):
        learner.main([*finished, "--resume", "--set", "run.steps=51"])


def test_without_resume_an_old_summary_does_not_count(finished: list[str]) -> None:
    with pytest.raises(CannotGoOn, match=r"redis\.url is empty"):
        learner.main(finished)


@pytest.mark.parametrize("shared", [False, True])
def test_a_gpu_without_memory_is_one_line_with_the_mend(
    shared: bool, arguments: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def learn(*_: object) -> int:
        raise torch.OutOfMemoryError(OUT_OF_MEMORY)

    monkeypatch.setattr(learner, "_learn", learn)
    monkeypatch.setattr(learner, "_sole", lambda *_: nullcontext())
    monkeypatch.setattr(learner, "connect", lambda _: redis.Redis())
    placement = ["--set", "placement.learner_gpus=[0]", "--set", f"placement.generator_gpus=[[{int(not shared)}]]"]
    with pytest.raises(CannotGoOn) as caught:
        learner.main([*arguments, *placement])
    said = str(caught.value)
    assert said.startswith("CUDA out of memory. Tried to allocate 36.00 MiB. GPU 0 has a total capacity of 79.18 GiB")
    assert "is free. Lower learner.token_budget (now " in said
    assert "Process" not in said
    assert ("lower generator.gpu_memory" in said) == shared
    assert said.endswith("Then go on with --resume")
    assert any(record.exc_info for record in caplog.records), "where it ran out is in the log"


def test_who_is_fenced_out_says_who_has_taken_the_run_over(
    arguments: list[str], client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fenced(*_: object) -> int:
        client.set(Keys("r").owner, Owner("pod-2", "b", "n", 1, 1).text[:-1] + ', "folder": "/runs/there"}')
        raise FencedError("run 'r': this learner was fenced by learner start 2; it stops")

    monkeypatch.setattr(learner, "_learn", fenced)
    monkeypatch.setattr(learner, "connect", lambda _: client)
    monkeypatch.setattr(learner, "glance", lambda _: client)
    with pytest.raises(
        CannotGoOn, match="it stops: process 1 on host pod-2, folder /runs/there has taken the run over"
    ):
        learner.main(arguments)
