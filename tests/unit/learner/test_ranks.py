"""The same loss, gradients and weights however a batch is cut, and on two gloo ranks with FSDP2 as on one."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import save_architecture
from leanranks import LEAN, PARTS, lean_config, lean_outcome, save_lean_model, sent_bytes
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from chorus.learner.objectives.objective import TOKEN_STATS
from chorus.learner.training.batch import TrainingSequence, cut, planned
from chorus.learner.training.distributed import DistributedTrainer
from chorus.protocol.config.run import RunConfig
from chorus.protocol.config.settings import StepSettings
from chorus.protocol.messages import Version
from chorus.protocol.run_folder import checkpoints
from chorus.protocol.run_folder.checkpoints import Manifest
from chorus.protocol.run_folder.demonstrations import Demonstration
from chorus.protocol.runtime.exits import CannotGoOn

ROOT = Path(__file__).parents[3]
WORKER = """
import sys, torch
sys.path[:0] = [sys.argv[1] + "/tests/unit/learner", sys.argv[1] + "/tests/support"]
import torch.distributed as dist
from pathlib import Path
from chorus.learner.training import distributed as ranks
from chorus.protocol.run_folder.checkpoints import Manifest
from test_ranks import FOLLOWED, OBJECTIVES, config_for, minibatches, outcome_of, snapshot_of, supervised_of
from leanranks import LEAN, PARTS, lean_config, lean_outcome, parts_of
rank, world, device = ranks.join("")
results = {}
for name in LEAN:
    folder = Path(sys.argv[5]) / name
    results[name] = lean_outcome(lean_config(sys.argv[5] + "/model", name), minibatches(), folder, device)
lean = Path(sys.argv[5])
for name in PARTS:
    results[name] = parts_of(lean / name, lean / f"{name}, exported", device)
for name in OBJECTIVES:  # both ranks make the same calls, so that gradients can be gathered
    results[name] = outcome_of(ranks.DistributedTrainer(config_for(sys.argv[2], int(sys.argv[4]), name), device, None))
crew = ranks.DistributedTrainer(config_for(sys.argv[2], int(sys.argv[4]), FOLLOWED), device, None)
if rank == 0:  # as a run does it: rank 0 calls, the others follow
    results["reference"] = [torch.from_numpy(r) for r in crew.reference([s for part in minibatches() for s in part])]
    results["followed"] = [crew.step(minibatches()).loss, snapshot_of(crew)]
    crew.reset_reference(False)
    results["reset"] = [torch.from_numpy(r) for r in crew.reference([s for part in minibatches() for s in part])]
    saved = crew.save(Path(sys.argv[3]).parent / "resets", Manifest(1, 1, {})).wait()
    crew.step(minibatches())
    crew.reset_reference(False)
    crew.load(saved)
    results["loaded"] = [torch.from_numpy(r) for r in crew.reference([s for part in minibatches() for s in part])]
    results["supervised"] = supervised_of(crew)
    crew.save(Path(sys.argv[3]).parent, Manifest(1, 1, {})).wait()
    crew.stop()
else:
    crew.follow()
if rank == 0:
    torch.save(results, sys.argv[3])
