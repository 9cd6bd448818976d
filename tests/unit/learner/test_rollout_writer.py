"""Rollouts on their way to the disk: beside the step, and there before a checkpoint acknowledges them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import redis
import torch
from paperlearner import config_of, start
from storedrun import grade, group
from tinymodel import TEMPLATE

from chorus.learner.metrics import rollout_writer
from chorus.learner.metrics.rollout_writer import RolloutWriter
from chorus.learner.training.distributed import DistributedTrainer
from chorus.learner.training.experience import make_experience, minibatches
from chorus.protocol.config.run import RunConfig
from chorus.protocol.rewards import OPEN, RewardSpec
from chorus.protocol.run_folder import rollouts
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.rollout_rows import Reading

READING = Reading(lambda batch: ["" for _ in batch], lambda batch: ["" for _ in batch], lambda samples: [])


def on_disk(run: RunFolder) -> dict[int, list[Any]]:
    """Step -> its samples' advantages."""
    return {step: pq.read_table(where.path)["advantage"].to_pylist() for step, where in rollouts.stored_steps(run)}


def test_rollouts_are_on_the_disk_before_a_checkpoint_acknowledges_them(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    run, seen = RunFolder(tmp_path), list[tuple[str, set[int]]]()

    def look(name: str) -> None:
        if name in ("manifest", "durable"):
            assert all(None not in advantages for advantages in on_disk(run).values())
            seen.append((name, set(on_disk(run))))

    learner, _ = start(client, config_of(tiny_model, tmp_path), tmp_path, look)
    learner.run()
    assert seen == [(name, set(range(1, last + 1))) for last in (2, 3) for name in ("manifest", "durable")]
    [table] = [pq.read_table(where.path) for step, where in rollouts.stored_steps(run) if step == 3]
    assert [row["reward"] for row in table.to_pylist()] == [2.0, 1.0] * 2, "accuracies 1 and 0, and the format's 1"
    assert table["prompt"][0].as_py().startswith("<|im_start|>"), "special tokens are shown"


def test_a_step_does_not_wait_for_the_disk_and_a_flush_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    free, real = threading.Event(), rollouts.write_table

    def slow(*arguments: Any) -> Path:
        assert free.wait(30)
        return real(*arguments)

    monkeypatch.setattr(rollouts, "write_table", slow)
    run = RunFolder(tmp_path)
    writer = RolloutWriter(run, READING, RewardSpec())
    writer.chosen(1, [group(1, "abel", [([4], grade(1.0))])], 0, OPEN)
    assert on_disk(run) == {}
    free.set()
    writer.flush()
    assert on_disk(run) == {1: [None]}
    writer.close()


def test_a_write_that_failed_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*arguments: Any) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rollouts, "write_table", full)
    writer = RolloutWriter(RunFolder(tmp_path), READING, RewardSpec())
    writer.chosen(1, [group(1, "abel", [([4], grade(1.0))])], 0, OPEN)
    with pytest.raises(OSError, match="No space left"):
        writer.flush()
    writer.close()


def test_figures_of_every_token_are_kept_where_they_are_asked_for(tiny_model: Path) -> None:
    sections = {
        "model": {"path": str(tiny_model), "dtype": "float32", "context": 64},
        "problems": {"train": ["any"], "max_prompt_tokens": 8},
        "templates": {"names": [TEMPLATE]},
        "sampling": {"group_size": 2, "max_tokens": 8},
        "learner": {"groups_per_step": 2, "updates_per_step": 2},
    }
    groups = [group(n, TEMPLATE, [([4, 5 + n], grade(1.0)), ([6, 7, 8], grade(0.0))]) for n in range(2)]
    kept = []
    for asked in (False, True):
        config = RunConfig.model_validate(sections | {"rollouts": {"token_stats": asked}})
        experience = make_experience(groups, config, 0)
        crew = DistributedTrainer(config, torch.device("cpu"), None)
        stats = crew.step(minibatches(experience, config.learner.updates_per_step))
        kept.append(rollout_writer.learned(experience, stats))
    assert "token_ratios" not in kept[0]
    for name, mean in (("token_entropies", "entropy"), ("token_ratios", "ratio")):
        tokens = [np.frombuffer(each, "<f4") for each in kept[1][name]]
        assert [len(each) for each in tokens] == [2, 3, 2, 3]
        assert [float(each.mean()) for each in tokens] == pytest.approx(kept[1][mean], rel=1e-5)
