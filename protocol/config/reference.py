"""`[reference]`: when the reference policy is replaced by the current one (learner/training/reference.py)."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ReferenceSection(BaseModel):
    """Where None is allowed, a recipe writes `"none"`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    every: int | None = Field(default=None, ge=1, description="steps between resets; ProRL v2: 200 to 500")
    kl_spike: float | None = Field(default=None, gt=1, description="a KL of so many times its median resets")
    kl_window: int = Field(default=20, ge=1, description="steps of that median")
    stall: int | None = Field(default=None, ge=1, description="validations without a gain")
    stall_gain: float = Field(default=0.0, ge=0, description="of accuracy: what counts as one")
    degrade: float | None = Field(default=None, gt=0, le=1, description="validation accuracy below the best")
    cooldown_steps: int = Field(default=1, ge=1, description="none sooner after the last one, or after the start")
    reset_optimizer: bool = Field(default=True, description="begin AdamW anew (ProRL v1; v2 keeps it)")

    @model_validator(mode="before")
    @classmethod
    def _none(cls, fields: Any) -> Any:
        return {k: None if v == "none" else v for k, v in fields.items()} if isinstance(fields, dict) else fields

    @property
    def resets(self) -> bool:
        """Whether there is a trigger."""
        return any(value is not None for value in (self.every, self.kl_spike, self.stall, self.degrade))

    @property
    def validates(self) -> bool:
        """Whether a trigger looks at validations."""
        return self.stall is not None or self.degrade is not None

    @model_validator(mode="after")
    def _every_is_reached(self) -> Self:
        if self.every is not None and self.every < self.cooldown_steps:
            raise ValueError(
                f"every is {self.every}, below cooldown_steps {self.cooldown_steps}: resets would come by the latter; "
                "lower it"
            )
        return self
