"""Per-token policy losses. Log-probabilities are at the sampling temperature; losses are minimised."""

from __future__ import annotations

from dataclasses import dataclass

import torch

_MAX_LOG_RATIO = 20.0  # exp of more is no number to train on


@dataclass(frozen=True)
class TokenLoss:
    """Per-token losses and which branch each token took, all [tokens]."""

    loss: torch.Tensor
    clipped_high: torch.Tensor  # A > 0 and the ratio beyond 1 + clip_high: the clipped branch is worse
    clipped_low: torch.Tensor  # A < 0 and the ratio below 1 - clip_low
    dual_clipped: torch.Tensor


def clipped(
    logp: torch.Tensor,
    logp_proximal: torch.Tensor,
    advantage: torch.Tensor,
    clip_low: float,
    clip_high: float,
    dual_clip: float,
) -> TokenLoss:
    """max(-A r, -A clip(r, 1 - low, 1 + high)), r = exp(logp - logp_proximal); for A < 0 at most -A c.

    PPO's clip (arXiv 1707.06347), decoupled bounds of DAPO (2503.14476), dual clip c (1912.09729).

    Args:
        logp: [tokens] of the current policy, with gradient.
        logp_proximal: [tokens], constant.
        advantage: [tokens], constant.
    """
    ratio = torch.exp((logp - logp_proximal).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO))
    plain = -advantage * ratio
    bounded = -advantage * ratio.clamp(1 - clip_low, 1 + clip_high)
    loss = torch.maximum(plain, bounded)
    ceiling = -advantage * dual_clip
    dual = (advantage < 0) & (loss > ceiling)
    worse = bounded > plain
    return TokenLoss(
        loss=torch.where(dual, ceiling, loss),
        clipped_high=worse & (advantage > 0),
        clipped_low=worse & (advantage < 0),
        dual_clipped=dual,
    )
