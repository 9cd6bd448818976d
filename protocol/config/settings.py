"""What a step trains with that need not be the same in every step, and which stages a run can't have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from chorus.protocol.config.curriculum import Stage
from chorus.protocol.config.objective import ObjectiveConfig

if TYPE_CHECKING:
    from chorus.protocol.config.run import RunConfig


@dataclass(frozen=True)
class StepSettings:
    """lr: AdamW's, before the warm-up's share. reset_optimizer: it forgets its moments and counts its updates, and with
    them the warm-up, from 0."""

    lr: float
    entropy_coefficient: float
    kl_coefficient: float
    reset_optimizer: bool = False

    @classmethod
    def of(cls, config: RunConfig, coefficients: tuple[float, float] | None = None) -> Self:
        """Of a step for which no stage says anything. coefficients: of KL and entropy; None: the configuration's."""
        o = config.objective
        kl, entropy = coefficients or (o.kl_coefficient, o.entropy_coefficient)
        return cls(config.learner.lr, entropy, kl)


def refusal(stage: Stage, o: ObjectiveConfig, longest: int, validates: bool, punishes_length: bool) -> str | None:
    """Why a stage can't be one of a run, with the mend. o, longest: the run's objective and sampling.max_tokens;
    validates: it makes validations; punishes_length: its reward has an overlong penalty."""
    if stage.plateau and stage.plateau.figure == "validation_accuracy" and not validates:
        return "waits for a plateau of validation_accuracy, and no validation is made: set evaluation.every"
    if stage.kl_coefficient is not None and not (o.kl_coefficient and o.kl_in == "loss"):
        return (
            "has a kl_coefficient of its own, which needs a reference policy and a KL term in the loss: set "
            "objective.kl_coefficient above 0 and objective.kl_in = loss"
        )
    for name, target in (("kl", o.kl_target), ("entropy", o.entropy_target)):
        if getattr(stage, f"{name}_coefficient") is not None and target is not None:
            return (
                f"has {name}_coefficient of its own, and objective.{name}_target moves it from step to step: leave out "
                "one of them"
            )
    if stage.max_tokens is None:
        return None
    if stage.max_tokens > longest:
        return (
            f"has max_tokens {stage.max_tokens}, above sampling.max_tokens ({longest}): raise sampling.max_tokens to "
            "the longest stage's"
        )
    if punishes_length:
        return (
            "has a max_tokens of its own, and the overlong penalty one length for the whole run: leave out one of them "
            '(objective.overlong_buffer = "none")'
        )
    return None
