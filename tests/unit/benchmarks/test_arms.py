"""Experiments of arms: each arm is a recipe that loads, and the table has what their runs came to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from chorus.benchmarks.experiments import (
    acereason,
    adapters,
    arms,
    critique,
    crossthink,
    delta,
    interleaved,
    lean,
    prorl,
    short,
    sparkle,
    staged,
)
from chorus.benchmarks.experiments.arms import RECIPES, Settings, evaluated, finished, report, trained
from chorus.protocol.config.load import load_config
from chorus.protocol.config.run import LearnerSection, RunConfig
from chorus.protocol.run_folder.folder import RunFolder

EXPERIMENTS = {"short": short, "prorl": prorl, "interleaved": interleaved}
EXPERIMENTS |= {
    "critique": critique,
    "acereason": acereason,
    "crossthink": crossthink,
    "staged": staged,
    "sparkle": sparkle,
    "lean": lean,
    "adapters": adapters,
}


def arm(name: str, of: str) -> RunConfig:
    settings = Settings.read(name)
    keys = {**settings.always, **settings.arms[of]}
    return load_config(
        RECIPES / f"{settings.recipe}.toml", [f"{key}={arms._toml(value)}" for key, value in keys.items()]
    )


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_arm_is_a_recipe_of_its_own_from_the_same_policy(name: str) -> None:
    found = [arm(name, of) for of in Settings.read(name).arms]
    assert all(a != b for k, a in enumerate(found) for b in found[:k])
    assert len({(c.model.path, tuple(c.model.starter_templates)) for c in found}) == 1
    assert Settings.read(name).seeds == (0, 1, 2)


def test_the_arms_switch_what_they_say() -> None:
    assert arm("short", "plain").reward.short is None
    assert not arm("prorl", "stalled").reference.resets
    assert [arm("prorl", of).reference.reset_optimizer for of in ("kept", "anew")] == [False, True]
    assert arm("interleaved", "think_then_answer").templates.names == ["deepseek-r1"]
    assert [len(arm("acereason", of).curriculum.stages) for of in ("math_then_code", "mixed")] == [2, 0]
    assert arm("crossthink", "choice_only").problems.train == ["arithmetic:choice?split=train"]
    assert arm("staged", "one_stage").curriculum.stages == []
    assert arm("sparkle", "behind_the_problem").curriculum.hints.place == "user"
    assert arm("lean", "moments_of_8_bits").learner.optimizer == "adamw8bit"
    recipe = load_config(RECIPES / "smollm2_lora.toml")
    assert (arm("adapters", "adapters").model, arm("adapters", "adapters").learner) == (recipe.model, recipe.learner)
    default_lr = LearnerSection().lr
    assert [arm("delta", of).learner.lr for of in ("recipe", "default_rate")] == [1e-5, default_lr]
    assert [lora and lora.rank for lora in (arm("lean", of).model.lora for of in ("whole", "adapters"))] == [None, 16]


def run(folder: Path, name: str, steps: int, accuracy: float, records: list[dict[str, Any]]) -> RunFolder:
    made = RunFolder(folder / name)
    made.path.mkdir()
    made.summary.write_text(json.dumps({"steps": steps, "wall_seconds": 120}))
    made.evaluation("after").write_text(json.dumps({"accuracy": accuracy}))
    made.metrics.write_text("".join(json.dumps({"step": k, **r}) + "\n" for k, r in enumerate(records, 1)))
    return made


def test_the_table_has_the_mean_and_the_range_of_the_runs_that_ended(tmp_path: Path) -> None:
    run(tmp_path, "a-seed-0-20260101", 5, 0.5, [{"x": 1.0}] * 5)
    run(tmp_path, "a-seed-1-20260101", 5, 0.7, [{"x": 2.0}, *[{"x": None}] * 4])
    run(tmp_path, "b-seed-0-20260101", 4, 0.9, [{"x": 9.0}] * 4)  # cut short
    figures = {"accuracy": evaluated("after", "accuracy"), "x": trained("x")}
    lines = report(tmp_path, ["a", "b"], [0, 1], 5, figures).splitlines()
    assert "2 of a, 0 of b" in lines[0]
    assert lines[2] == "| | a | b |"
    assert "| accuracy | 0.600 (0.500-0.700) | - |" in lines
    assert "| x | 1.500 (1.000-2.000) | - |" in lines
    assert "| minutes | 2.000 (2.000-2.000) | - |" in lines
    assert finished(tmp_path, "b", 0, 5) is None


def test_the_longest_rise_of_the_kl_ends_at_a_reset(tmp_path: Path) -> None:
    grows = [{"reference_k2": k / 100} for k in range(40)]
    assert prorl.longest_rise(run(tmp_path, "grows", 40, 0.0, grows)) == 30
    resets = [{"reference_k2": (k % 20) / 100} for k in range(40)]
    assert prorl.longest_rise(run(tmp_path, "resets", 40, 0.0, resets)) == 10


def test_accuracy_by_kind_is_that_of_the_evaluations_and_of_the_first_validation(tmp_path: Path) -> None:
    made = run(tmp_path, "a-seed-0-20260101", 5, 0.5, [])
    made.evaluation("after").write_text(json.dumps({"accuracy": 0.5, "by_kind": {"math": 0.25, "code": 0.75}}))
    lines = [{"step": 20, "by_kind": {"math": 0.5}}, {"step": 40, "by_kind": {"math": 0.9}}]
    made.validations.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [acereason.of_kind("after", kind)(made) for kind in ("math", "code", "text")] == [0.25, 0.75, None]
    assert acereason.half_way("math")(made) == 0.5


def test_accuracy_by_what_was_given_is_of_the_groups_that_had_it(tmp_path: Path) -> None:
    records = [{"by_hint": {"0": {"accuracy": 0.0}, "1": {"accuracy": a}}} for a in (0.5, 1.0)]
    made = run(tmp_path, "a-seed-0-20260101", 2, 0.5, records)
    assert [sparkle.given(share)(made) for share in ("0", "1", "0.5")] == [0.0, 0.75, None]


def test_what_travels_is_the_adapter_where_there_is_one(tmp_path: Path) -> None:
    made = run(tmp_path, "a-seed-0-20260101", 5, 0.5, [{"accuracy": k / 10} for k in range(10)])
    exported = made.path / "checkpoints" / "step-5" / "huggingface"
    exported.mkdir(parents=True)
    (exported / "model.safetensors").write_bytes(bytes(4096))
    assert lean.sent_kib(made) == 4.0
    adapter = exported.with_name("adapter")
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(bytes(1024))
    assert lean.sent_kib(made) == 1.0
    assert lean.accuracy(6)(made) == pytest.approx(0.7)


def test_a_delta_is_of_the_values_that_round_to_others(tmp_path: Path) -> None:
    """Of 1,000, of which 20 move by a half, and 20 by less than bfloat16 knows."""
    made = run(tmp_path, "recipe-seed-0-20261130", 2, 0.5, [])
    weights = torch.ones(1000)
    for step in (1, 2):
        folder = made.path / "checkpoints" / f"step-00000{step}" / "huggingface"
        folder.mkdir(parents=True)
        save_file({"w": weights.clone()}, folder / "model.safetensors")
        weights[:20] += 0.5
        weights[20:40] += 1e-4
    found = {said: figure(made) for said, figure in delta.FIGURES.items()}
    assert found["values that change, %"] == pytest.approx(2.0)
    assert found["whole, MB"] == pytest.approx(2000e-6)
    assert found["delta, MB"] == pytest.approx((20 * 3 + 1) / 1e6), "two bytes a value, one a gap, one for the form"
    assert found["delta at 100 Mbit/s, s"] == pytest.approx(8 * 61 / 1e8)
