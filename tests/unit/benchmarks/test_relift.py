"""The experiment's arms, and where they are compared, from run folders made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chorus.benchmarks.experiments import relift
from chorus.protocol.config.load import load_config
from chorus.protocol.run_folder.checkpoints import Manifest, folder_of, write_manifest


def run(folder: Path, trained: int, supervised: dict[int, int], steps: int = 20) -> Path:
    """`trained` tokens a step, `supervised` ones after some; checkpoints every five steps."""
    folder.mkdir()
    tokens = {n: {"trained_tokens": trained, "supervised_tokens": supervised.get(n)} for n in range(1, steps + 1)}
    records = [{"step": n} | counts for n, counts in tokens.items()]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    for step in range(5, steps + 1, 5):
        path = folder_of(folder / "checkpoints", step)
        (path / "state").mkdir(parents=True)
        write_manifest(path, Manifest(step, 1, {}))
    return folder


def test_equal_tokens_are_those_of_rollouts_and_of_solutions(tmp_path: Path) -> None:
    few = run(tmp_path / "few", 100, {})
    many = run(tmp_path / "many", 100, {2: 450, 12: 100})
    assert relift.tokens_by_step(few)[-1] == 2000
    assert relift.tokens_by_step(many)[1] == 650
    assert relift.step_at(many, 2000) == 10, "1,450 by then, and 2,050 after step 15"
    assert relift.step_at(few, 2000) == 20
    assert relift.step_at(few, 1) == 5, "there is no earlier one"


def test_every_arm_of_the_settings_is_a_recipe_that_can_be_run(tmp_path: Path) -> None:
    settings = relift.read_settings()
    assert (list(settings.arms), list(settings.seeds)) == (["alone", "relift", "questa"], [0, 1, 2])
    enabled = {}
    for name, arm in settings.arms.items():
        overrides = [f"{key}={json.dumps(value)}" for key, value in arm.set.items()]
        stages = f"curriculum.stages={relift.stages_of(arm.stages, settings.steps)}"
        rates = f"curriculum.pass_rates={json.dumps(['rates.jsonl'])}"
        steps = f"run.steps={settings.steps}"
        config = load_config(relift.RECIPES / f"{arm.recipe}.toml", [*overrides, rates, stages, steps], environment={})
        enabled[name] = (config.relift.enabled, config.curriculum.gives_hints)
    assert enabled == {"alone": (False, False), "relift": (True, False), "questa": (False, True)}


@pytest.mark.parametrize("key", ["learner", "sampling", "staleness", "objective", "reward", "model", "problems"])
def test_arms_differ_in_nothing_but_the_method(key: str) -> None:
    recipes = {arm.recipe for arm in relift.read_settings().arms.values()}
    same = ["learner.checkpoint_every=5"]  # as the experiment sets it in every arm
    sections = [getattr(load_config(relift.RECIPES / f"{name}.toml", same, environment={}), key) for name in recipes]
    assert all(section == sections[0] for section in sections)
