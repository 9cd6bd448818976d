"""The loop on real parts: on-policy runs, replay bit for bit, same seed same draws, more learner ranks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from liverun import LiveRun
from safetensors.torch import load_file

from chorus.cli.main import main
from chorus.learner.rollouts.admission import Admission
from chorus.learner.training.distributed import DistributedTrainer
from chorus.learner.training.experience import make_experience, minibatches
from chorus.protocol.config.load import load_config
from chorus.protocol.config.run import RunConfig
from chorus.protocol.run_folder import checkpoints
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.rollouts import read_step, stored_steps


@pytest.fixture(scope="module")
def on_policy(tmp_path_factory: pytest.TempPathFactory, policy: Path) -> LiveRun:
    """A finished synchronous run with a checkpoint at every step."""
    from liverun import QUICK, end_run, start_run

    run = start_run(
        tmp_path_factory.mktemp("on-policy"),
        f"model.path={policy}",
        *QUICK,
        "run.steps=4",
        "staleness.target=0",
        "staleness.max=0",
        "learner.checkpoint_every=1",
        "learner.keep_checkpoints=9",
        "learner.updates_per_step=2",
    )
    try:
        assert run.finish() == 0, run.tail()
    finally:
        end_run(run)
    return run


def config_of(run: LiveRun) -> RunConfig:
    return load_config(run.folder / "config.json")


def test_with_staleness_0_all_importance_ratios_are_1(on_policy: LiveRun) -> None:
    records = [json.loads(line) for line in (on_policy.folder / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == [1, 2, 3, 4]
    assert max(r["ratio_off_max"] for r in records) <= 1e-3
    assert max(r["staleness_max"] for r in records) == 0
    assert all(r["updates"] == 2 for r in records)


def test_every_token_was_sampled_by_the_weights_that_its_step_trained(on_policy: LiveRun) -> None:
    for step, path in stored_steps(RunFolder(on_policy.folder)):
        for ready in read_step(path):
            assert {run[1] for s in ready.group.samples for run in s.versions} == {step - 1}


def test_a_step_trained_again_from_its_stored_rollouts_gives_the_same_loss_and_weights(on_policy: LiveRun) -> None:
    config = config_of(on_policy)
    folder = on_policy.folder / "checkpoints"
    recorded = {r["step"]: r for r in map(json.loads, (on_policy.folder / "metrics.jsonl").read_text().splitlines())}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the learner had it
    try:
        crew = DistributedTrainer(config, torch.device("cpu"), folder / "step-000002")
        groups = read_step(on_policy.folder / "rollouts" / "step-000003.msgpack.gz")
        parts = minibatches(
            make_experience(groups, config, 2), config.sampling.group_size, config.learner.updates_per_step
        )
        result = crew.step(parts)
    finally:
        torch.set_num_threads(threads)
    assert result.loss == recorded[3]["loss"]
    replayed = crew.trainer.policy.state_dict()
    later = DistributedTrainer(config, torch.device("cpu"), folder / "step-000003")
    for name, tensor in later.trainer.policy.state_dict().items():
        assert torch.equal(tensor, replayed[name]), name


def test_the_replay_command_gives_the_recorded_loss_from_the_nearest_checkpoint(
    on_policy: LiveRun, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(on_policy.folder), "--step", "4"]) == 0
    (line,) = capsys.readouterr().out.strip().splitlines()
    assert line.startswith("step 4: loss ")
    assert ": the same; grad norm " in line
    assert main(["replay", str(on_policy.folder), "--step", "9"]) == 3
    assert "step 9 is not in metrics.jsonl; it has recorded steps 1 to 4" in capsys.readouterr().err


def test_the_same_seed_draws_the_same_problems_and_templates(on_policy: LiveRun) -> None:
    config = config_of(on_policy)
    admission = Admission(config, "again")
    drawn = [admission.at(k)[1] for k in range(32)]
    for _, path in stored_steps(RunFolder(on_policy.folder)):
        for ready in read_step(path):
            task = ready.group.task
            assert (task.problem_id, task.template) == (drawn[task.index].problem.id, drawn[task.index].template)
    other = Admission(config.model_copy(update={"run": config.run.model_copy(update={"seed": 1})}), "other")
    assert [p.problem.id for p in drawn] != [other.at(k)[1].problem.id for k in range(32)]


def test_held_out_problems_are_never_drawn(on_policy: LiveRun) -> None:
    config = config_of(on_policy)
    update = {"evaluation": config.evaluation.model_copy(update={"problems": 400})}
    admission = Admission(config.model_copy(update=update), "x")
    held_out = {task.problem_id for task in admission.evaluation_tasks(0, 0)}
    assert len(held_out) == 400
    assert not held_out & {p.id for p in admission.problems}


def test_the_export_is_the_checkpoint(on_policy: LiveRun) -> None:
    from transformers import AutoModelForCausalLM

    path = checkpoints.latest(on_policy.folder / "checkpoints")
    assert path is not None
    exported = AutoModelForCausalLM.from_pretrained(path / "huggingface").state_dict()
    crew = DistributedTrainer(config_of(on_policy), torch.device("cpu"), path)
    for name, tensor in crew.trainer.policy.hf.state_dict().items():
        assert torch.equal(tensor, exported[name]), name


def test_two_learner_ranks_train_and_sync_like_one(running: Callable[..., LiveRun]) -> None:
    run = running("run.steps=3", "placement.learner_ranks=2", "learner.checkpoint_every=3")
    assert run.finish() == 0, run.tail()
    summary = run.summary()
    assert summary["weights"]["logprob_gap_mean"] <= 1e-3
    assert summary["ledger"]["trained"] == 24


def test_a_collapse_stops_the_run_with_a_checkpoint_and_seed_grpo_has_its_clusters(
    running: Callable[..., LiveRun],
) -> None:
    run = running(
        "run.steps=3",
        "objective.name=seed_grpo",
        "alarms.on_collapse=stop",
        "alarms.entropy_floor=50",  # nats: no policy is above it, so the first step raises the alarm
        "alarms.entropy_steps=1",
    )
    assert run.finish() != 0
    assert "alarms.on_collapse = stop ended the run after step 1: entropy is" in run.tail()
    assert [path.name for path in (run.folder / "checkpoints").glob("step-*")] == ["step-000001"]
    (record,) = map(json.loads, (run.folder / "metrics.jsonl").read_text().splitlines())
    assert record["alarms"]
    ((_, path),) = stored_steps(run.folder)
    samples = [s for ready in read_step(path) for s in ready.group.samples]
    assert all(s.grade.cluster is not None for s in samples)
    # Right answers to one problem are equal, so they share a cluster.
    for ready in read_step(path):
        assert len({s.grade.cluster for s in ready.group.samples if s.grade.accuracy == 1.0}) <= 1


def test_a_collapse_can_go_back_to_an_earlier_checkpoint_and_on_with_new_problems(
    running: Callable[..., LiveRun],
) -> None:
    run = running(
        "run.steps=8",
        "learner.checkpoint_every=1",
        "learner.keep_checkpoints=9",
        "alarms.on_collapse=rollback",
        "alarms.max_rollbacks=1",
        "alarms.entropy_floor=50",
        "alarms.entropy_steps=3",
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
    assert len(trained) == len(set(trained)) == 6 * 8
    groups = [ready.group for _, path in stored_steps(run.folder) for ready in read_step(path)]
    assert len({g.task.index for g in groups}) == len(groups)
    assert max(fence for g in groups for s in g.samples for fence, _, _ in s.versions) == manifests[3].fence