dist.destroy_process_group()
"""
# One of each way through the trainer.
OBJECTIVES = {
    "prompt_augmentation": {},
    "verl's token mean": {"token_mean_scope": "micro", "micro_sequences": 2},
    "grpo, reference in the loss": {"name": "grpo", "kl_coefficient": 0.1},
    "dr_grpo": {"name": "dr_grpo"},
    "gmpo": {"name": "gmpo"},
    "gspo, its weight normalised": {"name": "gspo", "clip_low": 0.1, "clip_high": 0.1, "weight_normalise": True},
    "cispo": {"name": "cispo"},
    "reinforce_pp, entropy": {"name": "reinforce_pp", "entropy_coefficient": 0.1},
    "questa": {"name": "questa"},
    "rejected by k3": {"proximal": "recompute", "reject": "k3", "reject_high": 0.05},
    "log-linear": {"proximal": "loglinear", "weight": "token", "weight_cap": 2.0},
    "plain policy gradient": {"loss": "policy_gradient", "dual_clip": "none"},
}
FOLLOWED = "grpo, reference in the loss"


def config_for(model: str, token_budget: int, objective: str = "prompt_augmentation") -> RunConfig:
    return RunConfig.model_validate(
        {
            "model": {"path": model, "dtype": "float32", "context": 64},
            "problems": {"train": ["none"], "max_prompt_tokens": 16},
            "templates": {"names": ["qwen-math"]},
            "sampling": {"group_size": 4, "max_tokens": 16},
            "staleness": {"target": 0, "max": 0},  # so that a plain policy gradient is let through
            "objective": OBJECTIVES[objective],
            "reference": {"every": 99} if "kl_coefficient" in OBJECTIVES[objective] else {},
            "learner": {"token_budget": token_budget, "lr": 1e-3},
        }
    )


def minibatches() -> list[list[TrainingSequence]]:
    rng = np.random.default_rng(3)
    rows = []
    for _ in range(10):
        prompt = rng.integers(0, 60, rng.integers(3, 8)).astype(np.int32)
        completion = rng.integers(0, 60, rng.integers(1, 14)).astype(np.int32)
        behaviour = rng.normal(-4.0, 0.3, len(completion)).astype(np.float32)
        age = rng.integers(0, 3, len(completion)).astype(np.int32)
        rows.append(TrainingSequence(prompt, completion, behaviour, float(rng.normal()), age))
    rows[1] = TrainingSequence(rows[1].prompt, rows[1].completion[:0], rows[1].behaviour[:0], 1.0)  # a masked one
    rows[6] = replace(rows[6], advantage=rng.normal(size=len(rows[6].completion)).astype(np.float32))
    return [rows[:5], rows[5:]]


def outcome_of(crew: DistributedTrainer) -> dict[str, Any]:
    """What two updates make, and the gradient of the second one."""
    result = crew.step(minibatches())
    gradients = [
        p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad for p in crew.trainer.policy.parameters()
    ]
    figures = {name: result.mean(name) for name in TOKEN_STATS}
    return {
        "loss": result.loss,
        "norm": result.grad_norms,
        "tokens": result.tokens,
        "figures": figures,
        "w": [*result.by_sequence.w_range([0, 6]), *(x for age in range(3) for x in result.by_age.w_range([age]))],
        "gradients": [g.full_tensor() if isinstance(g, DTensor) else g.clone() for g in gradients],
        "weights": snapshot_of(crew),
    }


def supervised_of(crew: DistributedTrainer) -> list[Any]:
    """Two supervised updates, whose targets make three micro-batches of 14 tokens."""
    batch = [Demonstration("p", "t", s.prompt.tolist(), s.completion.tolist()) for s in minibatches()[0] if s.advantage]
    found = [crew.supervise(part) for part in (batch, batch[:1])]
    return [[(s.loss, s.nll, s.entropy, s.grad_norm) for s in found], snapshot_of(crew)]


def snapshot_of(crew: DistributedTrainer) -> torch.Tensor:
    """All weights as the generators would get them, in one float32 vector."""
    snapshot = crew.snapshot(Version(fence=1, step=1), [[1, 2, 3]])
    assert len(snapshot.checks) == 1
    return torch.cat([b.view(torch.float32) for b in snapshot.buckets])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(shape).save_pretrained(path)
    return str(path)


def check(result: dict[str, Any], expected: dict[str, Any]) -> None:
    assert result["loss"] == pytest.approx(expected["loss"], abs=1e-5)
    assert result["norm"] == pytest.approx(expected["norm"], rel=1e-5)
    assert result["tokens"] == expected["tokens"]
    assert result["w"] == pytest.approx(expected["w"], rel=1e-4)
    assert result["figures"] == pytest.approx(expected["figures"], abs=1e-5)
    for a, b in zip(result["gradients"], expected["gradients"], strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    torch.testing.assert_close(result["weights"], expected["weights"], atol=2e-5, rtol=0)


@pytest.fixture(scope="module")
def whole(model: str) -> dict[str, dict[str, Any]]:
    """Every mini-batch as one micro-batch, on one process."""
    return {
        name: outcome_of(DistributedTrainer(config_for(model, 4096, name), torch.device("cpu"), None))
        for name in OBJECTIVES
    }


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_result_does_not_depend_on_how_the_batch_was_cut(
    model: str, whole: dict[str, dict[str, Any]], objective: str
) -> None:
    config = config_for(model, 14, objective)
    assert [len(cut(batch, 14)) for batch in minibatches()] == [4, 5]
    check(outcome_of(DistributedTrainer(config, torch.device("cpu"), None)), whole[objective])


def test_two_ranks_equal_one(model: str, whole: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    script, out = tmp_path / "worker.py", tmp_path / "out.pt"
    script.write_text(WORKER)
    save_lean_model(tmp_path / "lean" / "model")
    for name in PARTS:
        save_architecture(name, tmp_path / "lean" / name)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    asked = [str(script), str(ROOT), model, str(out), "40", str(tmp_path / "lean")]
    subprocess.run([*command, *asked], check=True, timeout=180)
    results = torch.load(out, weights_only=True)
    for name in LEAN:
        check_lean(name, results[name], tmp_path / "lean")
    for name in PARTS:
        check_parts(results[name], tmp_path / "lean" / name, tmp_path / "lean" / f"{name}, exported")
    for objective in OBJECTIVES:
        check(results[objective], whole[objective])
    loss, weights = results["followed"]
    assert loss == pytest.approx(whole[FOLLOWED]["loss"], abs=1e-5)
    torch.testing.assert_close(weights, whole[FOLLOWED]["weights"], atol=2e-5, rtol=0)
    alone = DistributedTrainer(config_for(model, 4096, FOLLOWED), torch.device("cpu"), None)
    check_supervised(results["supervised"], alone, checkpoints.folder_of(tmp_path, 1))
    alone = DistributedTrainer(config_for(model, 4096, FOLLOWED), torch.device("cpu"), None)
    batch = [s for part in minibatches() for s in part]
    for a, b in zip(results["reference"], alone.reference(batch), strict=True):
        torch.testing.assert_close(a, torch.from_numpy(b), atol=1e-5, rtol=0)
    alone.step(minibatches())
    alone.reset_reference(False)
    for name in ("reset", "loaded"):  # from what each rank holds, though forward passes had gathered what was before
        for a, b in zip(results[name], alone.reference(batch), strict=True):
            torch.testing.assert_close(a, torch.from_numpy(b), atol=1e-4, rtol=0)


def check_supervised(found: list[Any], alone: DistributedTrainer, saved: Path) -> None:
    """As one rank trains it; and one rank goes on from what two have saved."""
    alone.step(minibatches())
    figures, weights = supervised_of(alone)
    for ours, theirs in zip(found[0], figures, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    torch.testing.assert_close(found[1], weights, atol=2e-5, rtol=0)
    resumed = DistributedTrainer(alone.config, torch.device("cpu"), saved)
    assert resumed.supervised.updates == 2
    torch.testing.assert_close(supervised_of(resumed)[1], supervised_of(alone)[1], atol=4e-5, rtol=0)


def check_lean(name: str, results: list[torch.Tensor], folder: Path) -> None:
    """A resume is exact on two ranks; their checkpoint is the same policy on one; a step makes what one rank makes."""
    first, second, resumed = results
    assert torch.equal(second, resumed), name
    assert not torch.equal(first, second), name
    config, cpu = lean_config(str(folder / "model"), name), torch.device("cpu")
    loaded = DistributedTrainer(config, cpu, folder / name / "step-000001")
    assert torch.equal(sent_bytes(loaded), first), name
    merged = AutoModelForCausalLM.from_pretrained(folder / name / "step-000001" / "huggingface", dtype=torch.float32)
    ids = torch.arange(1, 9)[None]
    torch.testing.assert_close(merged(ids).logits, loaded.trainer.policy.hf.float()(ids).logits, atol=1e-4, rtol=0)
    if config.learner.master == "float32":  # what is rounded stochastically is drawn rank by rank
        alone = lean_outcome(config, minibatches(), folder / f"{name}, alone", cpu)
        for a, b in zip(results, alone, strict=True):
            torch.testing.assert_close(a.view(torch.float32), b.view(torch.float32), atol=1e-4, rtol=0)


def check_parts(found: dict[str, torch.Tensor], model: Path, exported: Path) -> None:
    """What two ranks hold, each its part, is what transformers loads, and what they export is what was in the files."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    expected = dict((*loaded.named_parameters(), *loaded.named_buffers()))
    assert found.keys() == expected.keys()
    assert any(name.endswith("inv_freq") for name in found)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    before, after = (load_file(folder / "model.safetensors") for folder in (model, exported))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name


