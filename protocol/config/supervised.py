"""Supervised training: `[relift]` between a run's steps, `[finetune]` in the steps' place (`chorus finetune`)."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from chorus.protocol.config.update import Beta
from chorus.protocol.runtime.paths import WrittenOut


class Supervision(BaseModel):
    """A supervised update's optimizer, beside the run's own, and its loss: the mean negative log-likelihood of the
    target tokens, less `entropy_coefficient` times their mean entropy."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    lr: float = Field(default=1e-6, gt=0)
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    adam_eps: float = Field(default=1e-8, gt=0, description="AdamW's")
    weight_decay: float = Field(default=0.01, ge=0)
    grad_clip: float = Field(default=1.0, gt=0)
    entropy_coefficient: float = Field(default=0.0, ge=0, description="entropy is added to what is maximised")

    def rate(self, done: int, total: int) -> float:
        """The learning rate of the update after `done` of `total` ones."""
        raise NotImplementedError


class ReliftSection(Supervision):
    """ReLIFT's numbers, arXiv 2506.07527."""

    enabled: bool = Field(default=False, description="train on the solutions of problems that no sample solved")
    batch: int = Field(default=128, ge=1, description="so many hard prompts make an update; its mini-batch")
    entropy_coefficient: float = Field(default=0.001, ge=0, description="entropy is added to what is maximised")
    warmup_updates: int = Field(default=0, ge=0, description="over the first so many, lr rises linearly to its value")
    dedupe: bool = Field(default=False, description="hold a problem once, however often nobody solved it")
    max_tokens: int = Field(
        default=0, ge=0, description="longer solutions are cut, and end all the same; 0: sampling.max_tokens"
    )

    def rate(self, done: int, total: int) -> float:
        return self.lr * min(1.0, (done + 1) / max(1, self.warmup_updates))

    def fault(self, dynamic_sampling: bool, target: int, most: int, room: int) -> str | None:
        """Why a run can't have it. `target`, `most`: of staleness; `room`: what the context leaves a solution."""
        if not self.enabled:
            return None
        if dynamic_sampling:
            return (
                "relift.enabled: it learns of groups without a right sample, and objective.dynamic_sampling drops them "
                "before they are trained: set one of the two to false"
            )
        if most < 2 * target:
            return (
                f"staleness.max is {most}; with relift a step may make two versions of the weights, so groups that are "
                f"{target} steps late are {2 * target} versions old and would be dropped: set it to at least that"
            )
        if self.max_tokens > room:
            return (
                f"relift.max_tokens is {self.max_tokens}; beside problems.max_prompt_tokens model.context has room for "
                f"{room}: lower one or raise that"
            )
        return None


class FinetuneSection(Supervision):
    """Critique fine-tuning's numbers, of the code of arXiv 2506.03295. A run of `chorus finetune` makes run.steps
    updates."""

    data: list[WrittenOut] = Field(
        default_factory=list, description="files of `chorus critique`, or critiques:running?..."
    )
    batch: int = Field(default=512, ge=1, description="critiques of an update")
    lr: float = Field(default=5e-6, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    schedule: Literal["constant", "cosine"] = Field(default="cosine", description="of lr, after its warm-up")
    warmup: float = Field(default=0.05, ge=0, lt=1, description="share of the updates over which lr rises linearly")
    max_tokens: int = Field(
        default=0, ge=0, description="longer examples, prompt included, are left out; 0: model.context"
    )

    def rate(self, done: int, total: int) -> float:
        rising = math.ceil(self.warmup * total)
        if done < rising:
            return self.lr * (done + 1) / rising
        if self.schedule == "constant":
            return self.lr
        return self.lr * 0.5 * (1.0 + math.cos(math.pi * min(1.0, (done - rising) / max(1, total - rising))))
