"""The real vLLM: under `chorus eval`, and in an on-policy run.

Here and in test_kill.py alone; what needs an engine, but not this one, has a scripted one.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from crowded import IN_THE_WAY, crowd, start_demo_there
from liverun import LiveRun, end_run
from sender import Sender

from chorus.cli.evaluate.engine import RestartingEngine, started_vllm
from chorus.cli.main import main
from chorus.generator import vllm_engine
from chorus.generator.engine import Completion
from chorus.generator.vllm_engine import VllmEngine
from chorus.generator.weight_sync import WeightSync
from chorus.learner.rollouts.admission import Admission
from chorus.learner.training.distributed import DistributedTrainer, Snapshot
from chorus.learner.training.experience import make_experience, minibatches
from chorus.problems.rendering import Renderer, load_tokenizer
from chorus.problems.sources import load_problems
from chorus.protocol.config.load import load_config
from chorus.protocol.config.lora import LoraSection
from chorus.protocol.config.run import RunConfig
from chorus.protocol.messages import SyncOffer, Version
from chorus.protocol.metrics.processes import GeneratorMetrics
from chorus.protocol.run_folder import checkpoints
from chorus.protocol.run_folder.files import read_lines
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.rollouts import read_step, stored_steps
from chorus.protocol.runtime.exits import CANNOT_GO_ON
from chorus.protocol.templates.load import choose_templates

pytestmark = pytest.mark.slow
LAYERS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
SOURCE = "arithmetic:chain?split=heldout"
MAX_TOKENS = 48
DEADLINE_S = 60.0
WITH_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, there is none")


def config_for_sync(model: Path) -> RunConfig:
    return RunConfig.model_validate(
        {
            "model": {"path": str(model), "dtype": "float32", "context": 64},
            "problems": {"train": ["none"], "max_prompt_tokens": 16},
            "templates": {"names": ["qwen-math"]},
            "sampling": {"group_size": 2, "max_tokens": 16},
        }
    )


@torch.no_grad()
def _disturb(crew: DistributedTrainer, seed: int, share: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in crew.trainer.policy.parameters():
        chosen = torch.rand(parameter.shape, generator=generator) <= share
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator) * chosen)


# -- `chorus eval` ---------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, WITH_CUDA])])
def test_weights_that_came_in_a_sync_are_those_that_answer_greedily_as_transformers_does(
    device: str, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vLLM of `chorus eval` merges adapters, takes other weights twice, refuses others, has its own at last."""
    own = max(os.sched_getaffinity(0))

    @asynccontextmanager
    async def synced(config: RunConfig, log: Path, cores: list[int]) -> AsyncIterator[RestartingEngine]:
        async with started_vllm(config, log, cores) as engine:
            if device == "cpu":
                _runs_on(engine, {own})
            await _adapters_come(engine, policy)
            await _sync_to_and_fro(engine, policy)
            if device == "cpu":
                assert "while sampling stands still" not in log.read_text(), "all was made ready beside it"
            yield engine
            await _given_up_is_sampled_no_further(engine)
            await _stopped_is_found(engine, monkeypatch)

    monkeypatch.setattr("chorus.cli.evaluate.eval.started_vllm", synced)
    how = ["--runs", "2", "--max-tokens", str(MAX_TOKENS), "--dtype", "float32", "--vllm-arg=--enforce-eager"]
    asked = ["eval", str(policy), "--problems", SOURCE, "--limit", "8", *how, "--cpus", str(own)]
    assert main([*asked, "--out", str(tmp_path)]) == 0
    records = read_lines(tmp_path / "answers.jsonl")
    assert len(records) == 16
    expected = _greedy(policy, load_tokenizer(str(policy)), 8, device)
    for run in (0, 1):
        same = [r["samples"][0]["text"] == expected[r["id"]] for r in records if r["run"] == run]
        assert len(same) == 8
        assert sum(same) >= 7  # a near tie may fall either way


def _runs_on(engine: RestartingEngine, cores: set[int]) -> None:
    """The engine has one process, and it is bound to them."""
    assert isinstance(engine.engine, VllmEngine)
    assert engine.engine.pid is not None
    process = psutil.Process(engine.engine.pid)
    assert process.children(recursive=True) == [], "the model in a process of its own costs an exchange a token"
    assert set(process.cpu_affinity() or ()) == cores


