"""A step is replayed as it was trained, also where the loss asks how old a token is or what the reference thinks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from storedrun import grade, group, run_folder
from tinymodel import TEMPLATE

from chorus.cli.inspect.replay import replay
from chorus.learner.training.distributed import DistributedTrainer
from chorus.learner.training.experience import make_experience, minibatches
from chorus.protocol.config.run import RunConfig

STEPS = 4
OBJECTIVES: dict[str, dict[str, Any]] = {
    "ages": {"proximal": "loglinear", "weight": "token", "weight_cap": 2.0},
    "reference": {"name": "reinforce_pp", "kl_in": "reward", "kl_estimator": "k1", "kl_coefficient": 0.5},
}


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_the_replayed_loss_is_the_recorded_one(objective: dict[str, Any], tiny_model: Path, tmp_path: Path) -> None:
    config = RunConfig.model_validate(
        {
            "model": {"path": str(tiny_model), "dtype": "float32", "context": 64},
            "problems": {"train": ["any"], "max_prompt_tokens": 8},
            "templates": {"names": [TEMPLATE]},
            "sampling": {"group_size": 2, "max_tokens": 8},
            "learner": {"groups_per_step": 1, "lr": 0.01},
            "objective": objective,
        }
    )
    steps = [[group(n, TEMPLATE, [([4, 5 + n], grade(1.0)), ([6, 7, 8], grade(0.0))])] for n in range(STEPS)]
    folder = run_folder(tmp_path / "run", config, steps)
    torch.manual_seed(config.run.seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    crew = DistributedTrainer(config, torch.device("cpu"), None)
    with (folder / "metrics.jsonl").open("w") as file:
        for n, groups in enumerate(steps, 1):  # as the learner trains them: by weights of step n - 1
            parts = minibatches(make_experience(groups, config, n - 1, crew.reference), 1)
            result = crew.step(parts)
            record = {"step": n, "stage_number": None, "loss": result.loss, "grad_norm": max(result.grad_norms)}
            file.write(json.dumps(record) + "\n")
    torch.set_num_threads(threads)
    assert [(r.step, r.agrees) for r in replay(folder, STEPS)] == [(n, True) for n in range(1, STEPS + 1)]
