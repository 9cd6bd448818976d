"""From a step's groups to training sequences: rewards composed, advantages computed, failures masked."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from learner.batch import TrainingSequence
from learner.objectives.advantages import ADVANTAGES
from learner.window import Ready
from protocol.config import RunConfig
from protocol.messages import RolloutGroup, Sample, unpack_floats, unpack_ids
from protocol.rewards import compose

log = logging.getLogger("chorus.learner")


@dataclass(frozen=True)
class Prepared:
    """`sequences[k]` belongs to `samples[k]`; rewards [samples], NaN where the verifier failed."""

    sequences: list[TrainingSequence]
    samples: list[tuple[RolloutGroup, Sample]]
    rewards: np.ndarray
    masked: int


def prepare(groups: list[Ready], config: RunConfig) -> Prepared:
    """The learner's composition of the reward is the authoritative one. Masked samples keep their place,
    with no completion tokens: nothing of them reaches the loss or the token count."""
    advantage_of = ADVANTAGES[config.objective.advantage]
    sequences: list[TrainingSequence] = []
    samples: list[tuple[RolloutGroup, Sample]] = []
    rewards: list[float] = []
    masked = 0
    for ready in groups:
        group = ready.group
        totals = np.array([_reward(s, config) for s in group.samples])
        advantages = advantage_of(totals, config.objective.std_epsilon)
        prompt = unpack_ids(group.task.prompt_ids)
        for sample, total, advantage in zip(group.samples, totals, advantages, strict=True):
            behaviour = unpack_floats(sample.logprobs)
            usable = bool(np.isfinite(total) and np.isfinite(behaviour).all())
            masked += not usable
            completion = unpack_ids(sample.token_ids)
            sequences.append(
                TrainingSequence(
                    prompt,
                    completion if usable else completion[:0],
                    behaviour if usable else behaviour[:0],
                    float(advantage),
                )
            )
            samples.append((group, sample))
            rewards.append(float(total))
    return Prepared(sequences, samples, np.array(rewards), masked)


def _reward(sample: Sample, config: RunConfig) -> float:
    grade = sample.grade
    total = compose(config.reward, grade.accuracy, grade.format, n_tokens=sample.n_tokens).total
    return float("nan") if total is None else total


def minibatches(prepared: Prepared, group_size: int, updates: int) -> list[list[TrainingSequence]]:
    """Split by groups, in order, into `updates` equal parts."""
    per_update = len(prepared.sequences) // group_size // updates * group_size
    return [prepared.sequences[k * per_update : (k + 1) * per_update] for k in range(updates)]
