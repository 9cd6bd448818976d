"""Which template how often: the recipe's `[templates]`, and the weights that it comes to at a step.

    names alone                  every template the same weight
    weights, category_weights    a weight a template, or a weight a category, shared equally by its templates
    schedule                     from a step on, other names and weights
    adaptive                     these weights times a bounded factor for how much each template still teaches

A weight that is not given is 1. Only proportions count; `base_weights` returns shares that sum to 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from protocol.exits import CannotGoOn
from protocol.templating import Category, Template

Weight = Annotated[float, Field(ge=0)]


class Weights(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    weights: dict[str, Weight] = Field(default_factory=dict, description="by template; 1 where not given")
    category_weights: dict[Category, Weight] = Field(
        default_factory=dict, description="by category, shared equally by its templates; 1 where not given"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.weights and self.category_weights:
            raise ValueError("weights and category_weights exclude each other; give one of them")
        return self


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
    files: list[str] = Field(default_factory=list, description="further template files or folders")
    chat: Literal["chatml", "model"] = Field(default="chatml", description="`model`: the tokenizer's chat template")
    schedule: list[Stage] = Field(default_factory=list, description="what holds from a step on")
    adaptive: Adaptive | None = None

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


def _check(where: str, names: Sequence[str], weights: Mapping[str, float]) -> None:
    if unknown := sorted(set(weights) - set(names)):
        raise ValueError(f"{where}weights for {', '.join(unknown)}, which is not among the names; remove it")
    if not any(weights.get(name, 1.0) for name in names):
        raise ValueError(f"{where}every weight is 0; no template could be drawn")


def stage_at(section: TemplatesSection, step: int) -> tuple[Sequence[str], Weights]:
    """The names and weights that hold at a step, from 1."""
    for stage in reversed(section.schedule):
        if step >= stage.from_step:
            return stage.names or section.names, stage
    return section.names, section


def base_weights(section: TemplatesSection, templates: Mapping[str, Template], step: int) -> dict[str, float]:
    """Template to its share at a step, sum 1; templates that can't be drawn are left out.

    Raises CannotGoOn for category weights that no template of the stage can take.
    """
    names, weights = stage_at(section, step)
    raw = {name: weights.weights.get(name, 1.0) for name in names}
    if weights.category_weights:
        sizes = Counter(templates[name].category for name in names)
        if missing := [c for c in weights.category_weights if c not in sizes]:
            raise CannotGoOn(
                f"templates.category_weights: none of the templates drawn at step {step} is of the category "
                f"{', '.join(missing)}; there are {', '.join(sorted(sizes))}"
            )
        raw = {
            name: weights.category_weights.get(templates[name].category, 1.0) / sizes[templates[name].category]
            for name in names
        }
    total = sum(raw.values())
    if not total:
        raise CannotGoOn(f"templates.category_weights: every weight is 0 at step {step}; no template could be drawn")
    return {name: raw[name] / total for name in sorted(raw) if raw[name]}


def adapted(base: Mapping[str, float], variance: Mapping[str, float], bound: float) -> dict[str, float]:
    """`base` times each template's variance relative to the mean of those measured, within 1/bound to bound.

    A template without a measurement keeps its weight; so do all where no group of any template has a spread.
    """
    known = [variance[name] for name in base if name in variance]
    mean = sum(known) / len(known) if known else 0.0
    if mean <= 0:
        return dict(base)
    raw = {name: share * min(max(variance.get(name, mean) / mean, 1 / bound), bound) for name, share in base.items()}
    total = sum(raw.values())
    return {name: value / total for name, value in raw.items()}
