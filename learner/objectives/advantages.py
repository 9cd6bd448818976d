"""Advantages: what each sample of a group is worth against its siblings. All in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Advantage = Callable[[np.ndarray, float], np.ndarray]


def grpo(rewards: np.ndarray, std_epsilon: float) -> np.ndarray:
    """(R - mean) / (sample std + epsilon); exactly 0 where all rewards are equal. GRPO, arXiv 2402.03300.

    Args:
        rewards: [samples] of one group; NaN where the verifier failed. Such a sample neither moves the
            baseline nor has an advantage of its own.
        std_epsilon: keeps small spreads from exploding.

    Returns:
        [samples] float64, 0 for samples without a reward.
    """
    graded = np.isfinite(rewards)
    result = np.zeros_like(rewards, dtype=np.float64)
    known = rewards[graded].astype(np.float64)
    if known.size < 2 or np.ptp(known) == 0:
        return result
    result[graded] = (known - known.mean()) / (known.std(ddof=1) + std_epsilon)
    return result


ADVANTAGES: dict[str, Advantage] = {"grpo": grpo}