async def _given_up_is_sampled_no_further(engine: RestartingEngine) -> None:
    """Whoever waited for it is gone, in the middle of a sequence: the engine's process has nothing to do."""
    assert isinstance(engine.engine, VllmEngine)
    assert engine.engine.pid is not None
    process = psutil.Process(engine.engine.pid)
    limit = engine.engine.config.model.context - 1
    dropped = [asyncio.create_task(engine.engine.generate([5], 8, 1.0, limit, DEADLINE_S)) for _ in range(8)]
    await asyncio.sleep(0.05)
    for task in dropped:
        task.cancel()
    await asyncio.wait(dropped)
    assert all(task.cancelled() for task in dropped), "too late to give up"
    await engine.engine._call("ping", DEADLINE_S)  # answered behind all of them
    before = process.cpu_times()
    await asyncio.sleep(0.5)
    after = process.cpu_times()
    assert after.user + after.system - before.user - before.system <= 0.1


async def _stopped_is_found(engine: RestartingEngine, patch: pytest.MonkeyPatch) -> None:
    """Its process is there and does nothing: only its own loop can tell."""
    assert isinstance(engine.engine, VllmEngine)
    assert engine.engine.pid is not None
    patch.setattr(vllm_engine, "_PING_S", 0.2)
    patch.setattr(vllm_engine, "_SILENCE_S", 1.0)
    process = psutil.Process(engine.engine.pid)
    dead = asyncio.create_task(engine.engine.wait_dead())
    await asyncio.sleep(0.5)
    assert not dead.done()
    process.suspend()
    await asyncio.wait_for(dead, 10.0)
    await engine.engine.stop()
    assert not process.is_running()


async def _adapters_come(engine: RestartingEngine, model: Path) -> None:
    """A tiny one, of which only its receiver can tell that it came; the one before again, which is refused; one that
    can't be overlooked; none at last."""
    config = config_for_sync(model)
    model_section = config.model.model_copy(update={"lora": LoraSection(rank=4)})
    crew = DistributedTrainer(config.model_copy(update={"model": model_section}), torch.device("cpu"), None)
    learner = Sender(config, WeightSync(engine.engine, "g", False, GeneratorMetrics()))
    snapshots = []
    for step, scale in enumerate((0.0, 1e-6, 0.1), 1):
        with torch.no_grad():
            for name, parameter in crew.trainer.policy.named_parameters():
                if ".lora_B." in name:
                    parameter.fill_(0.0).add_(scale * torch.randn(parameter.shape))
        snapshots.append(crew.snapshot(Version(fence=1, step=step), [[5, 6, 7], [8, 9], [10]]))
    nothing, tiny, large = snapshots
    report = await learner.sync(tiny)
    assert report.ok, report.detail
    [seen] = report.adapters
    assert tiny.adapter
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in seen.moved} == LAYERS
    assert seen.checksum == tiny.adapter.checksum
    before = replace(tiny, version=Version(fence=1, step=3), buckets=nothing.buckets)
    report = await learner.sync(before)
    assert not report.ok, "these are another version's"
    assert "the adapter is another than the one sent" in report.detail
    assert report.gap_mean < 1e-4, "log-probabilities alone do not show it"
    for step, snapshot in enumerate((large, nothing), 4):
        report = await learner.sync(replace(snapshot, version=Version(fence=1, step=step)))
        assert report.ok, report.detail
        assert report.gap_mean <= 1e-4
    assert large.adapter
    assert max(moved.by for moved in large.adapter.moved.values()) > 0.1


async def _sync_to_and_fro(engine: RestartingEngine, model: Path) -> None:
    """The head of `model` is its embedding: a sync sends it once, and both take it. Of two syncs only what differs."""
    config = config_for_sync(model)
    crew = DistributedTrainer(config, torch.device("cpu"), None)
    own = {name: tensor.clone() for name, tensor in crew.trainer.policy.state_dict().items()}
    sync = WeightSync(engine.engine, "g", False, GeneratorMetrics())
    learner = Sender(config, sync)
    _old_weights_compute_until_their_turn(engine, sync)
    prefixes = [[5, 6, 7], [8, 9], [10]]
    for step in (1, 2):  # the first weights are others than those on disk, the second others than the first
        _disturb(crew, seed=step)
        sent = crew.snapshot(Version(fence=1, step=step), prefixes)
        under_way = [asyncio.create_task(engine.engine.generate([5], 8, 1.0, MAX_TOKENS, 60.0)) for _ in range(8)]
        await asyncio.sleep(0.05)
        report = await learner.sync(sent)
        assert report.ok, report.detail
        assert report.gap_mean <= 1e-4
    _switched_in_the_middle(crew, [c for group in await asyncio.gather(*under_way) for c in group])
    for step in (3, 4):
        _disturb(crew, seed=step, share=0.05)
        sent = crew.snapshot(Version(fence=1, step=step), prefixes)
        report = await learner.sync(sent, delta=True)
        assert report.ok, report.detail
        assert report.gap_mean <= 1e-4
    _disturb(crew, seed=5)
    meant = crew.snapshot(Version(fence=1, step=5), prefixes)
    report = await learner.sync(Snapshot(meant.version, meant.plan, sent.buckets, meant.checks))
    assert not report.ok, "these are the weights of step 4"
    assert "the engine does not compute what the learner trained" in report.detail
    crew.trainer.policy.load_state_dict(own)
    report = await learner.sync(crew.snapshot(Version(fence=1, step=6), prefixes))
    assert report.ok, report.detail


