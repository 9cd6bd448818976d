"""One training step: mini-batches, micro-batches, one optimizer step each.

What a token's loss counts depends on the whole mini-batch (learner/objectives/aggregation.py), over all micro-batches
and ranks, so the gradient does not depend on how the batch was cut. Every rank runs the same number of forward
passes (FSDP gathers in each); a rank that is short of work repeats a micro-batch with weight 0.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from chorus.learner.objectives.aggregation import token_scales
from chorus.learner.objectives.corrections import log_weight
from chorus.learner.objectives.objective import Inputs, combine, correct
from chorus.learner.objectives.segments import over_tokens
from chorus.learner.training.batch import MicroBatch, TrainingSequence, one_ahead, planned
from chorus.learner.training.optimizer import make_optimizer, update, updates_of
from chorus.learner.training.policy import Policy, WithoutAdapter
from chorus.learner.training.token_stats import StepStats
from chorus.learner.training.utilisation import Utilisation
from chorus.protocol.config.run import RunConfig
from chorus.protocol.config.settings import StepSettings

Scored = list[torch.Tensor]  # one [tokens] a micro-batch of this rank


class Trainer:
    """Owns the policy and its optimizer. The same steps on the same sequences give the same weights.

    `reference`: a frozen policy, where the objective has a KL term. `done`: the run's steps before the next one, which
    set the learning rate; a way back to earlier weights leaves them as they are.
    """

    def __init__(
        self, policy: Policy, config: RunConfig, device: torch.device, reference: Policy | WithoutAdapter | None = None
    ) -> None:
        self.done = 0
        self.policy = policy
        self.reference = reference
        self.config = config
        self.objective = config.objective
        self.device = device
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self._lr = config.learner.lr
        self._utilisation = Utilisation(policy, device, config.model.dtype == "bfloat16", self.world)
        self.optimizer = make_optimizer(config, policy.parameters(), self.rank, config.learner)

    def step(self, minibatches: list[list[TrainingSequence]], settings: StepSettings | None = None) -> StepStats:
        """Train on each mini-batch in turn: one optimizer step each. settings: None: the configuration's."""
        started, settings = time.monotonic(), settings or StepSettings.of(self.config)
        told = {"kl_coefficient": settings.kl_coefficient, "entropy_coefficient": settings.entropy_coefficient}
        self.objective = self.config.objective.model_copy(update=told)
        self._lr = settings.lr
        if settings.reset_optimizer:
            self._forget()
        lengths = [len(s.completion) for batch in minibatches for s in batch]
        stats = StepStats(len(lengths), lengths=lengths if self.config.rollouts.token_stats else ())
        plans = [planned(batch, self.config.learner.token_budget) for batch in minibatches]
        proximal: list[Scored | None] = [None] * len(minibatches)
        if self._needs_proximal_pass(len(minibatches)):
            scored = ((batch, self.share(plan)[0]) for batch, plan in zip(minibatches, plans, strict=True))
            proximal = [self._log_probabilities(self.policy, self.filled(batch, mine)) for batch, mine in scored]
        offset = 0
        for k, (batch, plan, prox) in enumerate(zip(minibatches, plans, proximal, strict=True)):
            if self._gradients(batch, plan, prox, stats, offset):
                stats.lr = self._rate(k)
                update(self.optimizer, stats.lr, (self.done + 1, k))
            else:
                stats.skipped_updates += 1
            offset += len(batch)
        self.done += 1
        if self.world > 1:
            stats.reduce(self.device)
        seconds = time.monotonic() - started  # whatever was begun on a device has been asked for its result
        stats.mfu = self._utilisation.share((s.length for batch in minibatches for s in batch), seconds)
        return stats

    def _needs_proximal_pass(self, updates: int) -> bool:
        """With one update the current policy is the proximal one, except that its weights' mean must be known first."""
        o = self.objective
        return o.proximal == "recompute" and (updates > 1 or o.weight_normalise)

    def _scales(self, batch: list[TrainingSequence]) -> np.ndarray:
        o = self.objective
        constant = o.length_constant or self.config.sampling.max_tokens
        micro = o.micro_sequences if o.token_mean_scope == "micro" else None
        return token_scales([len(s.completion) for s in batch], o.aggregation, constant, micro)

    def filled(self, batch: Sequence[TrainingSequence], plans: Sequence[list[int]]) -> Iterator[MicroBatch]:
        """The micro-batches of these plans, on the device, one after the other."""
        return one_ahead(batch, plans, self.device)

    def share(self, plans: Sequence[list[int]]) -> tuple[list[list[int]], list[float]]:
        """This rank's share and each one's weight; all ranks get equally many."""
        rounds = -(-len(plans) // self.world)
        mine, weights = [], []
        for k in range(rounds):
            at = k * self.world + self.rank
            mine.append(plans[min(at, len(plans) - 1)])
            weights.append(1.0 if at < len(plans) else 0.0)
        return mine, weights

    @torch.no_grad()
    def _log_probabilities(self, policy: Policy | WithoutAdapter, batches: Iterable[MicroBatch]) -> Scored:
        return [self.forward(policy, b)[0] for b in batches]

    def forward(
        self, policy: Policy | WithoutAdapter, b: MicroBatch, entropy_gradient: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(log-probability, entropy) of the micro-batch's completion tokens, [n] each."""
        with self._autocast():
            return policy(b.input_ids, b.index, b.target, entropy_gradient=entropy_gradient, temperature=b.temperature)

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.config.model.dtype == "bfloat16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def _gradients(
        self,
        batch: list[TrainingSequence],
        plans: list[list[int]],
        proximal: Scored | None,
        stats: StepStats,
        offset: int,
    ) -> bool:
        """Those of one mini-batch, clipped; False where there are none, or none that are finite."""
        objective, scales = self.objective, self._scales(batch)
        if not plans:
            return False
        self.optimizer.zero_grad(set_to_none=True)
        mine, weights = self.share(plans)
        weight_mean = 1.0
        if objective.weight_normalise and proximal is not None:
            weight_mean = self._weight_mean(self.filled(batch, mine), weights, proximal)
        with_reference = self.reference is not None and objective.kl_in == "loss"
        for k, (b, weight) in enumerate(zip(self.filled(batch, mine), weights, strict=True)):
            reference = self._log_probabilities(self.reference, [b])[0] if with_reference and self.reference else None
            logp, entropy = self.forward(self.policy, b, objective.entropy_coefficient != 0)
            inputs = self._inputs(b, logp, entropy, scales, proximal[k] if proximal else None, reference)
            outcome = combine(inputs, objective, weight_mean)
            loss = outcome.loss * weight
            (loss * self.world).backward()  # FSDP averages over ranks; the loss is a sum over them
            if weight:
                stats.loss += float(loss.detach())
                stats.count(b, outcome.stats, offset)
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.config.learner.grad_clip)
        stats.grad_norms.append(float(norm.full_tensor() if isinstance(norm, DTensor) else norm))
        return math.isfinite(stats.grad_norms[-1])

    @torch.no_grad()
    def reset_reference(self, reset_optimizer: bool) -> None:
        """The current policy becomes the reference: a collective.

        reset_optimizer: AdamW begins anew, without moments and with its warm-up; or it goes on.
        """
        if not isinstance(self.reference, Policy):
            raise ValueError("objective.kl_coefficient is 0, or adapters train: there is no reference policy to reset")
        # By their state: FSDP's hooks drop the copies that forward passes have gathered, which would be the old ones.
        self.reference.load_state_dict(self.policy.state_dict())
        if reset_optimizer:
            self._forget()

    @torch.no_grad()
    def _forget(self) -> None:
        """AdamW begins anew: no moments, no updates."""
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()

    def _rate(self, k: int) -> float:
        """Of the step's update k: the schedule's, of the stage's own rate where it has one."""
        c, parts = self.config.learner, self.config.learner.updates_per_step
        warm = (updates_of(self.optimizer) + 1) / parts
        return self._lr / c.lr * c.rate(self.done + k / parts, self.config.run.steps, warm)

    def _inputs(
        self,
        b: MicroBatch,
        logp: torch.Tensor,
        entropy: torch.Tensor,
        scales: np.ndarray,
        proximal: torch.Tensor | None,
        reference: torch.Tensor | None,
    ) -> Inputs:
        scale = torch.from_numpy(scales[[i for i, _ in b.origin]]).to(self.device, logp.dtype)
        return Inputs(
            logp=logp,
            entropy=entropy,
            behaviour=b.behaviour,
            advantage=b.advantage,
            age=b.age,
            scale=over_tokens(scale, b.lengths),
            lengths=b.lengths,
            proximal=proximal,
            reference=reference,
        )

    def _weight_mean(self, mine: Iterable[MicroBatch], weights: list[float], proximal: Scored) -> float:
        """The mean of the final w over the mini-batch's tokens, on all ranks."""
        sums = torch.zeros(2, dtype=torch.float64)
        for b, weight, prox in zip(mine, weights, proximal, strict=True):
            w = correct(log_weight(prox, b.behaviour)[0], b.lengths, self.objective).weight
            if weight and w is not None:
                sums += torch.tensor([float(w.sum(dtype=torch.float64)), len(w)], dtype=torch.float64)
        if self.world > 1:
            sums = sums.to(self.device)
            dist.all_reduce(sums)
        return float(sums[0] / sums[1]) or 1.0

    @torch.no_grad()
    def reference_log_probabilities(self, sequences: list[TrainingSequence]) -> list[np.ndarray]:
        """[completion tokens] of each sequence under the reference policy. A collective: all ranks call it."""
        if self.reference is None:
            raise ValueError("objective.kl_coefficient is 0, so there is no reference policy")
        plans = planned(sequences, self.config.learner.token_budget)
        starts = np.cumsum([0, *(len(s.completion) for s in sequences)])
        flat = torch.zeros(int(starts[-1]), dtype=torch.float32)
        mine, weights = self.share(plans)
        for b, weight in zip(self.filled(sequences, mine), weights, strict=True):
            logp = self.forward(self.reference, b)[0]
            for i, where in b.origin if weight else ():
                flat[starts[i] : starts[i + 1]] = logp[where].cpu()
        if self.world > 1:
            on_device = flat.to(self.device)
            dist.all_reduce(on_device)
            flat = on_device.cpu()
        return np.split(flat.numpy(), starts[1:-1])

    @torch.no_grad()
    def top_log_probabilities(
        self, prefixes: list[list[int]], top: int
    ) -> tuple[list[list[float]], list[list[int]], list[float]]:
        """The `top` likeliest next tokens after each prefix. A collective under FSDP: all ranks call it.

        Returns (log-probabilities [prefixes, top], token ids [prefixes, top], by how many nats bfloat16 rounds them
        on average [prefixes]: their distance to the same without autocast, 0 in a float32 run).
        """
        width = max(map(len, prefixes))
        # Padded on the right, where no prefix looks.
        ids = torch.tensor([[*prefix, *[0] * (width - len(prefix))] for prefix in prefixes], device=self.device)
        last = torch.tensor([k * width + len(prefix) - 1 for k, prefix in enumerate(prefixes)], device=self.device)
        with self._autocast():
            values, tokens = self.policy(ids, last, None, top)
        rounding = [0.0] * len(prefixes)
        if self.config.model.dtype == "bfloat16":
            exact, _ = self.policy(ids, last.repeat_interleave(top), tokens.flatten())
            rounding = (exact.view_as(values) - values).abs().mean(-1).tolist()
        return values.tolist(), tokens.tolist(), rounding
