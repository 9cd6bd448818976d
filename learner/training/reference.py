"""When the reference policy becomes the current one (ProRL, arXiv 2505.24864 and 2507.12507).

    every       so many steps after the last reset
    kl_spike    the KL to the reference is so many times its running median
    stall       the best validation since the last reset is older than so many validations
    degrade     the newest validation is so far below the best one since the last reset

Each trigger is optional, and none acts before `cooldown_steps` have passed. A reset comes before the step that follows
what triggered it, on all ranks in one call (distributed.py), so that its step begins with a KL of 0. Groups in flight
carry no reference log-probabilities: nothing of them is computed again. Validations count from the newest one at the
reset, and the KL's median from the reset: what was before belongs to another reference. From there the KL grows from 0,
so that cooldown_steps of two windows or more leave the steepest part of that out of the median.

>>> stalled([0.30, 0.35, 0.35, 0.35, 0.34], patience=3, gain=0.0)
True
>>> stalled([0.30, 0.35, 0.35, 0.35], patience=3, gain=0.0)
False
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from chorus.protocol.config.reference import ReferenceSection


def due(config: ReferenceSection, steps: int, kl: Sequence[float], validations: Sequence[float]) -> str | None:
    """Why the reference is to be reset now, in words; None: it is not.

    steps: trained since the last reset. kl: of these steps, the newest last, as many as are kept. validations: since
    the last reset, the newest at it among them.
    """
    if steps < config.cooldown_steps or not steps:
        return None
    if config.every is not None and steps >= config.every:
        return f"every: {steps} steps since the last one"
    if config.kl_spike is not None and len(kl) > config.kl_window:
        usual = median(kl[-config.kl_window - 1 : -1])
        if usual > 0 and kl[-1] > config.kl_spike * usual:  # of 0 any KL is a multiple
            return f"kl_spike: {kl[-1]:.3g} nats a token, usually {usual:.3g}"
    if config.stall is not None and stalled(validations, config.stall, config.stall_gain):
        return f"stall: no gain over {max(validations[: -config.stall]):.3f} in {config.stall} validations"
    if config.degrade is not None and validations and validations[-1] < max(validations) - config.degrade:
        return f"degrade: validation {validations[-1]:.3f}, it has been {max(validations):.3f}"
    return None


def stalled(validations: Sequence[float], patience: int, gain: float) -> bool:
    """None of the last `patience` validations is more than `gain` above the best before them."""
    if len(validations) <= patience:
        return False
    return max(validations[-patience:]) <= max(validations[:-patience]) + gain
