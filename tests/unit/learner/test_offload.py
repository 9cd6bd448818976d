"""What checkpointed layers keep for backward, in host memory: the same gradients, and no inputs beside the weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from transformers import LlamaConfig, LlamaForCausalLM

from chorus.learner.training.policy import Policy, checkpoint_layers
from chorus.learner.training.sharding import layers_of

LAYERS = 3


def trained(kept_on_host: bool, dtype: torch.dtype) -> tuple[list[torch.Tensor], int]:
    """The gradients of one backward, and how many layers' inputs still lay in memory before it."""
    torch.manual_seed(0)
    shape = {"vocab_size": 48, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    policy = Policy(LlamaForCausalLM(LlamaConfig(**shape, num_hidden_layers=LAYERS)), 1.0, kept_on_host=kept_on_host)  # type: ignore[arg-type]
    checkpoint_layers(policy.hf)
    given: list[StorageWeakRef] = []

    def note(_: Any, args: tuple[torch.Tensor, ...]) -> None:
        given.append(StorageWeakRef(args[0].untyped_storage()))

    hooks = [layer.register_forward_pre_hook(note) for layer in layers_of(policy.hf)]
    ids = torch.randint(0, 48, (2, 16))
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        logp, _ = policy(ids, torch.arange(31), ids.flatten()[1:])
    for hook in hooks:
        hook.remove()
    left = sum(not storage.expired() for storage in given)
    logp.sum().backward()
    return [p.grad for p in policy.parameters() if p.grad is not None], left


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_the_same_to_the_bit_and_no_layer_s_input_stays_beside_the_weights(dtype: torch.dtype) -> None:
    (beside, stayed), (away, left) = trained(False, dtype), trained(True, dtype)
    assert (stayed, left) == (LAYERS, 0)
    assert len(away) == len(beside) > 9 * LAYERS
    assert all(torch.equal(a, b) for a, b in zip(away, beside, strict=True))
