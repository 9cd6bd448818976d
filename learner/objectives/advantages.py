"""Advantages: what each sample is worth. All in float64.

The plain functions take one group (or one batch) as arrays; `ADVANTAGES` names them for a whole step. A reward is NaN
where the verifier failed: such a sample moves no baseline and has no advantage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from chorus.protocol.config.objective import ObjectiveConfig

Advantage = float | np.ndarray  # of a sample, or of each of its tokens


@dataclass(frozen=True)
class Batch:
    """One step's samples, groups in order, of `group_size` samples each, or of these sizes.

    rewards [samples], NaN: not graded; lengths [samples]: completion tokens that reach the loss, 0 for masked ones;
    clusters [samples]: equal numbers within a group are equal answers, -1: not known; penalties: a
    sample's KL penalty a token, already times its coefficient, or None.
    """

    rewards: np.ndarray
    lengths: np.ndarray
    group_size: int | Sequence[int]
    clusters: np.ndarray
    penalties: list[np.ndarray] | None = None

    def totals(self) -> np.ndarray:
        """[samples]: rewards less the KL penalty summed over the sample's tokens."""
        if self.penalties is None:
            return self.rewards
        return self.rewards - np.array([float(p.sum()) for p in self.penalties])

    @property
    def sizes(self) -> np.ndarray:
        """[groups]: samples of each."""
        if isinstance(self.group_size, int):
            return np.full(len(self.rewards) // self.group_size, self.group_size)
        return np.array(self.group_size, dtype=np.int64)

    def groups(self, values: np.ndarray) -> list[np.ndarray]:
        """Values [samples] of each group."""
        return np.split(values, np.cumsum(self.sizes)[:-1]) if len(values) else []

    def by_group(self, advantage: Callable[[np.ndarray], np.ndarray]) -> list[Advantage]:
        groups = self.groups(self.totals())
        return list(np.concatenate([advantage(g) for g in groups])) if groups else []


def _graded(rewards: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """(where, rewards) of what is graded; None: too few to compare, or all the same, so nothing to learn."""
    where = np.isfinite(rewards)
    known = rewards[where].astype(np.float64)
    return None if known.size < 2 or np.ptp(known) == 0 else (where, known)


def grpo(rewards: np.ndarray, std_epsilon: float) -> np.ndarray:
    """(R - mean) / (sample std + epsilon); exactly 0 where all rewards are equal. GRPO, arXiv 2402.03300.

    Args:
        rewards: [samples] of one group.
        std_epsilon: keeps small spreads from exploding.

    Returns:
        [samples] float64, 0 for samples without a reward.
    """
    result = np.zeros(rewards.shape, dtype=np.float64)
    if (graded := _graded(rewards)) is not None:
        where, known = graded
        result[where] = (known - known.mean()) / (known.std(ddof=1) + std_epsilon)
    return result


def dr_grpo(rewards: np.ndarray) -> np.ndarray:
    """R - mean, [samples] of one group: no division by the spread. Dr. GRPO, arXiv 2503.20783."""
    result = np.zeros(rewards.shape, dtype=np.float64)
    if (graded := _graded(rewards)) is not None:
        where, known = graded
        result[where] = known - known.mean()
    return result


def rloo(rewards: np.ndarray) -> np.ndarray:
    """R - mean of the others, [samples] of one group; 0 for a lone sample. RLOO, arXiv 2402.14740."""
    size = int(np.isfinite(rewards).sum())
    return dr_grpo(rewards) * (size / (size - 1) if size > 1 else 0.0)


def semantic_entropy(masses: np.ndarray) -> float:
    """Entropy of the answers' clusters, in nats. masses: [clusters], positive, sum 1."""
    return float(-(masses * np.log(masses)).sum())


def seed_factor(clusters: np.ndarray, alpha: float) -> float:
    """What SEED-GRPO multiplies a group's advantages by: 1 where all answers agree, less where they differ.

    arXiv 2505.12346, by second hand: 1 - alpha * entropy / log(samples), with the entropy of the clusters' shares.

    Args:
        clusters: [samples] of one group, the graded ones.

    Returns:
        The factor, never below 0; 1 for fewer than two samples.
    """
    if len(clusters) < 2:
        return 1.0
    _, counts = np.unique(clusters, return_counts=True)
    return max(0.0, 1.0 - alpha * semantic_entropy(counts / len(clusters)) / math.log(len(clusters)))


def whiten(values: list[np.ndarray], use: np.ndarray, *, unbiased: bool, epsilon: float) -> list[np.ndarray]:
    """Standardise over all tokens of the samples in `use`; the others get 0.

    Args:
        values: a sample's values, [tokens] each.
        use: [samples] bool.
        unbiased: (x - mean) / sqrt(variance + epsilon) with the n - 1 variance, as REINFORCE++ does; otherwise
            (x - mean) / (population std + epsilon), as the QuestA run does.
    """
    known = [v for v, used in zip(values, use, strict=True) if used]
    tokens = np.concatenate(known) if known else np.empty(0)
    if tokens.size < 2 or np.ptp(tokens) == 0:
        return [np.zeros(len(v)) for v in values]
    spread = math.sqrt(tokens.var(ddof=1) + epsilon) if unbiased else tokens.std() + epsilon
    mean = tokens.mean()
    return [(v - mean) / spread if used else np.zeros(len(v)) for v, used in zip(values, use, strict=True)]


def returns_to_go(reward: float, penalty: np.ndarray, discount: float) -> np.ndarray:
    """[tokens]: the reward, paid on the last token, and -penalty on each, summed from a token to the end."""
    result = np.empty(len(penalty))
    ahead = 0.0
    for t in range(len(penalty) - 1, -1, -1):
        ahead = -float(penalty[t]) + (reward if t == len(penalty) - 1 else 0.0) + discount * ahead
        result[t] = ahead
    return result


def reinforce_pp(batch: Batch, discount: float = 1.0) -> list[Advantage]:
    """Returns to go, whitened over all tokens of the batch. REINFORCE++, arXiv 2501.03262.

    Groups play no part: one whose rewards are all equal is still worth more, or less, than the batch's mean.
    """
    use = np.isfinite(batch.rewards) & (batch.lengths > 0)
    penalties = batch.penalties or [np.zeros(n) for n in batch.lengths]
    values = [returns_to_go(float(r), p, discount) for r, p in zip(batch.rewards, penalties, strict=True)]
    return list(whiten(values, use, unbiased=True, epsilon=1e-8))


def reinforce_pp_baseline(batch: Batch) -> list[Advantage]:
    """The group's mean is subtracted first, then all tokens of the batch are whitened. REINFORCE++-baseline.

    A group without any spread stays at exactly 0, though its tokens count in the batch's mean and variance: whitening
    alone would move it by minus the mean, which is not 0 where lengths go with rewards.
    """
    centred = batch.by_group(dr_grpo)
    use = np.isfinite(batch.rewards) & (batch.lengths > 0)
    values = [np.full(n, a) for n, a in zip(batch.lengths, centred, strict=True)]
    differs = np.repeat([_graded(g) is not None for g in batch.groups(batch.totals())], batch.sizes)
    whitened = whiten(values, use, unbiased=True, epsilon=1e-8)
    return [a if differ else np.zeros(len(a)) for a, differ in zip(whitened, differs, strict=True)]


def batch_normalised(
    batch: Batch, scale: float = 5.0, bound: float | None = 20.0, epsilon: float = 1e-5
) -> list[Advantage]:
    """Rewards times `scale`, clipped to +-`bound`, normalised over all tokens of the batch; groups play no part.

    The published configuration of the QuestA run (arXiv 2507.13266), which is called GRPO but has no group baseline:
    a group whose rewards are all equal is still worth more, or less, than the batch's mean.
    """
    use = np.isfinite(batch.rewards) & (batch.lengths > 0)
    rewards = batch.totals() * scale
    if bound is not None:
        rewards = np.clip(rewards, -bound, bound)
    values = [np.full(n, r) for n, r in zip(batch.lengths, rewards, strict=True)]
    return list(whiten(values, use, unbiased=False, epsilon=epsilon))


@dataclass(frozen=True)
class Disagreement:
    """Of each group's answers, [groups] both. factors: what SEED-GRPO multiplies its advantages by. clusters: how many
    different answers the graded samples gave; 0: not known, so the factor is 1."""

    factors: np.ndarray
    clusters: np.ndarray


def disagreement(batch: Batch, c: ObjectiveConfig) -> Disagreement:
    """Of samples with a grade and a cluster."""
    usable = batch.groups(np.isfinite(batch.rewards) & (batch.clusters >= 0))
    clusters = [row[used] for row, used in zip(batch.groups(batch.clusters), usable, strict=True)]
    factors = [seed_factor(answers, c.seed_alpha) for answers in clusters]
    return Disagreement(np.array(factors), np.array([len(np.unique(answers)) for answers in clusters]))


def seed_grpo(batch: Batch, c: ObjectiveConfig) -> list[Advantage]:
    """Dr. GRPO's advantages times the factor of each group."""
    plain = np.array(batch.by_group(dr_grpo))
    return list(plain * np.repeat(disagreement(batch, c).factors, batch.sizes))


ADVANTAGES: dict[str, Callable[[Batch, ObjectiveConfig], list[Advantage]]] = {
    "grpo": lambda batch, c: batch.by_group(lambda rewards: grpo(rewards, c.std_epsilon)),
    "dr_grpo": lambda batch, c: batch.by_group(dr_grpo),
    "rloo": lambda batch, c: batch.by_group(rloo),
    "seed_grpo": seed_grpo,
    "reinforce_pp": lambda batch, c: reinforce_pp(batch, c.discount),
    "reinforce_pp_baseline": lambda batch, c: reinforce_pp_baseline(batch),
    "batch_normalised": lambda batch, c: batch_normalised(batch, c.reward_scale, c.reward_bound, c.std_epsilon),
}
