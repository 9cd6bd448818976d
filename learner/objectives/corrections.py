"""Corrections for tokens that an older policy, or another engine, sampled: w = proximal / behaviour. All constants.

The behaviour policy sampled the token; the proximal policy is the learner's own before the step. `importance` makes
the weight that multiplies a token's loss, `rejected` says which sequences are left out altogether. Whatever is
dropped, the mini-batch's token count stays what it was: dropping lowers the loss, it does not raise the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from chorus.learner.objectives.segments import over_tokens, segment_mean, segment_sum

_MAX_LOG_WEIGHT = 20.0


@dataclass(frozen=True)
class Importance:
    """weight [tokens]; truncated [tokens]: above the cap, brought down to it; dropped [tokens]: out of bounds, so 0."""

    weight: torch.Tensor
    truncated: torch.Tensor
    dropped: torch.Tensor


def log_weight(proximal: torch.Tensor, behaviour: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(log w [tokens], which of them were no finite number and count as 0)."""
    difference = (proximal - behaviour).detach()
    nonfinite = ~torch.isfinite(difference)
    return torch.where(nonfinite, 0.0, difference).clamp(-_MAX_LOG_WEIGHT, _MAX_LOG_WEIGHT), nonfinite


def importance(
    log_w: torch.Tensor,
    lengths: torch.Tensor,
    level: str,
    cap: float | None = None,
    mode: str = "truncate",
    low: float | None = None,
) -> Importance:
    """The weight of each token.

    Args:
        log_w: [tokens]. lengths: [sequences].
        level: `token`: w itself (decoupled PPO, arXiv 2110.00641). `sequence`: the product over the sequence's
            tokens. `geometric`: its geometric mean, for losses with one ratio a sequence.
        cap: None: none. mode: what happens above it: `truncate` (TIS: min(w, cap)) or `mask` (0; AReaL's, arXiv
            2505.24298, and MIS). low: with `mask`, what is below it becomes 0 too (IcePop).
    """
    if level == "sequence":
        log_w = over_tokens(segment_sum(log_w, lengths), lengths).clamp(-_MAX_LOG_WEIGHT, _MAX_LOG_WEIGHT)
    elif level == "geometric":
        log_w = over_tokens(segment_mean(log_w, lengths), lengths)
    weight = log_w.exp()
    above = torch.zeros_like(weight, dtype=torch.bool) if cap is None else weight > cap
    if mode == "mask":
        outside = above if low is None else above | (weight < low)
        return Importance(torch.where(outside, 0.0, weight), torch.zeros_like(above), outside)
    return Importance(weight.clamp(max=cap) if cap is not None else weight, above, torch.zeros_like(above))


def rejected(
    log_w: torch.Tensor, lengths: torch.Tensor, rule: str, low: float | None, high: float | None
) -> torch.Tensor:
    """[sequences] bool: the sequence's statistic lies outside [low, high].

    rule: `sequence`: the product of its w (MIS). `geometric`: their geometric mean, which does not punish length.
    `k3`: the mean of w - log w - 1, which is never negative.
    """
    if rule == "sequence":
        statistic = segment_sum(log_w, lengths).clamp(-_MAX_LOG_WEIGHT, _MAX_LOG_WEIGHT).exp()
    elif rule == "geometric":
        statistic = segment_mean(log_w, lengths).exp()
    elif rule == "k3":
        statistic = segment_mean(log_w.exp() - log_w - 1, lengths)
    else:
        raise ValueError(f"rule {rule!r} is unknown")
    outside = torch.zeros_like(statistic, dtype=torch.bool)
    if low is not None:
        outside |= statistic < low
    if high is not None:
        outside |= statistic > high
    return outside


def loglinear_proximal(logp: torch.Tensor, behaviour: torch.Tensor, age: torch.Tensor) -> torch.Tensor:
    """[tokens]: the proximal log-probability, interpolated instead of computed (AReaL).

    Versions: a token was sampled by version v, the step begins at v + age (the proximal policy) and leads to
    v + age + 1 (the current one). So proximal = behaviour + a (logp - behaviour), a = age / (age + 1).

    Args:
        logp: [tokens] of the current policy. behaviour: [tokens]. age: [tokens], 0 or more; 0 gives `behaviour`.
    """
    share = (age / (age + 1)).to(logp.dtype)
    return behaviour + share * (logp.detach() - behaviour)
