"""The whole loss, corrections included: values and gradients against the plain formulas in float64.

The references are written again from the papers' formulas, on lists of sequences and with every weight a plain number,
so a weight that kept its gradient in the code under test shows as a difference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from chorus.learner.objectives.corrections import log_weight
from chorus.learner.objectives.objective import Inputs, combine, correct
from chorus.protocol.config.objective import ObjectiveConfig

LENGTHS = [3, 1, 4, 2, 6]
TOKENS = sum(LENGTHS)


@dataclass(frozen=True)
class Sequence:
    """[tokens] each, but the advantage; `logp` carries the gradient."""

    logp: torch.Tensor
    proximal: torch.Tensor
    behaviour: torch.Tensor
    age: torch.Tensor
    advantage: float


Weights = Callable[[list[list[float]]], list[list[float]]]  # of log w, by sequence and token, to what multiplies


def plain(c: ObjectiveConfig, weights: Weights) -> Callable[[list[Sequence]], torch.Tensor]:
    """Clipped loss of every token times its weight, over all tokens; nothing leaves the count."""

    def loss(sequences: list[Sequence]) -> torch.Tensor:
        log_w = [(s.proximal - s.behaviour).tolist() for s in sequences]
        terms = []
        for s, row in zip(sequences, weights(log_w), strict=True):
            for t, w in enumerate(row):
                r = torch.exp(s.logp[t] - float(s.proximal[t]))
                a = s.advantage
                terms.append(-w * torch.minimum(a * r, a * r.clamp(1 - (c.clip_low or 0), 1 + (c.clip_high or 0))))
        return torch.stack(terms).sum() / TOKENS

    return loss


def exp(x: float) -> float:
    return float(torch.tensor(x, dtype=torch.float64).exp())


def token(log_w: list[list[float]]) -> list[list[float]]:
    return [[exp(x) for x in row] for row in log_w]


def token_truncated(log_w: list[list[float]]) -> list[list[float]]:
    return [[min(w, 1.3) for w in row] for row in token(log_w)]


def token_masked(log_w: list[list[float]]) -> list[list[float]]:
    return [[w if w <= 1.3 else 0.0 for w in row] for row in token(log_w)]


def sequence_truncated(log_w: list[list[float]]) -> list[list[float]]:
    return [[min(exp(sum(row)), 1.5)] * len(row) for row in log_w]


def sequence_masked(log_w: list[list[float]]) -> list[list[float]]:
    return [[exp(sum(row)) if exp(sum(row)) <= 1.5 else 0.0] * len(row) for row in log_w]


def geometric(log_w: list[list[float]]) -> list[list[float]]:
    return [[exp(sum(row) / len(row))] * len(row) for row in log_w]


def normalised(log_w: list[list[float]]) -> list[list[float]]:
    capped = token_truncated(log_w)
    mean = sum(map(sum, capped)) / TOKENS
    return [[w / mean for w in row] for row in capped]


def rejected_by_product(log_w: list[list[float]]) -> list[list[float]]:
    return [[float(0.7 <= exp(sum(row)) <= 1.4)] * len(row) for row in log_w]


def rejected_by_mean(log_w: list[list[float]]) -> list[list[float]]:
    return [[w * (exp(sum(row) / len(row)) <= 1.1) for w in map(exp, row)] for row in log_w]


def rejected_by_k3(log_w: list[list[float]]) -> list[list[float]]:
    return [[float(sum(exp(x) - x - 1 for x in row) / len(row) <= 0.05)] * len(row) for row in log_w]


CASES: dict[str, tuple[dict[str, Any], Weights]] = {
    "token": ({"weight": "token"}, token),
    "token, capped": ({"weight": "token", "weight_cap": 1.3}, token_truncated),
    "token, masked": ({"weight": "token", "weight_cap": 1.3, "weight_mode": "mask"}, token_masked),
    "sequence, capped": ({"weight": "sequence", "weight_cap": 1.5}, sequence_truncated),
    "sequence, masked": ({"weight": "sequence", "weight_cap": 1.5, "weight_mode": "mask"}, sequence_masked),
    "geometric": ({"weight": "geometric"}, geometric),
    "normalised": ({"weight": "token", "weight_cap": 1.3, "weight_normalise": True}, normalised),
    "rejected by product": ({"reject": "sequence", "reject_low": 0.7, "reject_high": 1.4}, rejected_by_product),
    "rejected by mean": ({"weight": "token", "reject": "geometric", "reject_high": 1.1}, rejected_by_mean),
    "rejected by k3": ({"reject": "k3", "reject_high": 0.05}, rejected_by_k3),
}


def noise(generator: torch.Generator, scale: float) -> torch.Tensor:
    return torch.randn(TOKENS, generator=generator, dtype=torch.float64) * scale


def inputs(seed: int, proximal: bool = True) -> Inputs:
    g = torch.Generator().manual_seed(seed)
    behaviour = -torch.rand(TOKENS, generator=g, dtype=torch.float64) * 2
    prox = behaviour + noise(g, 0.3)
    lengths = torch.tensor(LENGTHS)
    return Inputs(
        logp=(prox + noise(g, 0.3)).requires_grad_(),
        entropy=torch.zeros(TOKENS, dtype=torch.float64),
        behaviour=behaviour,
        advantage=torch.randn(len(LENGTHS), generator=g, dtype=torch.float64).repeat_interleave(lengths),
        age=torch.randint(0, 4, (TOKENS,), generator=g),
        scale=torch.full((TOKENS,), 1 / TOKENS, dtype=torch.float64),
        lengths=lengths,
        proximal=prox if proximal else None,
    )


def by_sequence(x: Inputs, proximal: torch.Tensor) -> list[Sequence]:
    columns = [column.split(LENGTHS) for column in (x.logp, proximal, x.behaviour, x.age, x.advantage)]
    return [Sequence(*row[:4], float(row[4][0])) for row in zip(*columns, strict=True)]


def assert_the_same(ours: torch.Tensor, reference: torch.Tensor, logp: torch.Tensor) -> None:
    torch.testing.assert_close(ours, reference, atol=1e-12, rtol=0)
    mine, theirs = (torch.autograd.grad(loss, logp)[0] for loss in (ours, reference))
    assert (theirs != 0).any()
    torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_a_corrections_value_and_gradient_are_those_of_the_plain_formula(case: str) -> None:
    fields, weights = CASES[case]
    c = ObjectiveConfig.model_validate({"dual_clip": None, "proximal": "recompute", **fields})
    for seed in range(10):
        x = inputs(seed)
        assert x.proximal is not None
        mean = 1.0
        if c.weight_normalise:  # the trainer's part: over all micro-batches of the mini-batch
            w = correct(log_weight(x.proximal, x.behaviour)[0], x.lengths, c).weight
            assert w is not None
            mean = float(w.mean())
        expected = plain(c, weights)(by_sequence(x, x.proximal))
        assert_the_same(combine(x, c, mean).loss, expected, x.logp)


@pytest.mark.parametrize("fields", [{}, {"weight": "token"}], ids=["no weight", "token"])
def test_the_loglinear_proximal_is_a_constant_though_it_is_made_of_the_current_policy(fields: dict[str, Any]) -> None:
    c = ObjectiveConfig.model_validate({"dual_clip": None, "proximal": "loglinear", **fields})
    weights = token if fields else lambda log_w: [[1.0] * len(row) for row in log_w]
    for seed in range(10):
        x = inputs(seed, proximal=False)
        now, share = x.logp.detach(), x.age / (x.age + 1)
        proximal = (1 - share) * x.behaviour + share * now
        assert_the_same(combine(x, c).loss, plain(c, weights)(by_sequence(x, proximal)), x.logp)


def test_without_a_forward_pass_of_its_own_the_proximal_is_the_current_policy_held_constant() -> None:
    """The gradient of -w A log p, w = current / behaviour as a number."""
    c = ObjectiveConfig.model_validate({"dual_clip": None, "proximal": "recompute", "weight": "token"})
    x = inputs(0, proximal=False)
    w = (x.logp.detach() - x.behaviour).exp()
    (mine,) = torch.autograd.grad(combine(x, c).loss, x.logp)
    torch.testing.assert_close(mine, -w * x.advantage / TOKENS, atol=1e-12, rtol=0)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_a_kl_term_is_not_weighted_and_its_gradient_is_that_of_the_estimator(estimator: str) -> None:
    c = ObjectiveConfig.model_construct(
        **ObjectiveConfig.model_validate({"dual_clip": None, "proximal": "recompute", "weight": "token"}).model_dump()
        | {"kl_coefficient": 0.3, "kl_estimator": estimator}
    )
    x = inputs(1)
    assert x.proximal is not None
    reference = x.behaviour - 0.4
    with_kl = Inputs(**{**vars(x), "reference": reference})
    d = x.logp - reference
    term = {"k1": d, "k2": d.square() / 2, "k3": torch.expm1(-d) + d}[estimator]
    expected = plain(c, token)(by_sequence(x, x.proximal)) + 0.3 * term.mean()
    assert_the_same(combine(with_kl, c).loss, expected, x.logp)