def _old_weights_compute_until_their_turn(engine: RestartingEngine, sync: WeightSync) -> None:
    """Each time that new ones are here and not yet in place."""
    receive, gaps_of = engine.engine.receive, engine.engine.logprob_gaps

    async def received(offer: SyncOffer) -> None:
        await receive(offer)
        if (old := sync._passed) is not None:
            assert float((await gaps_of(old)).mean()) <= old.tolerance

    engine.engine.receive = received  # type: ignore[method-assign]


def test_a_real_vllm_that_does_not_start_says_why(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["eval", str(tiny_model), "--problems", SOURCE, "--limit", "1", "--runs", "1", "--out", str(tmp_path)]
    assert main([*asked, "--vllm-arg=--max-model-len", "--vllm-arg=999999"]) == CANNOT_GO_ON
    line = capsys.readouterr().err.splitlines()[-1]
    assert "vLLM ended with status 1 while starting" in line
    assert "max_model_len (999999) is greater than" in line


@torch.inference_mode()
def _greedy(model: Path, tokenizer: Any, n: int, device: str) -> dict[str, str]:
    """Problem id to the text that transformers continues with, of the first n problems."""
    from transformers import AutoModelForCausalLM

    hf = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval().to(device)
    renderer, template = Renderer(tokenizer, "chatml"), choose_templates(["qwen-math"])["qwen-math"]
    how = {"do_sample": False, "max_new_tokens": MAX_TOKENS, "eos_token_id": tokenizer.eos_token_id}
    texts = {}
    for problem in load_problems(SOURCE)[:n]:
        ids = torch.tensor([renderer.ids(template, problem.problem)], device=device)
        out = hf.generate(ids, attention_mask=torch.ones_like(ids), **how)
        texts[problem.id] = str(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
    return texts


@torch.no_grad()
def _switched_in_the_middle(crew: DistributedTrainer, completions: list[Completion]) -> None:
    """Sampled under step 1, then under step 2, whose weights the log-probabilities after the switch are of, as if
    everything before it had been read with these too."""
    both = [c for c in completions if [run[:2] for run in c.versions] == [(1, 1), (1, 2)]]
    assert both, [c.versions for c in completions]
    for c in both:
        (*_, before), (*_, after) = c.versions
        assert before + after == len(c.token_ids)
        logits = crew.trainer.policy.hf(torch.tensor([[5, *c.token_ids]])).logits[0, before:-1]
        sampled = torch.log_softmax(logits, -1)[range(after), c.token_ids[before:]]
        assert sampled.tolist() == pytest.approx(c.logprobs[before:], abs=1e-4)


# -- a run -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def on_policy(tmp_path_factory: pytest.TempPathFactory, policy: Path) -> LiveRun:
    """A finished synchronous run with a checkpoint at every step, in a folder where every name of ours is taken."""
    folder = crowd(tmp_path_factory.mktemp("on-policy") / "work")
    (folder / "model").symlink_to(policy)
    run = start_demo_there(
        folder,
        "model.path=model",
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


def test_a_run_takes_nothing_from_a_folder_whose_packages_bear_our_names(on_policy: LiveRun) -> None:
    told = on_policy.output.read_text()
    assert "step 1/4" in told
    assert on_policy.summary()["steps"] == 4
    assert IN_THE_WAY not in told + on_policy.tail()


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
        groups = read_step(on_policy.folder / "rollouts" / "step-000003.parquet")
        parts = minibatches(make_experience(groups, config, 2), config.learner.updates_per_step)
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
