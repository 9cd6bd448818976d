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
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.exits import CannotGoOn

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
    config = config_of(tiny_model, objective)
    folder = trained(config, tmp_path / "run")
    assert [(r.step, r.agrees) for r in replay(folder, STEPS)] == [(n, True) for n in range(1, STEPS + 1)]


def test_a_step_is_replayed_with_the_settings_that_it_was_trained_with(tiny_model: Path, tmp_path: Path) -> None:
    """A resume after step 2 brought another rate; no checkpoint is kept."""
    config = config_of(tiny_model, {"name": "grpo"})
    run = RunFolder(trained(config, tmp_path / "run"))
    faster = config.model_copy(update={"learner": config.learner.model_copy(update={"lr": 0.5})})
    run.config.write_text(faster.model_dump_json())
    run.note_config(0, config.model_dump(mode="json"))
    run.note_config(3, faster.model_dump(mode="json"))
    run.note_config(2, faster.model_dump(mode="json"))  # the step after was undone
    assert [p.name for p in sorted(run.path.glob("configs/*"))] == ["after-000000.json", "after-000002.json"]
    assert [r.agrees for r in replay(run.path, 2)] == [True, True]
    with pytest.raises(CannotGoOn, match=r"a resume has changed what step 3 is trained with \(learner\)"):
        replay(run.path, 3)


def config_of(model: Path, objective: dict[str, Any]) -> RunConfig:
    return RunConfig.model_validate(
        {
            "model": {"path": str(model), "dtype": "float32", "context": 64},
            "problems": {"train": ["any"], "max_prompt_tokens": 8},
            "templates": {"names": [TEMPLATE]},
            "sampling": {"group_size": 2, "max_tokens": 8},
            "learner": {"groups_per_step": 1, "lr": 0.01},
            "objective": objective,
            "reference": {"every": 2} if "kl_target" in objective else {},
            "reward": {"short": {"tolerance_tokens": 0, "only_right": False}} if "kl_target" in objective else {},
        }
    )


def trained(config: RunConfig, path: Path) -> Path:
    """The folder of a run, its records as the learner makes them: steps are trained by the weights of those before."""
    steps = [[group(n, TEMPLATE, [([4, 5 + n], grade(1.0)), ([6, 7, 8], grade(0.0))])] for n in range(STEPS)]
    folder = run_folder(path, config, steps)
    torch.manual_seed(config.run.seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    crew = DistributedTrainer(config, torch.device("cpu"), None)
    with (folder / "metrics.jsonl").open("w") as file:
        for n, groups in enumerate(steps, 1):
            told = TOLD.get(n, {}) if config.reference.resets else {}
            decided = Decisions.of_record(told, config.objective)
            if decided.reset:
                crew.reset_reference(True)
            parts = minibatches(make_experience(groups, config, n - 1, crew.reference, decided), 1)
            result = crew.step(parts, StepSettings.of(config, decided.coefficients))
            record = {"step": n, "loss": result.loss, "grad_norm": max(result.grad_norms)} | told
            file.write(json.dumps(record) + "\n")
    torch.set_num_threads(threads)
    return folder
