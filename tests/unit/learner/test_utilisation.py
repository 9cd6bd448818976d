"""The count of a step's arithmetic, against one by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from architectures import save_architecture
from transformers import LlamaConfig, LlamaForCausalLM

from chorus.learner.training import utilisation
from chorus.learner.training.policy import Policy
from chorus.learner.training.utilisation import Utilisation, peak_of

CPU = torch.device("cpu")


def used(policy: Policy, lengths: list[int], monkeypatch: pytest.MonkeyPatch, ranks: int = 1) -> float:
    """Operations that are counted for sequences of these lengths."""
    monkeypatch.setattr(utilisation, "peak_of", lambda *_: 1000.0)
    return Utilisation(policy, CPU, False, ranks).share(lengths, seconds=2.0) * 2000.0


@pytest.mark.parametrize("tied", [False, True])
def test_a_parameter_and_a_pair_of_tokens_count_as_palm_has_them(tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = LlamaConfig(
        vocab_size=100, hidden_size=8, intermediate_size=20, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=tied,
    )  # fmt: skip
    layer = 8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 20 + 2 * 8  # q, k and v, o; gate, up, down; two norms
    parameters = 3 * layer + 8 + 100 * 8  # the last norm and the head: an embedding is looked up
    policy = Policy(LlamaForCausalLM(shape), 1.0)
    assert used(policy, [10, 30], monkeypatch) == pytest.approx(6 * parameters * 40 + 12 * 3 * 8 * (100 + 900) / 2)
    assert used(policy, [10], monkeypatch, ranks=4) * 4 == pytest.approx(used(policy, [10], monkeypatch))


def test_of_experts_those_count_that_a_token_goes_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM

    save_architecture("mixtral", tmp_path)
    hf = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    experts = sum(p.numel() for name, p in hf.named_parameters() if ".experts." in name)
    others = sum(p.numel() for name, p in hf.named_parameters() if ".experts." not in name and "embed" not in name)
    chosen = hf.config.num_experts_per_tok / hf.config.num_local_experts
    assert 0 < chosen < 1
    counted = used(Policy(hf, 1.0), [1], monkeypatch) - 12 * 2 * 64 / 2  # two layers, two heads of 32, one pair
    assert counted == pytest.approx(6 * (others + chosen * experts))


def test_a_device_that_nobody_has_published_is_asked() -> None:
    assert 1e8 < peak_of(CPU, half=False) < 1e14
