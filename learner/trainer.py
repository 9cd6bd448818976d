"""One training step: mini-batches, micro-batches, one optimizer step each.

The token count that divides the loss is that of the whole mini-batch, over all micro-batches and ranks,
so the gradient does not depend on how the batch was cut. Every rank runs the same number of forward
passes (FSDP gathers in each); a rank that is short of work repeats a micro-batch with weight 0.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from learner.batch import MicroBatch, TrainingSequence, cut
from learner.objectives.losses import TokenLoss, clipped
from learner.policy import Policy
from protocol.config import RunConfig

_TOKEN_FIGURES = (
    "entropy",
    "logprob",
    "mismatch_k1",
    "mismatch_abs",
    "ratio",
    "clip_high",
    "clip_low",
    "dual_clip",
)


@dataclass
class StepFigures:
    """Sums over tokens of one step on all ranks; `mean(name)` divides by the token count."""

    sequences: int = 0
    tokens: int = 0
    loss: float = 0.0
    grad_norms: list[float] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    ratio_off_max: float = 0.0  # first update: max |theta / behaviour - 1|
    entropy_of: dict[int, float] = field(default_factory=dict)  # sequence -> its mean token entropy

    def mean(self, name: str) -> float:
        return self.sums.get(name, 0.0) / max(self.tokens, 1)


class Trainer:
    """Owns the policy and its optimizer. The same steps on the same sequences give the same weights."""

    def __init__(self, policy: Policy, config: RunConfig, device: torch.device) -> None:
        self.policy = policy
        self.config = config
        self.device = device
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        c = config.learner
        self.layout = c.layout if c.layout != "auto" else ("packed" if device.type == "cuda" else "padded")
        # foreach groups parameters of one kind into few kernels; it needs no per-parameter Python.
        self.optimizer = torch.optim.AdamW(
            policy.parameters(), lr=c.lr, betas=c.betas, weight_decay=c.weight_decay, foreach=True
        )

    def step(self, minibatches: list[list[TrainingSequence]]) -> StepFigures:
        """Train on each mini-batch in turn: one optimizer step each."""
        figures = StepFigures(sequences=sum(map(len, minibatches)))
        proximal: list[list[torch.Tensor] | None] = [None] * len(minibatches)
        cuts = [cut(batch, self.config.learner.token_budget, self.layout) for batch in minibatches]
        recompute = self.config.objective.proximal == "recompute"
        if recompute and len(minibatches) > 1:  # with one update it is the current policy: no pass is needed
            proximal = [self._log_probabilities(self._mine(batches)[0]) for batches in cuts]
        for k, batches in enumerate(cuts):
            self._update(batches, proximal[k], figures, offset=sum(map(len, minibatches[:k])))
        self._reduce(figures)
        return figures

    def _mine(self, batches: list[MicroBatch]) -> tuple[list[MicroBatch], list[float]]:
        """This rank's share and each one's weight; all ranks get equally many."""
        rounds = -(-len(batches) // self.world)
        mine, weights = [], []
        for k in range(rounds):
            at = k * self.world + self.rank
            mine.append(batches[min(at, len(batches) - 1)].to(self.device))
            weights.append(1.0 if at < len(batches) else 0.0)
        return mine, weights

    @torch.no_grad()
    def _log_probabilities(self, batches: list[MicroBatch]) -> list[torch.Tensor]:
        return [self._forward(b)[0] for b in batches]

    def _forward(self, b: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
        with self._autocast():
            return self.policy(b.input_ids, b.position_ids, b.index, b.target)

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.config.model.dtype == "bfloat16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def _update(
        self,
        batches: list[MicroBatch],
        proximal: list[torch.Tensor] | None,
        figures: StepFigures,
        offset: int,
    ) -> None:
        objective = self.config.objective
        total = sum(len(b.target) for b in batches)
        if total == 0:
            return
        self.optimizer.zero_grad(set_to_none=True)
        mine, weights = self._mine(batches)
        for k, (b, weight) in enumerate(zip(mine, weights, strict=True)):
            logp, entropy = self._forward(b)
            if objective.proximal == "behaviour":
                prox = b.behaviour
            else:
                prox = proximal[k] if proximal is not None else logp.detach()
            token = clipped(logp, prox, b.advantage, objective.clip_low, objective.clip_high, objective.dual_clip)
            loss = token.loss.sum() / total * weight
            (loss * self.world).backward()  # FSDP averages over ranks; the loss is a sum over them
            if weight:
                figures.loss += float(loss.detach())
                self._count(figures, b, logp.detach(), entropy, token, offset)
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.config.learner.grad_clip)
        figures.grad_norms.append(float(norm.full_tensor() if isinstance(norm, DTensor) else norm))
        if math.isfinite(figures.grad_norms[-1]):
            self.optimizer.step()

    def _count(
        self,
        f: StepFigures,
        b: MicroBatch,
        logp: torch.Tensor,
        entropy: torch.Tensor,
        token: TokenLoss,
        offset: int,
    ) -> None:
        difference = logp - b.behaviour
        ratio = difference.clamp(-20, 20).exp()
        if offset == 0:
            f.ratio_off_max = max(f.ratio_off_max, float((ratio - 1).abs().max()))
        for i, where in b.origin:
            f.entropy_of[offset + i] = float(entropy[where].mean())
        f.tokens += len(b.target)
        values = (
            entropy,
            logp,
            -difference,
            difference.abs(),
            ratio,
            token.clipped_high,
            token.clipped_low,
            token.dual_clipped,
        )
        for name, value in zip(_TOKEN_FIGURES, values, strict=True):
            f.sums[name] = f.sums.get(name, 0.0) + float(value.sum())

    def _reduce(self, f: StepFigures) -> None:
        """Sum the figures over ranks, on rank order, so that every rank reports the same."""
        if self.world == 1:
            return
        names = sorted(_TOKEN_FIGURES)
        sums = [float(f.tokens), f.loss, *(f.sums.get(name, 0.0) for name in names)]
        by_sequence = torch.zeros(f.sequences, dtype=torch.float64)
        for i, value in f.entropy_of.items():
            by_sequence[i] = value
        total = torch.cat([torch.tensor(sums, dtype=torch.float64), by_sequence]).to(self.device)
        dist.all_reduce(total)
        largest = torch.tensor(f.ratio_off_max, dtype=torch.float64, device=self.device)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        values = total.tolist()
        f.tokens, f.loss, f.ratio_off_max = int(values[0]), values[1], float(largest)
        f.sums = dict(zip(names, values[2:], strict=False))
        f.entropy_of = dict(enumerate(values[2 + len(names) :]))

    @torch.no_grad()
    def top_log_probabilities(self, prefix: list[int], top: int) -> tuple[list[float], list[int]]:
        """The `top` likeliest next tokens after `prefix`. A collective under FSDP: all ranks call it."""
        ids = torch.tensor([prefix], device=self.device)
        with self._autocast():
            values, tokens = self.policy(ids, None, torch.tensor([len(prefix) - 1], device=self.device), None, top)
        return values[0].tolist(), tokens[0].tolist()
