"""A supervised update: demonstrations instead of rollouts, on the same weights, with an optimizer of its own.

    demonstrations ─▶ micro-batches as a step's ─▶ -mean log-probability of target tokens - c x mean entropy ─▶ AdamW

Both means are over all target tokens of the update, on all ranks, so neither micro-batches nor ranks change the
gradient. A prompt's tokens are read and never predicted. Log-probabilities are the model's own, at temperature 1,
whatever temperature the run samples at.

>>> logp, entropy = torch.tensor([-0.2, -0.4, -0.6, -1.0]), torch.full((4,), 1.2)
>>> round(float(supervised_loss(logp, entropy, 4, 0.001)[0]), 4)
0.5488
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from chorus.learner.training.batch import MicroBatch, TrainingSequence, planned
from chorus.learner.training.optimizer import make_optimizer, update, updates_of
from chorus.learner.training.trainer import Trainer
from chorus.protocol.config.supervised import Supervision
from chorus.protocol.run_folder.demonstrations import Demonstration

_SUPERVISED = -1  # in the place of a step's update: what is drawn is drawn by nobody else


@dataclass(frozen=True)
class SupervisedStats:
    """One update, the same on all ranks, measured before it. `skipped`: its gradient was no finite number, so the
    weights stayed. `verdicts`: share of the demonstrations with a verdict to which the policy gave more than one half;
    None: none had.
    """

    loss: float
    nll: float
    entropy: float
    tokens: int
    demonstrations: int
    grad_norm: float
    lr: float
    skipped: bool = False
    verdicts: float | None = None

    def figures(self) -> dict[str, Any]:
        """As the record of a step has them (protocol/metrics/step.py)."""
        return {
            "supervised_updates": 1,
            "supervised_loss": self.loss,
            "supervised_nll": self.nll,
            "supervised_entropy": self.entropy,
            "supervised_tokens": self.tokens,
            "supervised_demonstrations": self.demonstrations,
            "supervised_grad_norm": self.grad_norm,
            "supervised_lr": self.lr,
            "supervised_verdicts": self.verdicts,
        }


class Supervised:
    """Owns the second optimizer; the trainer owns the policy. `total`: updates, where the run knows their number."""

    def __init__(self, trainer: Trainer, settings: Supervision, total: int) -> None:
        self._trainer = trainer
        self._settings = settings
        self._total = total
        self.optimizer = make_optimizer(trainer.config, trainer.policy.parameters(), trainer.rank, settings)

    def step(self, batch: Sequence[Demonstration]) -> SupervisedStats:
        """One update on all of them. A collective: all ranks call it with the same batch."""
        t, s = self._trainer, self._settings
        plain = None if t.policy.temperature == 1.0 else 1.0
        sequences = [_sequence(d, plain) for d in batch]
        tokens = sum(len(d.target) for d in batch)
        self.optimizer.zero_grad(set_to_none=True)
        sums = torch.zeros(4, dtype=torch.float64)
        mine, weights = t.share(planned(sequences, t.config.learner.token_budget))
        for b, weight in zip(t.filled(sequences, mine), weights, strict=True):
            logp, entropy = t.forward(t.policy, b, s.entropy_coefficient != 0)
            terms = supervised_loss(logp, entropy, tokens, s.entropy_coefficient)
            (terms[0] * weight * t.world).backward()  # FSDP averages over ranks; the loss is a sum over them
            right = torch.tensor(_likely_verdicts(batch, b, logp))
            sums += weight * torch.stack([term.detach().double().cpu() for term in (*terms, right)])
        norm = torch.nn.utils.clip_grad_norm_(t.policy.parameters(), s.grad_clip)
        norm = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        if t.world > 1:
            sums = sums.to(t.device)
            dist.all_reduce(sums)
        rate = s.rate(self.updates, self._total)
        if math.isfinite(norm):
            update(self.optimizer, rate, (self.updates, _SUPERVISED))
        loss, nll, spread, right = sums.tolist()
        with_verdict = sum(d.verdict > 0 for d in batch)
        verdicts = right / with_verdict if with_verdict else None
        return SupervisedStats(loss, nll, spread, tokens, len(batch), norm, rate, not math.isfinite(norm), verdicts)

    @property
    def updates(self) -> int:
        """That the optimizer has made, resumed or not."""
        return updates_of(self.optimizer)


def supervised_loss(
    logp: torch.Tensor, entropy: torch.Tensor, tokens: int, coefficient: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(loss, negative log-likelihood, entropy), what a micro-batch adds to their means over the update's `tokens`."""
    nll, spread = -logp.sum() / tokens, entropy.sum() / tokens
    return nll - coefficient * spread, nll, spread


def _likely_verdicts(batch: Sequence[Demonstration], b: MicroBatch, logp: torch.Tensor) -> float:
    """How many of the micro-batch's verdicts are likelier than not, after what stands before them."""
    spans = [(where.stop - 1 - batch[i].verdict, where.stop - 1) for i, where in b.origin if batch[i].verdict]
    return float(sum(float(logp[first:last].detach().sum()) > math.log(0.5) for first, last in spans))


def _sequence(d: Demonstration, temperature: float | None) -> TrainingSequence:
    """As the policy's forward pass takes it; nobody has sampled it, so it has no behaviour and no advantage."""
    nothing = np.zeros(len(d.target), dtype=np.float32)
    prompt, target = np.array(d.prompt, dtype=np.int32), np.array(d.target, dtype=np.int32)
    return TrainingSequence(prompt, target, nothing, 0.0, temperature=temperature)
