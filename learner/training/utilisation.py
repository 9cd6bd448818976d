"""MFU: the arithmetic that a step's tokens need, against what the learner's devices can do in the time that it took.

Counted as in PaLM (arXiv 2204.02311, appendix B): 6 operations a parameter and token, forward and backward together,
and 12 for each value of attention's width, layer and pair of tokens, of which a causal model needs half. Nothing that
is computed twice (checkpointed layers, a reference) counts twice. Of experts those count that a token goes through;
beside adapters the weights have no gradient of their own, which is a third less.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import torch

from chorus.learner.training.policy import Policy

# Dense, in bfloat16, as their makers publish it. A device that is not here is asked for a product of matrices.
_PEAKS = {
    "B200": 2250e12, "H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12,
    "RTX 4090": 165e12, "A10": 125e12, "L4": 121e12,
}  # fmt: skip
_SIDE = {"cuda": 8192, "cpu": 1024}
_TRIES = 3


class Utilisation:
    """Of the devices of all ranks, all alike."""

    def __init__(self, policy: Policy, device: torch.device, half: bool, ranks: int) -> None:
        hf: Any = policy.hf
        text = hf.config.get_text_config()
        heads = getattr(text, "num_attention_heads", None) or 0
        width = heads * (getattr(text, "head_dim", None) or (text.hidden_size // heads if heads else 0))
        self._a_pair = 12 * width * text.num_hidden_layers / 2
        self._a_token = (4 if policy.lora else 6) * sum(_used(hf, text))
        self._device, self._half, self._ranks = device, half, ranks
        self._peak = 0.0

    def share(self, lengths: Iterable[int], seconds: float) -> float:
        """`lengths`: of whole sequences, in tokens."""
        if not self._peak:
            self._peak = self._ranks * peak_of(self._device, self._half)
        needed = sum(self._a_token * n + self._a_pair * n * n for n in lengths)
        return needed / (seconds * self._peak)


def _used(hf: Any, text: Any) -> Iterable[float]:
    """Parameters that a token is multiplied with: an embedding is looked up, and most experts are left out."""
    experts = getattr(text, "num_local_experts", None) or getattr(text, "num_experts", None)
    chosen = getattr(text, "num_experts_per_tok", None)
    embedding = hf.get_input_embeddings().weight
    tied = hf.get_output_embeddings().weight is embedding
    for name, parameter in hf.named_parameters():
        if parameter is embedding and not tied:
            continue
        share = chosen / experts if experts and chosen and ".experts." in name else 1.0
        yield parameter.numel() * share


def peak_of(device: torch.device, half: bool) -> float:
    """Operations a second: as published, or the best of a few products of matrices."""
    if device.type == "cuda" and half:
        name = torch.cuda.get_device_name(device)
        for known, peak in _PEAKS.items():
            if all(word in name for word in known.split()):
                return peak
    side = _SIDE.get(device.type, 1024)
    a = torch.ones(side, side, dtype=torch.bfloat16 if half and device.type == "cuda" else torch.float32, device=device)
    best = min(_seconds(a) for _ in range(_TRIES))
    return 2 * side**3 / best


@torch.no_grad()
def _seconds(a: torch.Tensor) -> float:
    if a.is_cuda:
        torch.cuda.synchronize(a.device)
    started = time.monotonic()
    torch.mm(a, a)
    if a.is_cuda:
        torch.cuda.synchronize(a.device)
    return time.monotonic() - started
