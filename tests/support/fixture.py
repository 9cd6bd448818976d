"""The objectives' shared fixture: 7 samples in 2 groups, 16 tokens, with what the papers' formulas make of them.

The expected values were computed from the formulas with numpy in float64, apart from this code base.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

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
LOG_W = [
    [0.05, 0.10],
    [-0.10, 0.00, 0.05],
    [0.00, -0.20, 1.80, 0.10],
    [0.05],
    [0.15, -0.05],
    [-0.05, 0.00, 0.05],
    [0.30],
]
LENGTHS = [len(row) for row in D]
GRPO = [0.866024, -0.866024, 0.866024, -0.866024, 0.949157, 0.094916, -1.044073]


def flat(rows: Sequence[Sequence[float]]) -> torch.Tensor:
    """[tokens] float64."""
    return torch.tensor([value for row in rows for value in row], dtype=torch.float64)


def exact_grpo(std_epsilon: float = 1e-6) -> list[float]:
    """The advantages to all digits, written out again."""
    result: list[float] = []
    for rewards in REWARDS:
        mean = sum(rewards) / len(rewards)
        std = (sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1)) ** 0.5
        result += [(r - mean) / (std + std_epsilon) for r in rewards]
    return result


def per_token(values: Sequence[float]) -> torch.Tensor:
    """[samples] to [tokens]."""
    return torch.from_numpy(np.repeat(np.asarray(values, dtype=np.float64), LENGTHS))