def test_an_earlier_checkpoint_gives_back_its_weights_and_its_optimizer(model: str, tmp_path: Path) -> None:
    crew = DistributedTrainer(config_for(model, 4096), torch.device("cpu"), None)
    crew.step(minibatches())
    saved = crew.save(tmp_path, Manifest(step=1, fence=1, entries={})).wait()
    earlier = snapshot_of(crew)
    later = outcome_of(crew)
    assert not torch.equal(earlier, later["weights"])
    crew.load(saved)
    assert torch.equal(earlier, snapshot_of(crew))
    check(outcome_of(crew), later)  # the moments of the optimizer went back, too


def test_a_rank_without_work_of_its_own_changes_nothing(model: str) -> None:
    """A lone micro-batch: the second of two ranks repeats it with weight 0 (checked here by its absence)."""
    crew = DistributedTrainer(config_for(model, 4096), torch.device("cpu"), None)
    crew.trainer.world, crew.trainer.rank = 2, 1
    mine, weights = crew.trainer.share(planned(minibatches()[0], 4096))
    assert (len(mine), weights) == (1, [0.0])


def test_the_reference_policy_stays_what_the_policy_was(model: str) -> None:
    crew = DistributedTrainer(config_for(model, 4096, "grpo, reference in the loss"), torch.device("cpu"), None)
    batch = [s for part in minibatches() for s in part]
    before = crew.reference(batch)
    first, second = crew.step(minibatches()), crew.step(minibatches())
    assert first.mean("reference_k3") < second.mean("reference_k3")  # the policy moves away from it
    for sequence, a, b in zip(batch, before, crew.reference(batch), strict=True):
        assert len(a) == len(sequence.completion)
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("begins_anew", [True, False])
def test_after_a_reset_the_kl_is_0_and_the_optimizer_begins_anew_or_goes_on(model: str, begins_anew: bool) -> None:
    crew = DistributedTrainer(config_for(model, 4096, FOLLOWED), torch.device("cpu"), None)
    crew.step(minibatches())
    before = {name: value.clone() for name, value in _moments(crew).items()}
    crew.reset_reference(begins_anew)
    assert all(
        not value.any() if begins_anew else torch.equal(value, before[name]) for name, value in _moments(crew).items()
    )
    first = crew.step(minibatches()[:1])
    assert [first.mean(f"reference_k{k}") for k in (1, 2, 3)] == [0.0, 0.0, 0.0]
    assert np.isfinite(first.loss)
    assert crew.step(minibatches()[:1]).mean("reference_k2") > 0


