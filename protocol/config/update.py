"""The keys of `[learner]` that say how an update is made: AdamW, its rate from step to step, and what it keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_BLOCK = 256  # values that share one scale, at most
_LEAST_BLOCK = 32
_LEAST_VALUES = 4096
Beta = Annotated[float, Field(ge=0, lt=1)]


class UpdateKeys(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    lr: float = Field(default=1e-6, gt=0)
    lr_schedule: Literal["constant", "linear", "cosine"] = Field(
        default="constant", description="after warmup_steps; linear and cosine fall to lr_floor at the run's end"
    )
    lr_floor: float = Field(default=0.0, ge=0, description="what linear and cosine fall to")
    warmup_steps: int = Field(default=0, ge=0, description="over the first so many, lr rises linearly to its value")
    optimizer: Literal["adamw", "adamw8bit"] = Field(default="adamw", description="adamw8bit: moments of 8 bits")
    master: Literal["float32", "bfloat16"] = Field(
        default="float32", description="what the trained weights are kept in; bfloat16 is rounded stochastically"
    )
    offload: Literal["none", "optimizer", "activations", "both"] = Field(
        default="none",
        description="in host memory, beside a GPU: the moments, what checkpointed layers keep for backward, or both",
    )
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    adam_eps: float = Field(default=1e-8, gt=0, description="AdamW's")
    weight_decay: float = Field(default=0.01, ge=0)
    grad_clip: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _falls(self) -> Self:
        if self.lr_floor > self.lr:
            raise ValueError(f"lr_floor ({self.lr_floor:g}) is above lr ({self.lr:g}): lower it")
        if self.lr_floor and self.lr_schedule == "constant":
            raise ValueError(
                'lr_floor is set, and a constant rate never falls: set lr_schedule to "linear" or "cosine"'
            )
        return self

    def rate(self, begins: float, steps: int, warm: float) -> float:
        """The learning rate of an update that begins after so many of the run's `steps`, in parts of a step.

        warm: steps whose updates the optimizer has made, this one included. By them it rises, so that the warm-up's
        last one has all of `lr`; an optimizer that begins anew warms up again. It falls by where an update begins, so
        that the run's last one still moves something where `lr_floor` is 0.
        """
        if warm < self.warmup_steps:
            return self.lr * warm / self.warmup_steps
        if self.lr_schedule == "constant":
            return self.lr
        share = min(1.0, max(0.0, begins - self.warmup_steps) / max(1, steps - self.warmup_steps))
        left = 1 - share if self.lr_schedule == "linear" else (1 + math.cos(math.pi * share)) / 2
        return self.lr_floor + (self.lr - self.lr_floor) * left

    def fault(self, steps: int, dtype: str) -> str | None:
        """Why a run of so many steps, sampled in `dtype`, can't have it."""
        if self.master == "bfloat16" and dtype != "bfloat16":
            return (
                f"learner.master is bfloat16 and model.dtype {dtype}: weights kept in bfloat16 have no more digits "
                "than that; set model.dtype to bfloat16, or leave out learner.master"
            )
        if self.lr_schedule != "constant" and self.warmup_steps >= steps:
            return (
                f"learner.warmup_steps ({self.warmup_steps}) leaves learner.lr_schedule = {self.lr_schedule} nothing "
                f"of run.steps ({steps}): lower it, or raise run.steps"
            )
        return None

    @property
    def moments_on_host(self) -> bool:
        return self.offload in ("optimizer", "both")

    @property
    def activations_on_host(self) -> bool:
        return self.offload in ("activations", "both")

    def moment_bytes(self, shape: Sequence[int]) -> int:
        """What both moments of one parameter take."""
        values = math.prod(shape)
        block = block_of(shape) if self.optimizer == "adamw8bit" else 0
        return 2 * (values + 4 * values // block) if block else 8 * values


def block_of(shape: Sequence[int]) -> int:
    """How many values of a parameter share one scale in 8 bits; 0: it is small or ragged, its moments stay float32.

    Blocks never cross a row, so that shards of whole rows, however many, hold the same codes.
    """
    if len(shape) < 2 or math.prod(shape) < _LEAST_VALUES:
        return 0
    block = math.gcd(math.prod(shape[1:]), _BLOCK)
    return block if block >= _LEAST_BLOCK else 0
