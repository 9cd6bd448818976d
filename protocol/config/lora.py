"""`[model.lora]`: train small adapters beside the model's weights, which stay as they are."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class LoraSection(BaseModel):
    """W + alpha / rank x B A, of the linear layers that are targets."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    rank: int = Field(..., ge=1)
    alpha: float = Field(default=32.0, gt=0, description="adapters count alpha / rank")
    targets: Literal["all-linear"] | list[str] = Field(
        default="all-linear", min_length=1, description='names of linear layers, such as "q_proj"; all: but the head'
    )

    @property
    def scaling(self) -> float:
        return self.alpha / self.rank
