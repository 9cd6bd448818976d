"""Estimators of KL(current || reference) from one sampled token: http://joschu.net/blog/kl-approx.html."""

from __future__ import annotations

import torch

_MAX_EXPONENT = 20.0
_MAX_K3 = 10.0  # both as verl's low_var_kl


def kl(logp: torch.Tensor, reference: torch.Tensor, estimator: str, clamp: float | None = None) -> torch.Tensor:
    """[tokens]; x = logp - reference, 0 where that is no finite number.

    Args:
        logp: [tokens]; its gradient flows through. reference: [tokens], constant.
        clamp: x is bounded at +- this; outside it there is no gradient (ProRL v2: 10).
        estimator: `k1` x; `k2` x^2 / 2; `k3` exp(-x) + x - 1, which is never negative; bounded at 10.
    """
    x = logp - reference
    x = torch.where(torch.isfinite(x), x, 0.0)
    if clamp is not None:
        x = x.clamp(-clamp, clamp)
    if estimator == "k1":
        return x
    if estimator == "k2":
        return x * x / 2
    if estimator == "k3":
        x = x.clamp(-_MAX_EXPONENT, _MAX_EXPONENT)
        return (torch.exp(-x) + x - 1).clamp(-_MAX_K3, _MAX_K3)
    raise ValueError(f"estimator {estimator!r} is unknown")
