"""The learning rate of the first steps, also after a resume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tinymodel import save_tiny_model

from chorus.learner.training.batch import TrainingSequence
from chorus.learner.training.checkpoint import Manifest
from chorus.learner.training.distributed import DistributedTrainer
from chorus.protocol.config.run import RunConfig


def crew_of(model: Path, start_from: Path | None = None) -> DistributedTrainer:
    config = RunConfig.model_validate(
        {
            "model": {"path": str(model), "dtype": "float32"},
            "problems": {"train": ["arithmetic:chain?max=3&split=train"]},
            "templates": {"names": ["qwen-math"]},
            "learner": {"lr": 1e-3, "warmup_steps": 2, "updates_per_step": 2, "adam_eps": 1e-5},
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
    saved = crew.save(tmp_path / "checkpoints", Manifest(1, 0, {}))
    resumed = crew_of(model, saved)
    assert [resumed.step(minibatches()).lr for _ in range(2)] == pytest.approx([1e-3, 1e-3])
    assert crew.step(minibatches()).lr == pytest.approx(1e-3)
