"""From a step's groups to training sequences: rewards composed, advantages computed, failures masked."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch

from chorus.learner.objectives.advantages import ADVANTAGES, Batch, Disagreement, disagreement
from chorus.learner.objectives.kl import kl
from chorus.learner.training.batch import TrainingSequence
from chorus.learner.training.control import Decisions
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Rollout
from chorus.protocol.messages import RolloutGroup, Sample, unpack_floats, unpack_ids
from chorus.protocol.rewards import GATED, compose_group
from chorus.protocol.runtime.exits import CannotGoOn

log = logging.getLogger("chorus.learner")
Reference = Callable[[list[TrainingSequence]], list[np.ndarray]]  # log-probabilities of the completion tokens


@dataclass(frozen=True)
class Experience:
    """`sequences[k]` belongs to `samples[k]`; rewards, advantages [samples]; reward NaN where the verifier failed.

    penalties: what each sample paid of the soft overlong penalty, 0 or negative, or None where there is none.
    masked: without a grade or with log-probabilities that are no numbers. overlong: left out by
    `objective.overlong_filter`. kl_reward: the mean penalty a sample paid, before its coefficient, or None.
    disagreement: of the groups' answers, where the advantages are SEED-GRPO's. version: of the weights that it trains.
    sizes: samples of each group. paid: by part, what each sample got for its place in its group and in the run, 0 while
    the part's gate is closed.
    """

    sequences: list[TrainingSequence]
    samples: list[tuple[RolloutGroup, Sample]]
    rewards: np.ndarray
    advantages: np.ndarray
    masked: int
    penalties: np.ndarray | None = None
    overlong: int = 0
    kl_reward: float | None = None
    disagreement: Disagreement | None = None
    sizes: tuple[int, ...] = ()
    version: int = 0
    paid: dict[str, np.ndarray] = field(default_factory=dict)


def make_experience(
    groups: list[Rollout],
    config: RunConfig,
    version: int = 0,
    reference: Reference | None = None,
    decisions: Decisions | None = None,
    filters_overlong: Callable[[int], bool] | None = None,
) -> Experience:
    """The learner's composition of the reward is the authoritative one. Masked samples keep their place,
    with no completion tokens: nothing of them reaches the loss or the token count.

    version: of the weights that are about to be trained; tokens' ages count from it. reference: asked where the
    objective takes a KL penalty from the reward. decisions: what holds for the step; None: all gates are open.
    filters_overlong: of an admission index, where stages differ in it.
    """
    decisions = decisions or Decisions.of_record({}, config.objective)
    samples = [(r.group, s) for r in groups for s in r.group.samples]
    spec = config.reward_spec
    parts = [part for r in groups for part in compose_group(spec, r.group.samples, decisions.gates)]
    rewards = np.array([np.nan if part.total is None else part.total for part in parts])
    usable = np.array([bool(np.isfinite(r) and _sampled_well(s)) for r, (_, s) in zip(rewards, samples, strict=True)])
    left_out = filters_overlong or (lambda index: config.objective.overlong_filter)
    cut_off = np.array([s.finish_reason == "length" and left_out(group.task.index) for group, s in samples])
    heat = config.sampling.temperature
    one_heat = all(r.group.task.sampling.temperature == heat for r in groups)
    sequences = [
        _sequence(group, sample, version, trained, None if one_heat else group.task.sampling.temperature)
        for (group, sample), trained in zip(samples, usable & ~cut_off, strict=True)
    ]
    sizes = tuple(len(r.group.samples) for r in groups)
    kl_penalties, kl_reward = None, None
    if reference is not None and config.objective.kl_in == "reward" and config.objective.needs_reference:
        kl_penalties, kl_reward = _kl_penalties(sequences, reference(sequences), config, decisions.kl_coefficient)
    batch = Batch(
        rewards=rewards,
        lengths=np.array([len(s.completion) for s in sequences]),
        group_size=sizes,
        clusters=np.array([-1 if s.grade.cluster is None else s.grade.cluster for _, s in samples]),
        penalties=kl_penalties,
    )
    advantages = ADVANTAGES[config.objective.advantage](batch, config.objective)
    return Experience(
        [replace(s, advantage=_plain(a)) for s, a in zip(sequences, advantages, strict=True)],
        samples,
        rewards,
        np.array([float(np.mean(a)) if np.size(a) else 0.0 for a in advantages]),
        masked=int((~usable).sum()),
        penalties=np.array([part.overlong for part in parts]) if spec.overlong else None,
        overlong=int((usable & cut_off).sum()),
        kl_reward=kl_reward,
        disagreement=disagreement(batch, config.objective) if config.objective.needs_clusters else None,
        sizes=sizes,
        version=version,
        paid={
            name: np.array([part.paid.get(name, 0.0) for part in parts])
            for name in GATED
            if getattr(spec, name) is not None
        },
    )


def _sampled_well(sample: Sample) -> bool:
    return bool(np.isfinite(unpack_floats(sample.logprobs)).all())


def _sequence(
    group: RolloutGroup, sample: Sample, version: int, trained: bool, temperature: float | None
) -> TrainingSequence:
    """Without its completion where it is not `trained`; the advantage comes later."""
    n = sample.n_tokens if trained else 0
    steps = np.repeat([step for _, step, _ in sample.versions], [tokens for *_, tokens in sample.versions])
    return TrainingSequence(
        unpack_ids(group.task.prompt_ids),
        unpack_ids(sample.token_ids)[:n],
        unpack_floats(sample.logprobs)[:n],
        0.0,
        np.maximum(version - steps[:n], 0).astype(np.int32),
        temperature,
    )


def _kl_penalties(
    sequences: list[TrainingSequence], reference: list[np.ndarray], config: RunConfig, coefficient: float
) -> tuple[list[np.ndarray], float]:
    """(coefficient x KL(behaviour || reference) a token, the mean of KL summed over a sample)."""
    o = config.objective
    terms = [
        kl(torch.tensor(s.behaviour), torch.tensor(r), o.kl_estimator, o.kl_clamp).double().numpy()
        for s, r in zip(sequences, reference, strict=True)
    ]
    return [coefficient * t for t in terms], float(np.mean([t.sum() for t in terms]))


def _plain(advantage: float | np.ndarray) -> float | np.ndarray:
    """One number where all tokens of a sample are worth the same."""
    if isinstance(advantage, np.ndarray) and advantage.ndim:
        same = advantage.size == 0 or np.ptp(advantage) == 0
        return (float(advantage[0]) if advantage.size else 0.0) if same else advantage
    return float(advantage)


def minibatches(experience: Experience, updates: int) -> list[list[TrainingSequence]]:
    """Split by groups, in order, into `updates` parts of equally many groups. Raises CannotGoOn where that can't be:
    what is left over would be acknowledged without being trained."""
    groups = len(experience.sizes)
    if not groups or groups % updates:
        raise CannotGoOn(
            f"a step of {groups} groups can't be split into learner.updates_per_step = {updates} equal updates; it was "
            "recorded under another recipe, or lost a group: resume with that recipe, or a learner.updates_per_step "
            f"that divides {groups}"
        )
    ends = np.cumsum([0, *experience.sizes])[:: groups // updates].tolist()
    return [experience.sequences[begin:end] for begin, end in pairwise(ends)]
