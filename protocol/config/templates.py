"""The recipe's `[templates]`: which templates a run asks under, and how often each.

names alone                  every template the same weight
weights, category_weights    a weight a template, or a weight a category, shared equally by its templates
schedule                     from a step on, other names and weights
adaptive                     these weights times a bounded factor for how much each template still teaches
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from chorus.protocol.runtime.paths import WrittenOut
from chorus.protocol.templates.sampling import Weights

_OURS = {"messages", "add_generation_prompt", "continue_final_message", "tokenize", "conversation", "chat_template"}


class Stage(Weights):
    """From `from_step` on: these names (all of the run's where none are given) with these weights."""

    from_step: int = Field(ge=1)
    names: list[str] = Field(default_factory=list)


class Adaptive(BaseModel):
    """Weights follow the variance of each template's rewards within its groups, over the last `window` steps."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    window: int = Field(default=20, ge=1, description="steps")
    bound: float = Field(default=4.0, gt=1, description="the factor stays between 1 / bound and bound")


class TemplatesSection(Weights):
    names: list[str] = Field(..., min_length=1)
    files: list[WrittenOut] = Field(default_factory=list, description="further template files or folders")
    chat: WrittenOut = Field(
        default="chatml", description="`model`: the tokenizer's chat template; or the file of one, FILE.jinja"
    )
    chat_arguments: dict[str, Any] = Field(
        default_factory=dict, description="what the chat template is told beside, e.g. enable_thinking"
    )
    schedule: list[Stage] = Field(default_factory=list, description="what holds from a step on")
    adaptive: Adaptive | None = None

    @field_validator("chat")
    @classmethod
    def _is_a_format(cls, chat: str) -> str:
        if chat not in ("chatml", "model") and not chat.endswith(".jinja"):
            raise ValueError(f"{chat!r} is no chat format: give chatml, model, or the file of a chat template (.jinja)")
        return chat

    @model_validator(mode="after")
    def _arguments_are_read(self) -> Self:
        if self.chat_arguments and self.chat == "chatml":
            raise ValueError(
                "chat_arguments are told to a chat template, and chat is chatml, which has none: set chat = 'model'"
            )
        if taken := sorted(_OURS & self.chat_arguments.keys()):
            raise ValueError(f"chat_arguments: {', '.join(taken)} is set by every prompt itself; leave it out")
        return self

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Self:
        if doubled := [name for name, n in Counter(self.names).items() if n > 1]:
            raise ValueError(f"names: {', '.join(doubled)} named twice; give weights to draw it more often")
        _check("", self.names, self.weights)
        for stage, before in zip(self.schedule, [None, *self.schedule], strict=False):
            where = f"schedule, from_step {stage.from_step}: "
            if before is not None and stage.from_step <= before.from_step:
                raise ValueError(f"{where}comes after from_step {before.from_step}; put the stages in order")
            if unknown := sorted(set(stage.names) - set(self.names)):
                raise ValueError(f"{where}{', '.join(unknown)} not in templates.names; add it there")
            _check(where, stage.names or self.names, stage.weights)
        return self

    def at(self, step: int) -> tuple[Sequence[str], Weights]:
        """The names and weights that hold at a step, from 1."""
        for stage in reversed(self.schedule):
            if step >= stage.from_step:
                return stage.names or self.names, stage
        return self.names, self


def _check(where: str, names: Sequence[str], weights: Mapping[str, float]) -> None:
    if unknown := sorted(set(weights) - set(names)):
        raise ValueError(f"{where}weights for {', '.join(unknown)}, which is not among the names; remove it")
    if not any(weights.get(name, 1.0) for name in names):
        raise ValueError(f"{where}every weight is 0; no template could be drawn: give one that is above 0")
