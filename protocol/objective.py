"""Objectives by name: what a recipe's `[objective]` means, with the source of every number.

A name alone is complete; any number beside it overrides the preset's.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

# Prompt augmentation, arXiv 2602.03190: DAPO's decoupled clip and token-level loss, no KL, dual clip 3.0.
# The published run is synchronous and recomputes the old log-probabilities. Here groups may be some steps
# old, so the clip is taken around the behaviour policy: it then also bounds how far stale tokens are pushed.
# On fresh groups both are the same.
PROMPT_AUGMENTATION = {
    "proximal": "behaviour",
    "advantage": "grpo",
    "clip_low": 0.2,
    "clip_high": 0.28,
    "dual_clip": 3.0,
    "aggregation": "token-mean",
}
PRESETS: dict[str, dict[str, Any]] = {"prompt_augmentation": PROMPT_AUGMENTATION}


class ObjectiveConfig(BaseModel):
    """The loss and its numbers. Formulas stand in learner/objectives/."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "prompt_augmentation"
    advantage: Literal["grpo"]
    proximal: Literal["behaviour", "recompute"] = Field(
        description="the ratio's denominator: what the engine sampled with, or this step's weights before it"
    )
    std_epsilon: float = Field(default=1e-6, ge=0, description="added to the group's sample standard deviation")
    clip_low: float = Field(gt=0, lt=1)
    clip_high: float = Field(gt=0)
    dual_clip: float = Field(gt=1, description="bound on -A * ratio for negative advantages")
    aggregation: Literal["token-mean"]

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        name = fields.get("name", "prompt_augmentation")
        if name not in PRESETS:
            raise ValueError(f"objective.name {name!r} is unknown; known: {', '.join(sorted(PRESETS))}")
        return {**PRESETS[name], "name": name, **fields}
