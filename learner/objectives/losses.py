"""Policy losses, one value a token. Log-probabilities are at the sampling temperature; losses are minimised.

A function's name is the value of `objective.loss`. Losses with one ratio a sequence give every token of it the same
value, with a gradient such that the mean over the tokens has that of the sequence's loss: they are to be averaged
within each sequence first (`seq-mean-token-mean`), which the configuration sees to.

An infinite or undefined log-ratio counts as 0 and is marked in `nonfinite`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch

from chorus.learner.objectives.segments import over_tokens, segment_mean

_MAX_LOG_RATIO = 20.0  # exp of more is no number to train on
_MAX_SEQUENCE_LOG_RATIO = 10.0  # verl's for GSPO


@dataclass(frozen=True)
class Bounds:
    """None: no bound. What a number means (1 - low, a log-ratio, an absolute cap) stands with each loss."""

    low: float | None
    high: float | None
    dual: float | None = None


@dataclass(frozen=True)
class Tokens:
    """logp [tokens] of the current policy, with gradient; proximal [tokens] and advantage [tokens], constant;
    lengths [sequences]: how many of the tokens belong to each sequence, in order, each at least 1."""

    logp: torch.Tensor
    proximal: torch.Tensor
    advantage: torch.Tensor
    lengths: torch.Tensor


@dataclass(frozen=True)
class TokenLoss:
    """Per-token losses and which branch each token took, all [tokens].

    clipped_high, clipped_low: the clipped branch is strictly worse (CISPO: the ratio lies beyond the bound).
    """

    loss: torch.Tensor
    clipped_high: torch.Tensor
    clipped_low: torch.Tensor
    dual_clipped: torch.Tensor
    nonfinite: torch.Tensor


LossFunction = Callable[[Tokens, Bounds], TokenLoss]


def loss_function(name: str) -> LossFunction:
    """The loss called `name`. The configuration knows the names (protocol.objective.LOSSES)."""
    return getattr(sys.modules[__name__], name)


def ppo(x: Tokens, bounds: Bounds) -> TokenLoss:
    """max(-A r, -A clip(r, 1 - low, 1 + high)), r = exp(logp - proximal); for A < 0 at most -A dual.

    PPO's clip (arXiv 1707.06347), decoupled bounds of DAPO (2503.14476), dual clip (1912.09729).
    """
    log_ratio, nonfinite = _log_ratio(x)
    ratio = torch.exp(log_ratio)
    plain = -x.advantage * ratio
    low = None if bounds.low is None else 1 - bounds.low
    high = None if bounds.high is None else 1 + bounds.high
    bounded = -x.advantage * _clip(ratio, low, high)
    loss = torch.maximum(plain, bounded)
    dual = torch.zeros_like(nonfinite)
    if bounds.dual is not None:
        ceiling = -x.advantage * bounds.dual
        dual = (x.advantage < 0) & (loss > ceiling)
        loss = torch.where(dual, ceiling, loss)
    worse = bounded > plain
    return TokenLoss(loss, worse & (x.advantage > 0), worse & (x.advantage < 0), dual, nonfinite)


def gmpo(x: Tokens, bounds: Bounds) -> TokenLoss:
    """-A times the geometric mean of the sequence's clipped ratios. GMPO, arXiv 2507.20673.

    The clip is on the log-ratio of each token, to [-low, high], on the side where it makes the loss smaller only.
    """
    log_ratio, nonfinite = _log_ratio(x)
    sign = torch.sign(x.advantage)
    clipped = torch.minimum(sign * log_ratio, sign * _clip(log_ratio, _minus(bounds.low), bounds.high)) * sign
    mean = over_tokens(segment_mean(clipped, x.lengths), x.lengths)
    # exp(clipped - itself) is 1, and carries the gradient of the token's own log-probability.
    loss = -x.advantage * mean.exp() * torch.exp(clipped - clipped.detach())
    cut = (clipped != log_ratio) & (x.advantage != 0)
    return TokenLoss(loss, cut & (log_ratio > 0), cut & (log_ratio < 0), torch.zeros_like(cut), nonfinite)


def gspo(x: Tokens, bounds: Bounds) -> TokenLoss:
    """PPO's clip on one ratio a sequence, s = exp(mean of its log-ratios). GSPO, arXiv 2507.18071.

    Each token has s times its own probability over itself held constant, as in the paper's token form.
    """
    log_ratio, nonfinite = _log_ratio(x)
    mean = over_tokens(segment_mean(log_ratio, x.lengths), x.lengths)
    ratio = mean.clamp(max=_MAX_SEQUENCE_LOG_RATIO).exp() * torch.exp(log_ratio - log_ratio.detach())
    plain = -x.advantage * ratio
    low = None if bounds.low is None else 1 - bounds.low
    high = None if bounds.high is None else 1 + bounds.high
    bounded = -x.advantage * _clip(ratio, low, high)
    worse = bounded > plain
    none = torch.zeros_like(worse)
    return TokenLoss(
        torch.maximum(plain, bounded), worse & (x.advantage > 0), worse & (x.advantage < 0), none, nonfinite
    )


def cispo(x: Tokens, bounds: Bounds) -> TokenLoss:
    """-sg(clip(r, 1 - low, 1 + high)) A logp: the weight is clipped, never the gradient. CISPO, arXiv 2506.13585.

    verl's convention: bounds are distances from 1.
    """
    low = None if bounds.low is None else 1 - bounds.low
    return _cispo(x, low, None if bounds.high is None else 1 + bounds.high)


def cispo_absolute(x: Tokens, bounds: Bounds) -> TokenLoss:
    """CISPO in TRL's convention: `high` is the cap of the ratio itself (5.0 there); `low` likewise, or none."""
    return _cispo(x, bounds.low, bounds.high)


def policy_gradient(x: Tokens, bounds: Bounds) -> TokenLoss:
    """-A logp: REINFORCE. No ratio, so bounds and `proximal` play no part."""
    nonfinite = ~torch.isfinite(x.logp)
    none = torch.zeros_like(nonfinite)
    return TokenLoss(-x.advantage * torch.where(nonfinite, 0.0, x.logp), none, none, none, nonfinite)


def _cispo(x: Tokens, low: float | None, high: float | None) -> TokenLoss:
    log_ratio, nonfinite = _log_ratio(x)
    ratio = torch.exp(log_ratio.detach())
    weight = _clip(ratio, low, high)
    logp = torch.where(nonfinite, 0.0, x.logp)
    none = torch.zeros_like(nonfinite)
    return TokenLoss(-weight * x.advantage * logp, ratio > weight, ratio < weight, none, nonfinite)


def _log_ratio(x: Tokens) -> tuple[torch.Tensor, torch.Tensor]:
    difference = x.logp - x.proximal
    nonfinite = ~torch.isfinite(difference)
    return torch.where(nonfinite, 0.0, difference).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO), nonfinite


def _clip(values: torch.Tensor, low: float | None, high: float | None) -> torch.Tensor:
    return values if low is None and high is None else values.clamp(low, high)


def _minus(value: float | None) -> float | None:
    return None if value is None else -value
