"""The learning rate from step to step, also after a resume and after a way back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tinymodel import save_tiny_model

from chorus.learner.training.batch import TrainingSequence
from chorus.learner.training.checkpoint import Manifest
from chorus.learner.training.distributed import DistributedTrainer
from chorus.protocol.config.run import RunConfig
from chorus.protocol.config.update import UpdateKeys


def crew_of(model: Path, start_from: Path | None = None, **learner: object) -> DistributedTrainer:
    config = RunConfig.model_validate(
        {
            "model": {"path": str(model), "dtype": "float32"},
            "problems": {"train": ["arithmetic:chain?max=3&split=train"]},
            "templates": {"names": ["qwen-math"]},
            "run": {"steps": 6},
            "learner": {"lr": 1e-3, "warmup_steps": 2, "updates_per_step": 2, "adam_eps": 1e-5} | learner,
        }
    )
    return DistributedTrainer(config, torch.device("cpu"), start_from)


def minibatches() -> list[list[TrainingSequence]]:
    prompt, completion = np.array([5, 6, 7], dtype=np.int32), np.array([8, 9], dtype=np.int32)
    return [[TrainingSequence(prompt, completion, np.full(2, -3.0, dtype=np.float32), 1.0)]] * 2


def test_the_rate_rises_over_the_first_updates_and_goes_on_rising_after_a_resume(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model")
    crew = crew_of(model)
    assert crew.trainer.optimizer.param_groups[0]["eps"] == 1e-5
    assert crew.step(minibatches()).lr == pytest.approx(0.5e-3)
    saved = crew.save(tmp_path / "checkpoints", Manifest(1, 0, {})).wait()
    resumed = crew_of(model, saved)
    assert [resumed.step(minibatches()).lr for _ in range(2)] == pytest.approx([1e-3, 1e-3])
    assert crew.step(minibatches()).lr == pytest.approx(1e-3)


def test_a_rate_that_falls_is_that_of_the_run_s_step_after_a_resume_and_after_a_way_back(tmp_path: Path) -> None:
    """Four steps of two updates from 1e-3 to 2e-4: after the warm-up each begins 1e-4 lower than the one before."""
    model, how = save_tiny_model(tmp_path / "model"), {"lr_schedule": "linear", "lr_floor": 2e-4}
    crew = crew_of(model, **how)
    rates = [crew.step(minibatches()).lr for _ in range(2)]
    saved = crew.save(tmp_path / "checkpoints", Manifest(2, 0, {})).wait()
    rates += [crew.step(minibatches()).lr for _ in range(2)]
    assert rates == pytest.approx([0.5e-3, 1e-3, 0.9e-3, 0.7e-3])
    resumed = crew_of(model, saved, **how)
    assert [resumed.step(minibatches()).lr for _ in range(4)] == pytest.approx([0.9e-3, 0.7e-3, 0.5e-3, 0.3e-3])
    crew.load(saved)
    assert crew.step(minibatches()).lr == pytest.approx(0.5e-3), "weights went back, the run did not"


def test_cosine_is_half_way_down_in_the_middle_and_stays_at_the_floor() -> None:
    keys = UpdateKeys(lr=1.0, lr_schedule="cosine", lr_floor=0.2, warmup_steps=10)
    rates = [keys.rate(step, 30, step + 1) for step in (0, 9, 10, 15, 20, 25, 30, 45)]
    down = 0.2 + 0.8 * (1 - 2**-0.5) / 2
    assert rates == pytest.approx([0.1, 1.0, 1.0, 1.2 - down, 0.6, down, 0.2, 0.2])


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"lr": 1e-6, "lr_floor": 1e-5, "lr_schedule": "linear"}, "lr_floor .1e-05. is above lr .1e-06.: lower it"),
        ({"lr_floor": 1e-7}, "a constant rate never falls: set lr_schedule"),
    ],
)
def test_a_floor_that_no_rate_reaches_is_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        UpdateKeys(**keys)
