"""One micro-batch's loss under an objective, and the numbers that say what it did to each token."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from chorus.learner.objectives.corrections import importance, log_weight, loglinear_proximal, rejected
from chorus.learner.objectives.kl import kl
from chorus.learner.objectives.losses import Bounds, Tokens, loss_function
from chorus.learner.objectives.segments import over_tokens
from chorus.protocol.config.objective import ObjectiveConfig

# A row of Outcome.stats each; means over tokens unless a name says otherwise.
TOKEN_STATS = (
    "entropy",
    "logprob",
    "mismatch_k1",  # KL(behaviour || current): positive where the current policy finds the tokens less likely
    "mismatch_abs",
    "ratio",  # current / behaviour
    "clip_high",
    "clip_low",
    "dual_clip",
    "proximal_k1",  # KL(current || proximal)
    "proximal_k2",
    "proximal_k3",
    "reference_k1",  # KL(current || reference); 0 without one
    "reference_k2",
    "reference_k3",
    "w",  # proximal / behaviour, before caps; current / behaviour where the behaviour policy is the proximal one
    "w_squared",
    "w_k1",  # KL(behaviour || proximal), of the same two policies as w
    "w_k2",
    "w_k3",
    "w_truncated",
    "w_dropped",
    "rejected",
    "nonfinite",
)


@dataclass(frozen=True)
class Inputs:
    """All [tokens] but lengths [sequences]; logp and entropy may carry gradient, the rest is constant.

    proximal: the recomputed log-probabilities, or None: the current ones. reference: or None. age: steps between
    the weights that sampled the token and those that the step begins with. scale: from `token_scales`.
    """

    logp: torch.Tensor
    entropy: torch.Tensor
    behaviour: torch.Tensor
    advantage: torch.Tensor
    age: torch.Tensor
    scale: torch.Tensor
    lengths: torch.Tensor
    proximal: torch.Tensor | None = None
    reference: torch.Tensor | None = None


@dataclass(frozen=True)
class Correction:
    """weight [tokens], or None: 1; truncated, dropped, rejected [tokens] bool."""

    weight: torch.Tensor | None
    truncated: torch.Tensor
    dropped: torch.Tensor
    rejected: torch.Tensor


@dataclass(frozen=True)
class Outcome:
    """loss: scalar, this micro-batch's share of the mini-batch's. stats [len(TOKEN_STATS), tokens], constant."""

    loss: torch.Tensor
    stats: torch.Tensor


def correct(log_w: torch.Tensor, lengths: torch.Tensor, c: ObjectiveConfig) -> Correction:
    """What the configuration makes of log w [tokens]."""
    none = torch.zeros_like(log_w, dtype=torch.bool)
    weight, truncated, dropped, refused = None, none, none, none
    if c.weight != "none":
        made = importance(log_w, lengths, c.weight, c.weight_cap, c.weight_mode, c.weight_low)
        weight, truncated, dropped = made.weight, made.truncated, made.dropped
    if c.reject != "none":
        refused = over_tokens(rejected(log_w, lengths, c.reject, c.reject_low, c.reject_high), lengths)
        weight = torch.where(refused, 0.0, weight if weight is not None else 1.0)
    return Correction(weight, truncated, dropped, refused)


def combine(x: Inputs, c: ObjectiveConfig, weight_mean: float = 1.0) -> Outcome:
    """sum over tokens of scale * (w * policy loss + beta * KL - coefficient * entropy).

    weight_mean: the mean of w over the mini-batch's tokens, where `weight_normalise` asks for it.
    """
    proximal = _proximal(x, c)
    token = loss_function(c.loss)(
        Tokens(x.logp, proximal, x.advantage, x.lengths), Bounds(c.clip_low, c.clip_high, c.dual_clip)
    )
    current = x.logp.detach()
    log_w, nonfinite = log_weight(current if c.proximal == "behaviour" else proximal, x.behaviour)
    correction = correct(log_w, x.lengths, c)
    loss = token.loss if correction.weight is None else token.loss * (correction.weight / weight_mean)
    if x.reference is not None and c.kl_in == "loss":
        loss = loss + c.kl_coefficient * kl(x.logp, x.reference, c.kl_estimator, c.kl_clamp)
    if c.entropy_coefficient:
        loss = loss - c.entropy_coefficient * x.entropy
    with torch.no_grad():
        rows = [
            _finite(x.entropy),
            _finite(current),
            *_mismatch(current, x.behaviour),
            token.clipped_high,
            token.clipped_low,
            token.dual_clipped,
            *_divergence(current, proximal),
            *_divergence(current, x.reference),
            log_w.exp(),
            (2 * log_w).exp(),
            -log_w,
            log_w.square() / 2,
            log_w.exp() - log_w - 1,
            correction.truncated,
            correction.dropped,
            correction.rejected,
            token.nonfinite | nonfinite,
        ]
        stats = torch.stack([row.detach().to(current.dtype) for row in rows])
    return Outcome((loss * x.scale).sum(), stats)


def _proximal(x: Inputs, c: ObjectiveConfig) -> torch.Tensor:
    if c.proximal == "behaviour":
        return x.behaviour
    if c.proximal == "loglinear":
        return loglinear_proximal(x.logp, x.behaviour, x.age)
    return x.logp.detach() if x.proximal is None else x.proximal


def _mismatch(current: torch.Tensor, behaviour: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    difference = _finite(current - behaviour)
    return -difference, difference.abs(), difference.clamp(-20, 20).exp()


def _finite(values: torch.Tensor) -> torch.Tensor:
    """0 where no finite number, so that one bad token, which `nonfinite` counts, leaves the step's means readable."""
    return torch.where(torch.isfinite(values), values, 0.0)


def _divergence(current: torch.Tensor, other: torch.Tensor | None) -> list[torch.Tensor]:
    if other is None:
        return [torch.zeros_like(current)] * 3
    return [kl(current, other, estimator) for estimator in ("k1", "k2", "k3")]
