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
from chorus.learner.training.control import Decisions
from chorus.learner.training.distributed import DistributedTrainer
from chorus.learner.training.experience import make_experience, minibatches
from chorus.protocol.config.run import RunConfig
from chorus.protocol.config.settings import StepSettings

STEPS = 4
# What a run may have decided, as its records say it: before step 3 the reference was reset, step 4 had a closed gate.
TOLD: dict[int, dict[str, Any]] = {
    3: {"reference_reset": "every: 2 steps since the last one", "kl_coefficient": 0.25},
    4: {"short_gate": 0, "kl_coefficient": 0.125, "entropy_coefficient": 0.1},
}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "ages": {"proximal": "loglinear", "weight": "token", "weight_cap": 2.0},
    "reference": {"name": "reinforce_pp", "kl_in": "reward", "kl_estimator": "k1", "kl_coefficient": 0.5},
    "resets, gates and controllers": {"name": "grpo", "kl_coefficient": 0.5, "kl_target": 0.1},
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
            "reference": {"every": 2} if "kl_target" in objective else {},
            "reward": {"short": {"tolerance_tokens": 0, "only_right": False}} if "kl_target" in objective else {},
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
            told = TOLD.get(n, {}) if config.reference.resets else {}
            decided = Decisions.of_record(told, config.objective)
            if decided.reset:
                crew.reset_reference(True)
            parts = minibatches(make_experience(groups, config, n - 1, crew.reference, decided), 1)
            result = crew.step(parts, StepSettings.of(config, decided.coefficients))
            record = {"step": n, "loss": result.loss, "grad_norm": max(result.grad_norms)} | told
            file.write(json.dumps(record) + "\n")
    torch.set_num_threads(threads)
    assert [(r.step, r.agrees) for r in replay(folder, STEPS)] == [(n, True) for n in range(1, STEPS + 1)]
