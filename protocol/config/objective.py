"""`[objective]`: every key with its meaning, and the combinations that make no sense, each with its reason.

Formulas stand in learner/objectives/.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from chorus.protocol.config.presets import PRESETS


@dataclass(frozen=True)
class LossKind:
    """What the configuration must know of a loss. per_sequence: one ratio a sequence. ratio: it has any."""

    per_sequence: bool = False
    ratio: bool = True


LOSSES = {
    "ppo": LossKind(),
    "gmpo": LossKind(per_sequence=True),
    "gspo": LossKind(per_sequence=True),
    "cispo": LossKind(),
    "cispo_absolute": LossKind(),
    "policy_gradient": LossKind(ratio=False),
}


class ObjectiveConfig(BaseModel):
    """The loss and its numbers. A name alone is complete; a key beside it overrides the preset's number.

    Where None is allowed, a recipe writes `"none"`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = "prompt_augmentation"

    advantage: Literal[
        "grpo", "dr_grpo", "rloo", "seed_grpo", "reinforce_pp", "reinforce_pp_baseline", "batch_normalised"
    ]
    std_epsilon: float = Field(default=1e-6, ge=0, description="added to the standard deviation")
    discount: float = Field(default=1.0, gt=0, le=1, description="reinforce_pp: of a return, a token")
    reward_scale: float = Field(default=1.0, gt=0, description="batch_normalised: rewards are multiplied by this")
    reward_bound: float | None = Field(default=None, gt=0, description="batch_normalised: and then clipped to +- this")
    seed_alpha: float = Field(default=0.0417, ge=0, description="seed_grpo: how much disagreement takes away")

    loss: str = Field(description=" | ".join(LOSSES))
    clip_low: float | None = Field(default=None, gt=0, description="none: no bound")
    clip_high: float | None = Field(default=None, gt=0, description="none: no bound")
    dual_clip: float | None = Field(default=None, gt=1, description="ppo: bound on -A * ratio for negative advantages")
    aggregation: Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "dr-const"]
    length_constant: int | None = Field(default=None, ge=1, description="dr-const; none: sampling.max_tokens")
    token_mean_scope: Literal["mini-batch", "micro"] = Field(
        default="mini-batch",
        description="token-mean: over the mini-batch (or `global`, the same), or within every micro_sequences of it",
    )
    micro_sequences: int = Field(default=4, ge=1, description="token_mean_scope = micro; does not change memory")

    proximal: Literal["behaviour", "recompute", "loglinear"] = Field(
        description="the ratio's denominator: what the engine sampled with, this step's weights before it, or an "
        "interpolation between the engine's and the current ones by the age of the token"
    )
    weight: Literal["none", "token", "sequence", "geometric"] = Field(
        default="none", description="multiply the loss by w = proximal / behaviour: a token's, its sequence's, ..."
    )
    weight_cap: float | None = Field(default=None, gt=0, description="of w; none: none")
    weight_low: float | None = Field(default=None, gt=0, description="of w, with weight_mode = mask: below it 0")
    weight_mode: Literal["truncate", "mask"] = Field(default="truncate", description="above the cap: the cap, or 0")
    weight_normalise: bool = Field(default=False, description="divide w by its mean over the mini-batch's tokens")
    reject: Literal["none", "sequence", "geometric", "k3"] = Field(
        default="none", description="leave out sequences whose w lie outside the bounds: product, mean, or k3"
    )
    reject_low: float | None = Field(default=None, gt=0)
    reject_high: float | None = Field(default=None, gt=0)

    kl_coefficient: float = Field(default=0.0, ge=0, description="of KL(current || reference); 0: no reference policy")
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    kl_in: Literal["loss", "reward"] = "loss"
    kl_clamp: float | None = Field(default=None, gt=0, description="bounds of the estimators' log-ratio, on both sides")
    kl_target: float | None = Field(
        default=None,
        gt=0,
        description="nats: the coefficient follows this KL, by its estimator; none: fixed",
    )
    kl_gain: float = Field(default=0.1, gt=0, le=1, description="of that: how fast; 0.1 in arXiv 1909.08593")
    entropy_coefficient: float = Field(default=0.0, description="of the mean token entropy, which is then maximised")

    entropy_target: float | None = Field(
        default=None, gt=0, description="nats a token: the coefficient follows this entropy; none: fixed"
    )
    entropy_move: float = Field(default=0.005, gt=0, description="of that: what a step adds or takes")

    dynamic_sampling: bool = Field(default=False, description="groups all right or all wrong are replaced by others")
    accuracy_bounds: tuple[float, float] = Field(
        default=(0.0, 1.0), description="dynamic_sampling: so are groups whose mean accuracy lies outside these"
    )
    max_refills: int = Field(default=10, ge=1, description="a step; then it takes the groups that come")
    overlong_filter: bool = Field(default=False, description="truncated completions move the baseline, not the policy")
    overlong_buffer: float | None = Field(
        default=None, gt=0, le=1, description="soft penalty over this last share of sampling.max_tokens"
    )
    overlong_factor: float = Field(default=1.0, ge=0, description="the penalty at sampling.max_tokens")

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        name = fields.get("name", "prompt_augmentation")
        if not isinstance(name, str) or name not in PRESETS:
            raise ValueError(
                f"objective.name {name!r} is unknown; known: {', '.join(sorted(PRESETS))}: give one of these"
            )
        if fields.get("token_mean_scope") == "global":  # over all micro-batches and ranks, which a mini-batch is here
            fields = {**fields, "token_mean_scope": "mini-batch"}
        given = {k: None if v == "none" and k not in ("weight", "reject") else v for k, v in fields.items()}
        return {**PRESETS[name].defaults, "name": name, **given}

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.loss not in LOSSES:
            raise ValueError(f"objective: loss {self.loss!r} is unknown; known: {', '.join(LOSSES)}")
        for refused, reason in [*self._of_the_loss(), *self._of_the_weights(), *self._of_the_rest(), *self._idle()]:
            if refused:
                raise ValueError(f"objective: {reason}")
        return self

    def _of_the_loss(self) -> list[tuple[bool, str]]:
        """Whether it is refused, and why: what its ratio and its bounds don't go with."""
        kind = LOSSES[self.loss]
        corrected = self.weight != "none" or self.reject != "none"
        return [
            (
                kind.per_sequence and self.aggregation != "seq-mean-token-mean",
                f"loss {self.loss} has one ratio a sequence; under aggregation {self.aggregation} long sequences would "
                "count more than their ratio: set objective.aggregation = seq-mean-token-mean",
            ),
            (
                self.proximal == "behaviour" and corrected,
                "proximal = behaviour takes the ratio against what was sampled, so w = proximal / behaviour is 1, and "
                "any other weight would count staleness twice: set objective.proximal = recompute, or weight and "
                "reject to none",
            ),
            (
                self.loss == "gmpo" and self.weight in ("token", "sequence"),
                f"loss gmpo is a geometric mean over the sequence; a weight a {self.weight} does not fit it: set "
                "objective.weight = geometric",
            ),
            (
                self.dual_clip is not None and self.loss != "ppo",
                f"dual_clip bounds the ppo loss; {self.loss} has none: set objective.dual_clip = none",
            ),
            (
                self.loss in ("ppo", "gspo") and self.clip_low is not None and self.clip_low >= 1,
                f"clip_low is {self.clip_low}: the ratio's lower bound 1 - clip_low would not be positive; none means "
                "no bound",
            ),
            (
                self.loss == "cispo_absolute" and self.clip_high is not None and self.clip_high <= 1,
                f"loss cispo_absolute caps the ratio itself, at clip_high = {self.clip_high}, so fresh tokens too: "
                "set objective.clip_high above 1 (TRL recommends 5.0), or take loss cispo",
            ),
        ]

    def _of_the_weights(self) -> list[tuple[bool, str]]:
        """As above, of importance weights and of what is rejected by them."""
        return [
            (
                self.weight_mode == "mask" and self.weight != "none" and self.weight_cap is None,
                "weight_mode = mask leaves out what is above the cap: set objective.weight_cap",
            ),
            (
                self.weight_low is not None and self.weight_mode != "mask",
                "weight_low leaves out what is below it, and weight_mode = truncate leaves out nothing: set "
                "objective.weight_mode = mask",
            ),
            (
                self.weight_normalise and self.weight == "none",
                "weight_normalise without a weight: set objective.weight",
            ),
            (
                self.weight_normalise and self.proximal == "loglinear",
                "weight_normalise needs the mean of w before the update; proximal = loglinear knows it only within: "
                "set objective.proximal = recompute",
            ),
            (
                self.reject != "none" and self.reject_low is None and self.reject_high is None,
                f"reject = {self.reject} without bounds rejects nothing: set objective.reject_low or reject_high",
            ),
        ]

    def _of_the_rest(self) -> list[tuple[bool, str]]:
        """As above, of targets and of what is averaged or left out."""
        low, high = self.accuracy_bounds
        return [
            (
                self.kl_target is not None and self.kl_coefficient == 0,
                "kl_target moves a coefficient in proportion to itself, which 0 does not leave: set a "
                "objective.kl_coefficient to begin with",
            ),
            (
                self.entropy_target is not None and self.entropy_coefficient < 0,
                "entropy_target keeps the coefficient at 0 or above: begin with such an objective.entropy_coefficient",
            ),
            (
                self.token_mean_scope == "micro" and self.aggregation != "token-mean",
                f"token_mean_scope = micro says where a token mean is taken; aggregation {self.aggregation} has none",
            ),
            (not 0 <= low < high <= 1, f"accuracy_bounds {low:g} to {high:g} are no range within 0 to 1"),
        ]

    def _idle(self) -> list[tuple[bool, str]]:
        """As above, of keys that do nothing without another one, where they are not as the name has them anyway."""
        usual = {name: field.default for name, field in type(self).model_fields.items()}
        usual.update(PRESETS[self.name].defaults)
        return [
            (
                not used and getattr(self, key) != usual[key],
                f"{key} does nothing without {needs}: set objective.{needs}, or leave {key} out",
            )
            for used, needs, keys in (
                (self.dynamic_sampling, "dynamic_sampling = true", ("accuracy_bounds", "max_refills")),
                (self.needs_reference, "kl_coefficient above 0", ("kl_estimator", "kl_clamp")),
                (self.aggregation == "dr-const", 'aggregation = "dr-const"', ("length_constant",)),
            )
            for key in keys
        ]

    @property
    def warnings(self) -> list[str]:
        """What is allowed and rarely meant; the dry run and the learner's start tell it."""
        if self.kl_coefficient > 0 and self.kl_in == "loss" and self.kl_estimator == "k1":
            return [
                "kl_estimator k1 in the loss has a gradient whose mean is 0 on fresh samples, so it adds noise and "
                "holds nothing back: take k2 or k3, or objective.kl_in = reward"
            ]
        return []

    @property
    def needs_reference(self) -> bool:
        """A frozen copy of the first policy must be kept."""
        return self.kl_coefficient > 0

    @property
    def needs_clusters(self) -> bool:
        """Groups must come with clusters of equal answers."""
        return self.advantage == "seed_grpo"