def _moments(crew: DistributedTrainer) -> dict[str, torch.Tensor]:
    states = enumerate(crew.trainer.optimizer.state.values())
    return {f"{k}.{name}": value for k, state in states for name, value in state.items()}


def test_a_resumed_learner_has_the_same_reference_bit_for_bit(model: str, tmp_path: Path) -> None:
    config = config_for(model, 4096, FOLLOWED)
    crew = DistributedTrainer(config, torch.device("cpu"), None)
    crew.step(minibatches())
    untouched = crew.save(tmp_path / "first", Manifest(step=1, fence=1, entries={})).wait()
    crew.reset_reference(True)
    crew.step(minibatches())
    saved = crew.save(tmp_path / "second", Manifest(step=2, fence=1, entries={})).wait()
    again = DistributedTrainer(config, torch.device("cpu"), saved)
    for model_of in ("reference", "policy"):
        kept, found = (dict(getattr(c.trainer, model_of).named_parameters()) for c in (crew, again))
        assert all(torch.equal(kept[name], found[name]) for name in kept)
    assert again.step(minibatches()).loss == crew.step(minibatches()).loss
    crew.load(untouched)  # the way back, to before the reset
    first = DistributedTrainer(config, torch.device("cpu"), None)
    kept, found = (dict(c.trainer.reference.named_parameters()) for c in (crew, first) if c.trainer.reference)
    assert all(torch.equal(kept[name], found[name]) for name in kept)


