"""Micro-batches: the layout must not change a single log-probability, loss or gradient."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from chorus.learner.training import batch
from chorus.learner.training.batch import MicroBatch, TrainingSequence, cut, one_ahead, planned
from chorus.learner.training.policy import Policy

RNG = np.random.default_rng(0)


def policy() -> Policy:
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )
    return Policy(LlamaForCausalLM(shape), temperature=1.0)


def sequences(n: int) -> list[TrainingSequence]:
    result = []
    for k in range(n):
        prompt = RNG.integers(0, 50, RNG.integers(3, 9)).astype(np.int32)
        completion = RNG.integers(0, 50, RNG.integers(1, 12)).astype(np.int32)
        result.append(TrainingSequence(prompt, completion, np.zeros(len(completion), np.float32), float(k)))
    return result


def reference(model: Policy, s: TrainingSequence) -> torch.Tensor:
    """One sequence alone, straight from the model's logits."""
    ids = torch.tensor(np.concatenate([s.prompt, s.completion])).long().unsqueeze(0)
    logits = model.hf(ids, use_cache=False).logits[0].double().log_softmax(-1)
    first = len(s.prompt) - 1
    return torch.stack([logits[first + t, int(token)] for t, token in enumerate(s.completion)])


@pytest.mark.parametrize("budget", [16, 64, 4096])
def test_a_micro_batch_gives_the_log_probabilities_of_each_sequence_alone(budget: int) -> None:
    model, batch = policy(), sequences(13)
    seen = set()
    with torch.no_grad():
        for micro in cut(batch, budget):
            logp, entropy = model(micro.input_ids, micro.index, micro.target)
            assert (entropy >= 0).all()
            for i, where in micro.origin:
                torch.testing.assert_close(logp[where].double(), reference(model, batch[i]), atol=2e-5, rtol=0)
                assert (micro.advantage[where] == batch[i].advantage).all()
                seen.add(i)
    assert seen == set(range(13))


def test_the_token_budget_counts_padding() -> None:
    for micro in cut(sequences(40), 64):
        assert micro.input_ids.numel() <= 64


def test_sorting_by_length_leaves_little_padding() -> None:
    batch = sequences(200)
    real = sum(s.length for s in batch)
    padded = sum(m.input_ids.numel() for m in cut(batch, 256))
    assert padded <= 1.15 * real


def test_a_sample_without_tokens_is_left_out() -> None:
    empty = TrainingSequence(np.array([1, 2]), np.array([], np.int32), np.array([], np.float32), 1.0)
    assert cut([empty], 64) == []
    assert [i for m in cut([empty, *sequences(2)], 64) for i, _ in m.origin] in ([1, 2], [2, 1])


def test_a_chunked_head_has_the_gradient_of_the_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def gradient() -> list[torch.Tensor]:
        model = policy()
        (micro,) = cut(sequences_once, 4096)
        logp, _ = model(micro.input_ids, micro.index, micro.target)
        (logp * micro.advantage).sum().backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    sequences_once = sequences(6)
    whole = gradient()
    monkeypatch.setattr("chorus.learner.training.policy._CHUNK_ELEMENTS", 50 * 7)
    for a, b in zip(whole, gradient(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("chunk", [50 * 7, 2**25])
def test_the_gradient_of_the_entropy_is_that_of_the_whole_logits(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr("chorus.learner.training.policy._CHUNK_ELEMENTS", chunk)
    model, (micro,) = policy(), cut(sequences(6), 4096)
    _, entropy = model(micro.input_ids, micro.index, micro.target, entropy_gradient=True)
    mine = torch.autograd.grad(entropy.sum(), list(model.parameters()))
    logits = model.hf(micro.input_ids, use_cache=False).logits.flatten(0, 1)[micro.index].double()
    expected = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(entropy.double(), expected, atol=1e-5, rtol=0)
    for a, b in zip(mine, torch.autograd.grad(expected.sum(), list(model.parameters())), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_without_being_asked_the_entropy_has_no_gradient() -> None:
    model, (micro,) = policy(), cut(sequences(2), 4096)
    logp, entropy = model(micro.input_ids, micro.index, micro.target)
    assert logp.requires_grad
    assert not entropy.requires_grad


def test_micro_batches_come_in_turn_and_the_next_one_is_filled_while_one_is_at_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    some, begun = sequences(40), [threading.Event() for _ in range(40)]
    plans, meant = planned(some, 64), cut(some, 64)
    assert len(plans) > 3
    real = batch.filled

    def filled(sequences: Sequence[TrainingSequence], members: list[int]) -> MicroBatch:
        begun[plans.index(members)].set()
        return real(sequences, members)

    monkeypatch.setattr(batch, "filled", filled)
    for k, found in enumerate(one_ahead(some, plans, torch.device("cpu"))):
        assert torch.equal(found.input_ids, meant[k].input_ids)
        assert found.origin == meant[k].origin
        if k + 1 < len(plans):
            assert begun[k + 1].wait(5.0)
        assert not any(event.is_set() for event in begun[k + 2 :]), "never more than one ahead: they are large"
    assert all(event.is_set() for event in begun[: len(plans)])
    assert list(one_ahead(some, [], torch.device("cpu"))) == []


def test_what_filling_raises_is_raised_where_the_micro_batch_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "filled", lambda sequences, members: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(one_ahead(sequences(3), [[0]], torch.device("cpu")))
