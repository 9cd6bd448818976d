"""What the learner does on a CUDA device is what it does on a CPU (`make gpu-test`)."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from chorus.learner.training.batch import TrainingSequence
from chorus.learner.training.compiled import compile_layers
from chorus.learner.training.distributed import DistributedTrainer
from chorus.learner.training.policy import Policy, checkpoint_layers, sent_parameters
from chorus.learner.training.trainer import Trainer
from chorus.protocol.config.load import load_config
from chorus.protocol.messages import Version

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, there is none"),
]
RECIPE = Path(__file__).parents[3] / "recipes" / "demo.toml"
SHAPE = LlamaConfig(
    vocab_size=40_000, hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True, use_cache=False,
)  # fmt: skip


def sequences() -> list[TrainingSequence]:
    random = np.random.default_rng(3)
    result = []
    for k, length in enumerate(random.integers(3, 300, 24)):
        prompt, completion = (random.integers(0, 40_000, n, dtype=np.int32) for n in (40, int(length)))
        behaviour = np.full(length, -10.6, dtype=np.float32)
        result.append(TrainingSequence(prompt, completion, behaviour, float((-1) ** k)))
    return result


def gradient(
    device: str, *overrides: str, checkpointed: bool = False, compiled: bool = False
) -> tuple[torch.Tensor, float]:
    """[parameters] of one step on the sequences, and its norm before clipping."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(SHAPE)
    if checkpointed:
        checkpoint_layers(model)
    config = load_config(RECIPE, ["learner.token_budget=2048", "learner.grad_clip=1e9", *overrides])
    policy = Policy(copy.deepcopy(model).to(device), 1.0)
    if compiled:
        compile_layers(policy.hf, torch.device(device))
    figures = Trainer(policy, config, torch.device(device)).step([sequences()])
    flat = torch.cat([p.grad.detach().float().cpu().flatten() for p in policy.parameters() if p.grad is not None])
    return flat, figures.grad_norms[0]


def off(one: torch.Tensor, other: torch.Tensor) -> float:
    """How far apart two gradients are, as a share of the second one's norm."""
    return float((one - other).norm() / other.norm())


def test_a_step_gives_the_cpu_s_gradient() -> None:
    expected, _ = gradient("cpu")
    assert off(gradient("cuda")[0], expected) < 1e-4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_checkpointed_layers_give_the_same_gradient(dtype: str) -> None:
    expected, _ = gradient("cuda", f"model.dtype={dtype}")
    assert off(gradient("cuda", f"model.dtype={dtype}", checkpointed=True)[0], expected) < 1e-5


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-4), ("bfloat16", 0.05)])
def test_compiled_layers_give_the_same_gradient_up_to_rounding(dtype: str, bound: float, checkpointed: bool) -> None:
    expected, _ = gradient("cuda", f"model.dtype={dtype}", checkpointed=checkpointed)
    assert off(gradient("cuda", f"model.dtype={dtype}", checkpointed=checkpointed, compiled=True)[0], expected) < bound


def test_bfloat16_gives_nearly_float32_s_gradient() -> None:
    expected, norm = gradient("cuda")
    found, found_norm = gradient("cuda", "model.dtype=bfloat16")
    assert off(found, expected) < 0.05
    assert found_norm == pytest.approx(norm, rel=0.02)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_snapshot_that_is_returned_holds_the_weights(dtype: str, tmp_path: Path) -> None:
    LlamaForCausalLM(SHAPE).save_pretrained(tmp_path)
    config = load_config(RECIPE, [f"model.path={tmp_path}", f"model.dtype={dtype}"])
    crew = DistributedTrainer(config, torch.device("cuda"), None)
    torch.cuda._sleep(10**9)  # cycles: the copies are queued behind it
    snapshot = crew.snapshot(Version(fence=1, step=1), [])
    buckets = [bucket.clone() for bucket in snapshot.buckets]
    sent = {name: view for bucket in snapshot.plan.views(buckets) for name, view in bucket}
    for name, parameter in [(sent.name, sent.parameter) for sent in sent_parameters(crew.trainer.policy)]:
        assert torch.equal(sent[name], parameter.detach().to(sent[name].dtype).cpu()), name
