"""A run whose learner is two ranks. The engines are scripted and check the weights that they get."""

from __future__ import annotations

from pathlib import Path

import pytest
from liverun import end_run
from scriptedlive import start_scripted_run

from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.rollouts import read_step, stored_steps


@pytest.mark.slow
def test_two_ranks_train_and_sync_like_one_and_seed_grpo_has_its_clusters(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHORUS_TEST_CHECKS_WEIGHTS", "1")
    overrides = ("placement.learner_ranks=2", "learner.checkpoint_every=3", "objective.name=seed_grpo")
    run = start_scripted_run(tmp_path, tiny_model, 3, 1, 0.05, overrides=overrides)
    try:
        assert run.finish() == 0, run.tail()
    finally:
        end_run(run)
    summary = run.summary()
    assert summary["weights"]["logprob_gap_mean"] <= 1e-3
    assert summary["ledger"]["trained"] == 3 * 4
    for _, path in stored_steps(RunFolder(run.folder)):
        for group in (ready.group for ready in read_step(path)):
            assert all(sample.grade.cluster is not None for sample in group.samples)
            # Right answers to one problem are equal, so they share a cluster.
            assert len({s.grade.cluster for s in group.samples if s.grade.accuracy == 1.0}) <= 1
