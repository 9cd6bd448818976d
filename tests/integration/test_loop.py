"""What a run does beside the common way: more learner ranks, a collapse, the way back.

The engines are scripted and check the weights that they get; the common way has the real ones, in test_vllm.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from liverun import LiveRun, end_run
from safetensors.torch import load_file
from scriptedlive import start_scripted_run

from chorus.protocol.run_folder import checkpoints
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.rollouts import read_step, stored_steps

pytestmark = pytest.mark.slow


@pytest.fixture
def running(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., LiveRun]]:
    """Start a run of scripted engines that ends with the test: 4 groups of 4 samples a step."""
    started: list[LiveRun] = []
    monkeypatch.setenv("CHORUS_TEST_CHECKS_WEIGHTS", "1")

    def start(steps: int, *overrides: str) -> LiveRun:
        started.append(start_scripted_run(tmp_path, tiny_model, steps, 1, 0.05, overrides=overrides))
        return started[-1]

    yield start
    for run in started:
        end_run(run)


def test_two_learner_ranks_train_and_sync_like_one(running: Callable[..., LiveRun]) -> None:
    run = running(3, "placement.learner_ranks=2", "learner.checkpoint_every=3")
    assert run.finish() == 0, run.tail()
    summary = run.summary()
    assert summary["weights"]["logprob_gap_mean"] <= 1e-3
    assert summary["ledger"]["trained"] == 3 * 4


def test_a_collapse_goes_back_to_an_earlier_checkpoint_and_on_with_new_problems_and_seed_grpo_has_its_clusters(
    running: Callable[..., LiveRun],
) -> None:
    run = running(
        8,
        "objective.name=seed_grpo",
        "learner.checkpoint_every=1",
        "learner.keep_checkpoints=9",
        "alarms.on_collapse=rollback",
        "alarms.max_rollbacks=1",
        "alarms.entropy_floor=50",
        "alarms.entropy_steps=3",
        # The scripted engine's log-probabilities are not the policy's: these would see a collapse of their own.
        *(f"alarms.{name}=0" for name in ("clip_fraction", "effective_share", "grad_norm_factor", "accuracy_drop")),
    )
    assert run.finish() != 0
    assert "step 3: back to the weights and the optimizer of step 1" in (run.folder / "logs/learner.log").read_text()
    assert "alarms.on_collapse = rollback ended the run after step 6 (it went back 1 times before)" in run.tail()
    folders = sorted((run.folder / "checkpoints").glob("step-*"))
    manifests = {m.step: m for m in map(checkpoints.read_manifest, folders)}
    assert {step: m.rolled_back_to for step, m in manifests.items()} == dict.fromkeys(range(1, 7)) | {3: 1}
    weights = [load_file(folder / "huggingface" / "model.safetensors") for folder in folders]
    assert all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])
    assert not all(torch.equal(weights[1][name], weights[2][name]) for name in weights[0])
    assert manifests[3].fence == manifests[2].fence + 1
    trained = [id for m in manifests.values() for id in m.all_entries]
    assert len(trained) == len(set(trained)) == 6 * 4
    groups = [ready.group for _, path in stored_steps(RunFolder(run.folder)) for ready in read_step(path)]
    assert len({g.task.index for g in groups}) == len(groups)
    assert max(fence for g in groups for s in g.samples for fence, _, _ in s.versions) == manifests[3].fence
    samples = [sample for group in groups for sample in group.samples]
    assert all(sample.grade.cluster is not None for sample in samples)
    # Right answers to one problem are equal, so they share a cluster.
    for group in groups:
        assert len({s.grade.cluster for s in group.samples if s.grade.accuracy == 1.0}) <= 1
    assert (run.folder / "metrics.jsonl").read_text().count('"alarms"') == 6
