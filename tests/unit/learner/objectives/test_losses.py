"""Losses against the published fixture, and their gradients against autograd on the plain formulas in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from fixture import GRPO, LENGTHS, OLD, D, exact_grpo, flat, per_token

from chorus.learner.objectives.aggregation import token_scales
from chorus.learner.objectives.losses import Bounds, TokenLoss, Tokens, loss_function
from chorus.protocol.config.objective import LOSSES

DR_GRPO = [0.5, -0.5, 0.5, -0.5, 5 / 6, 1 / 12, -11 / 12]


def tokens(advantages: list[float]) -> Tokens:
    old = flat(OLD)
    logp = (old + flat(D)).requires_grad_()
    return Tokens(logp, old, per_token(advantages), torch.tensor(LENGTHS))


def run(name: str, low: float | None, high: float | None, dual: float | None = None) -> TokenLoss:
    advantages = exact_grpo(1e-8 if name == "gmpo" else 1e-6)
    return loss_function(name)(tokens(advantages), Bounds(low, high, dual))


def total(result: TokenLoss, mode: str, constant: int = 1) -> float:
    return (result.loss.detach() * per_token(token_scales(LENGTHS, mode, constant).tolist())).sum().item()


def sequences_in(flags: torch.Tensor) -> int:
    return sum(bool(part.any()) for part in flags.split(LENGTHS))


def test_the_clipped_losses_of_each_token_are_those_of_the_fixture() -> None:
    expected = [
        -0.957104, -1.039229, 0.692819, 0.910426, 1.057764, -0.866024, -0.525270, -0.957104, -1.039229, 1.111997,
        -1.138988, -0.858833, -0.073920, -0.090287, -0.110276, 1.902424,
    ]  # fmt: skip
    torch.testing.assert_close(
        run("ppo", 0.2, 0.2).loss.detach(), torch.tensor(expected, dtype=torch.float64), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(
    ("low", "high", "dual", "mode", "expected"),
    [
        (0.2, 0.2, None, "seq-mean-token-mean", 0.137992),  # GRPO
        (0.2, 0.2, None, "token-mean", -0.123802),
        (0.2, 0.28, 3.0, "token-mean", -0.137208),  # DAPO
    ],
)
def test_the_clipped_loss_is_that_of_the_fixture(
    low: float, high: float, dual: float | None, mode: str, expected: float
) -> None:
    result = run("ppo", low, high, dual)
    assert total(result, mode) == pytest.approx(expected, abs=1e-5)
    assert int(result.clipped_high.sum() + result.clipped_low.sum()) == 4
    assert not result.dual_clipped.any()


def test_the_loss_of_dr_grpo_is_that_of_the_fixture() -> None:
    result = loss_function("ppo")(tokens(DR_GRPO), Bounds(0.2, 0.2))
    assert total(result, "dr-const", 4) == pytest.approx(-0.044815, abs=1e-5)
    assert int(result.clipped_high.sum() + result.clipped_low.sum()) == 4


def test_dual_clip_bounds_the_loss_of_a_bad_sample_that_became_likely() -> None:
    one = torch.ones(1, dtype=torch.int64)
    result = loss_function("ppo")(
        Tokens(torch.tensor([1.5]), torch.zeros(1), torch.tensor([-1.0]), one), Bounds(0.2, 0.28, 3.0)
    )
    assert result.loss.item() == pytest.approx(3.0)
    assert bool(result.dual_clipped)


@pytest.mark.parametrize(
    ("bound", "loss", "rho"),
    [
        (0.4, 0.106239, [1.284025, 0.983471, 0.975310, 1.284025, 1.133148, 0.951229, 1.822119]),
        (0.2, 0.139561, [1.161834, 1.016806, 0.951229, 1.284025, 1.051271, 0.951229, 1.822119]),
    ],
)
def test_gmpo_is_that_of_the_fixture(bound: float, loss: float, rho: list[float]) -> None:
    result = run("gmpo", bound, bound)
    torch.testing.assert_close(
        (-result.loss / tokens(exact_grpo(1e-8)).advantage).detach(), per_token(rho), atol=1e-5, rtol=0
    )
    assert total(result, "seq-mean-token-mean") == pytest.approx(loss, abs=1e-5)
    assert bool((result.clipped_high | result.clipped_low).any()) == (bound == 0.2)


def test_gspo_is_that_of_the_fixture() -> None:
    result = run("gspo", 3e-4, 4e-4)
    assert total(result, "seq-mean-token-mean") == pytest.approx(0.161336, abs=1e-5)
    assert sequences_in(result.clipped_high | result.clipped_low) == 3


@pytest.mark.parametrize(("name", "high"), [("cispo", 0.28), ("cispo_absolute", 1.28)])
def test_cispo_is_that_of_the_fixture_in_both_conventions(name: str, high: float) -> None:
    result = run(name, None, high)
    assert total(result, "token-mean") == pytest.approx(-0.100809, abs=1e-5)
    assert int(result.clipped_high.sum()) == 5
    assert not result.clipped_low.any()


# -- gradients ----------------------------------------------------------------------------------------------


def ppo_reference(logp: torch.Tensor, old: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    r = (logp - old).exp()
    return -torch.minimum(a * r, a * r.clamp(0.8, 1.28)).mean()


def dual_reference(logp: torch.Tensor, old: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    r = (logp - old).exp()
    gain = torch.minimum(a * r, a * r.clamp(0.8, 1.28))
    return -torch.where(a < 0, torch.maximum(gain, 1.1 * a), gain).mean()


def gmpo_reference(logp: torch.Tensor, old: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    losses = []
    for new, before, worth in zip(logp.split(LENGTHS), old.split(LENGTHS), a.split(LENGTHS), strict=True):
        sign = worth[0].sign()
        steps = [torch.minimum(sign * d, sign * d.clamp(-0.2, 0.2)) * sign for d in new - before]
        losses.append(-worth[0] * torch.stack(steps).mean().exp())
    return torch.stack(losses).mean()


def gspo_reference(logp: torch.Tensor, old: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    losses = []
    for new, before, worth in zip(logp.split(LENGTHS), old.split(LENGTHS), a.split(LENGTHS), strict=True):
        s = (new - before).mean().exp()
        losses.append(torch.maximum(-worth[0] * s, -worth[0] * s.clamp(1 - 0.05, 1 + 0.1)))
    return torch.stack(losses).mean()


def cispo_reference(logp: torch.Tensor, old: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    weight = (logp.detach() - old).exp().clamp(0.9, 1.2)
    return -(weight * a * logp).mean()


def reinforce_reference(logp: torch.Tensor, old: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    return -(a * logp).mean()


Reference = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@pytest.mark.parametrize(
    ("name", "bounds", "mode", "reference"),
    [
        ("ppo", Bounds(0.2, 0.28), "token-mean", ppo_reference),
        ("ppo", Bounds(0.2, 0.28, 1.1), "token-mean", dual_reference),
        ("gmpo", Bounds(0.2, 0.2), "seq-mean-token-mean", gmpo_reference),
        ("gspo", Bounds(0.05, 0.1), "seq-mean-token-mean", gspo_reference),
        ("cispo", Bounds(0.1, 0.2), "token-mean", cispo_reference),
        ("cispo_absolute", Bounds(0.9, 1.2), "token-mean", cispo_reference),
        ("policy_gradient", Bounds(None, None), "token-mean", reinforce_reference),
    ],
    ids=["ppo", "ppo dual", "gmpo", "gspo", "cispo", "cispo_absolute", "policy_gradient"],
)
def test_value_and_gradient_are_those_of_the_plain_formula(
    name: str, bounds: Bounds, mode: str, reference: Reference
) -> None:
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        old = -torch.rand(16, generator=generator, dtype=torch.float64) * 2
        logp = (old + torch.randn(16, generator=generator, dtype=torch.float64) * 0.3).requires_grad_()
        worth = torch.randn(7, generator=generator, dtype=torch.float64)
        a = worth.repeat_interleave(torch.tensor(LENGTHS))
        ours = loss_function(name)(Tokens(logp, old, a, torch.tensor(LENGTHS)), bounds).loss
        loss = (ours * per_token(token_scales(LENGTHS, mode).tolist())).sum()
        expected = reference(logp, old, a)
        torch.testing.assert_close(loss, expected, atol=1e-12, rtol=0)
        (mine,) = torch.autograd.grad(loss, logp)
        (theirs,) = torch.autograd.grad(expected, logp)
        torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=0)


# -- edges --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("bad", [float("nan"), float("-inf"), float("inf")])
def test_a_log_ratio_that_is_no_number_counts_as_0_and_is_marked(name: str, bad: float) -> None:
    logp = torch.tensor([-1.0, -0.5, -2.0], requires_grad=True)
    old = torch.tensor([-1.0, bad, -2.0])
    x = Tokens(logp, old, torch.tensor([1.0, 1.0, -1.0]), torch.tensor([2, 1]))
    result = loss_function(name)(x, Bounds(None, 1.28))
    assert torch.isfinite(result.loss).all()
    if name != "policy_gradient":  # which has no ratio
        assert result.nonfinite.tolist() == [False, True, False]
    (gradient,) = torch.autograd.grad(result.loss.sum(), logp)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_huge_log_ratio_stays_finite(name: str) -> None:
    x = Tokens(torch.tensor([500.0]), torch.zeros(1), torch.tensor([-1.0]), torch.tensor([1]))
    assert torch.isfinite(loss_function(name)(x, Bounds(0.2, 1.28)).loss).all()


@pytest.mark.parametrize("name", LOSSES)
def test_without_an_advantage_there_is_no_gradient_and_nothing_counts_as_clipped(name: str) -> None:
    logp = (flat(OLD) + flat(D)).requires_grad_()
    result = loss_function(name)(
        Tokens(logp, flat(OLD), torch.zeros(16, dtype=torch.float64), torch.tensor(LENGTHS)), Bounds(0.2, 0.2)
    )
    (gradient,) = torch.autograd.grad(result.loss.sum(), logp)
    assert (gradient == 0).all()
    if not name.startswith("cispo"):  # its bound is on the weight, whatever the advantage
        assert not (result.clipped_high | result.clipped_low).any()


def test_the_rounded_advantages_of_the_fixture_are_the_exact_ones() -> None:
    assert exact_grpo() == pytest.approx(GRPO, abs=1e-5)
