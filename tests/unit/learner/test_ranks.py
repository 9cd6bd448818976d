"""Two gloo ranks with FSDP2 against one process: the same loss, the same gradients, the same weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from learner.batch import TrainingSequence
from learner.ranks import Crew
from protocol.config import RunConfig
from protocol.messages import Version

ROOT = Path(__file__).parents[3]
WORKER = """
import json, sys, torch
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests/unit/learner"]
import torch.distributed as dist
from learner import ranks
from test_ranks import config_for, minibatches, snapshot_of
rank, world, device = ranks.join()
crew = ranks.Crew(config_for(sys.argv[2], int(sys.argv[4])), device, None)
if rank == 0:
    result = crew.step(minibatches())
    weights = snapshot_of(crew)
    crew.stop()
    torch.save({"loss": result.loss, "norm": result.grad_norms, "tokens": result.tokens,
                "entropy": result.mean("entropy"), "weights": weights}, sys.argv[3])
else:
    crew.follow()
dist.destroy_process_group()
"""


def config_for(model: str, token_budget: int) -> RunConfig:
    return RunConfig.model_validate(
        {
            "model": {"path": model, "dtype": "float32", "context": 64},
            "problems": {"train": ["none"], "max_prompt_tokens": 16},
            "templates": {"names": ["qwen-math"]},
            "sampling": {"group_size": 4, "max_tokens": 16},
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
        rows.append(TrainingSequence(prompt, completion, behaviour, float(rng.normal())))
    return [rows[:5], rows[5:]]


def snapshot_of(crew: Crew) -> torch.Tensor:
    """All weights as the generators would get them, in one float32 vector."""
    snapshot = crew.snapshot(Version(fence=1, step=1), [[1, 2, 3]])
    assert len(snapshot.canary) == 1
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


@pytest.mark.parametrize("budget", [24, 40])
def test_the_result_does_not_depend_on_how_the_batch_was_cut(model: str, budget: int) -> None:
    whole, cut = (
        Crew(config_for(model, 4096), torch.device("cpu"), None),
        Crew(config_for(model, budget), torch.device("cpu"), None),
    )
    a, b = whole.step(minibatches()), cut.step(minibatches())
    assert a.loss == pytest.approx(b.loss, abs=1e-5)
    assert a.grad_norms == pytest.approx(b.grad_norms, rel=1e-5)
    torch.testing.assert_close(snapshot_of(whole), snapshot_of(cut), atol=1e-5, rtol=0)


@pytest.mark.parametrize("budget", [40, 4096])
def test_two_ranks_equal_one(model: str, tmp_path: Path, budget: int) -> None:
    alone = Crew(config_for(model, 4096), torch.device("cpu"), None)
    expected = alone.step(minibatches())
    script, out = tmp_path / "worker.py", tmp_path / "out.pt"
    script.write_text(WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*command, str(script), str(ROOT), model, str(out), str(budget)], check=True, timeout=120)
    result = torch.load(out, weights_only=True)
    assert result["loss"] == pytest.approx(expected.loss, abs=1e-5)
    assert result["norm"] == pytest.approx(expected.grad_norms, rel=1e-5)
    assert result["tokens"] == expected.tokens
    assert result["entropy"] == pytest.approx(expected.mean("entropy"), abs=1e-5)
    torch.testing.assert_close(result["weights"], snapshot_of(alone), atol=1e-5, rtol=0)
