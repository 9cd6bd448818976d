"""Advantages and losses against the published fixture: 7 samples, 2 groups, 16 tokens.

The expected values are computed by hand from the formulas (numpy, float64), not by the code under test.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from learner.objectives.advantages import grpo
from learner.objectives.losses import clipped

REWARDS = [[1.0, 0.0, 1.0, 0.0], [2.0, 1.25, 0.25]]
D = [
    [0.10, 0.40],
    [-0.30, 0.05, 0.20],
    [0.00, -0.50, 0.10, 0.30],
    [0.25],
    [0.35, -0.10],
    [-0.25, -0.05, 0.15],
    [0.60],
]
OLD = [
    [-1.0, -0.5],
    [-0.7, -0.2, -1.2],
    [-0.4, -0.9, -0.3, -0.6],
    [-1.5],
    [-0.8, -0.1],
    [-0.3, -1.1, -0.5],
    [-2.0],
]
GRPO = [0.866024, -0.866024, 0.866024, -0.866024, 0.949157, 0.094916, -1.044073]


def tokens(low: float, high: float) -> torch.Tensor:
    old = torch.tensor([x for row in OLD for x in row], dtype=torch.float64)
    new = old + torch.tensor([x for row in D for x in row], dtype=torch.float64)
    advantage = np.concatenate([grpo(np.array(r), 1e-6) for r in REWARDS])
    per_token = torch.tensor([a for a, row in zip(advantage, D, strict=True) for _ in row])
    return clipped(new, old, per_token, low, high, 3.0).loss


def test_grpo_advantages_are_those_of_the_fixture() -> None:
    computed = np.concatenate([grpo(np.array(r), 1e-6) for r in REWARDS])
    np.testing.assert_allclose(computed, GRPO, atol=1e-5)


@pytest.mark.parametrize(("high", "expected"), [(0.2, -0.123802), (0.28, -0.137208)])
def test_clipped_token_mean_is_that_of_the_fixture(high: float, expected: float) -> None:
    assert tokens(0.2, high).mean().item() == pytest.approx(expected, abs=1e-5)


def test_four_of_sixteen_tokens_are_clipped() -> None:
    old = torch.tensor([x for row in OLD for x in row])
    new = old + torch.tensor([x for row in D for x in row])
    per_token = torch.tensor([a for a, row in zip(GRPO, D, strict=True) for _ in row])
    result = clipped(new, old, per_token, 0.2, 0.28, 3.0)
    assert int(result.clipped_high.sum() + result.clipped_low.sum()) == 4
    assert not result.dual_clipped.any()


def test_dual_clip_bounds_the_loss_of_a_bad_sample_that_became_likely() -> None:
    result = clipped(torch.tensor([1.5]), torch.zeros(1), torch.tensor([-1.0]), 0.2, 0.28, 3.0)
    assert result.loss.item() == pytest.approx(3.0)
    assert bool(result.dual_clipped)


def test_equal_rewards_have_exactly_no_advantage() -> None:
    assert (grpo(np.full(8, 0.1), 1e-6) == 0).all()


def test_a_sample_without_a_grade_neither_moves_the_baseline_nor_has_an_advantage() -> None:
    with_failure = grpo(np.array([1.0, np.nan, 0.0, 1.0]), 1e-6)
    np.testing.assert_allclose(with_failure[[0, 2, 3]], grpo(np.array([1.0, 0.0, 1.0]), 1e-6))
    assert with_failure[1] == 0


def test_a_huge_log_ratio_stays_finite() -> None:
    result = clipped(torch.tensor([500.0]), torch.zeros(1), torch.tensor([-1.0]), 0.2, 0.28, 3.0)
    assert torch.isfinite(result.loss).all()