def test_a_run_that_goes_on_without_triggers_keeps_the_reference_in_its_checkpoints(model: str, tmp_path: Path) -> None:
    config = config_for(model, 4096, FOLLOWED)
    plain = config.model_copy(update={"reference": type(config.reference)()})
    crew = DistributedTrainer(config, torch.device("cpu"), None)
    crew.step(minibatches())
    crew.reset_reference(False)
    saved = crew.save(tmp_path / "first", Manifest(step=1, fence=1, entries={})).wait()
    further = DistributedTrainer(plain, torch.device("cpu"), saved)
    further.step(minibatches())
    saved = further.save(tmp_path / "second", Manifest(step=2, fence=1, entries={})).wait()
    again = DistributedTrainer(plain, torch.device("cpu"), saved)
    kept, found = (dict(c.trainer.reference.named_parameters()) for c in (crew, again) if c.trainer.reference)
    assert all(torch.equal(kept[name], found[name]) for name in kept)


def test_a_checkpoint_of_before_there_were_resets_gives_the_first_reference(model: str, tmp_path: Path) -> None:
    config = config_for(model, 4096, FOLLOWED)
    plain = config.model_copy(update={"reference": type(config.reference)()})
    crew = DistributedTrainer(plain, torch.device("cpu"), None)
    crew.step(minibatches())
    saved = crew.save(tmp_path, Manifest(step=1, fence=1, entries={})).wait()
    again = DistributedTrainer(config, torch.device("cpu"), saved)
    batch = [s for part in minibatches() for s in part]
    for a, b in zip(crew.reference(batch), again.reference(batch), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_coefficients_of_a_step_take_the_place_of_the_configurations(model: str) -> None:
    config = config_for(model, 4096, FOLLOWED)
    crews = [DistributedTrainer(config, torch.device("cpu"), None) for _ in range(3)]
    for crew in crews:
        crew.step(minibatches()[:1])  # away from the reference
    losses = [
        crew.step(minibatches()[:1], told and StepSettings.of(config, told)).loss
        for crew, told in zip(crews, [None, (0.1, 0.0), (0.5, 0.2)], strict=True)
    ]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]
    assert crews[2].step(minibatches()[:1]).loss != losses[2], "for one step"


def test_a_mini_batch_without_tokens_is_skipped_and_counted(model: str) -> None:
    crew = DistributedTrainer(config_for(model, 4096), torch.device("cpu"), None)
    before = snapshot_of(crew)
    empty = [TrainingSequence(s.prompt, s.completion[:0], s.behaviour[:0], 1.0) for s in minibatches()[0]]
    result = crew.step([empty])
    assert (result.skipped_updates, result.grad_norms, result.tokens) == (1, [], 0)
    assert torch.equal(before, snapshot_of(crew))


def test_gradient_checkpointing_and_entropy_leave_the_gradient_as_it_is(model: str) -> None:
    config = config_for(model, 4096, "reinforce_pp, entropy")
    learner = config.learner.model_copy(update={"gradient_checkpointing": True})
    plain = outcome_of(DistributedTrainer(config, torch.device("cpu"), None))
    saving = outcome_of(DistributedTrainer(config.model_copy(update={"learner": learner}), torch.device("cpu"), None))
    check(saving, plain)


def test_compiled_layers_leave_the_gradient_as_it_is(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graphs are run as they stand: to write programs for them takes a minute here."""
    made: list[Any] = []

    def counted(graph: Any, example: Any) -> Any:
        made.append(graph)
        return graph

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counted))
    config = config_for(model, 4096, "reinforce_pp, entropy")
    update = {"compile": True, "gradient_checkpointing": True, "token_budget": 40}
    plain = outcome_of(DistributedTrainer(config, torch.device("cpu"), None))
    compiled = config.model_copy(update={"learner": config.learner.model_copy(update=update)})
    check(outcome_of(DistributedTrainer(compiled, torch.device("cpu"), None)), plain)
    assert 0 < len(made) <= 6, "one for all layers, with a gradient and without, one for a row alone"


def test_without_a_compiler_compiled_layers_are_refused(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    config = config_for(model, 4096)
    learner = config.learner.model_copy(update={"compile": True})
    with pytest.raises(CannotGoOn, match=r"learner\.compile: .+ none of g\+\+.+ set learner\.compile = false"):
        DistributedTrainer(config.model_copy(update={"learner": learner}), torch.device("cpu"), None)
