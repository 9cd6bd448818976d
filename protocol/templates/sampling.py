"""Which template a problem is asked under: the draw, and the weights that it follows.

    names alone                  every template the same weight
    weights, category_weights    a weight a template, or a weight a category, shared equally by its templates
    adaptive                     these weights times a bounded factor for how much each template still teaches

A weight that is not given is 1. Only proportions count; `base_weights` returns shares that sum to 1.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)

from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.templates.template import Category, Template


def draw(
    seed: int, epoch: int, problem_id: str, names: Sequence[str], weights: Mapping[str, float] | None = None
) -> str:
    """The template of one problem in one epoch: uniform over `names`, or with chances in proportion to `weights`.

    It depends on its arguments alone, not on the order of names (no global generator), so that a resumed run
    draws the same again.
    """
    if not names:
        raise ValueError("no template to draw from: name at least one in the recipe")
    key = f"{seed}\0{epoch}\0{problem_id}".encode()
    number = int.from_bytes(hashlib.blake2b(key, digest_size=16).digest(), "little")
    ordered = sorted(names)
    if weights is None:
        return ordered[number % len(ordered)]
    bounds = list(accumulate(weights[name] for name in ordered))
    point = (number >> 75) * 2.0**-53  # in [0, 1), all of a float's digits
    return ordered[bisect_right(bounds, point * bounds[-1])]


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


def base_weights(
    names: Sequence[str], weights: Weights, templates: Mapping[str, Template], step: int
) -> dict[str, float]:
    """Template to its share, sum 1; templates that can't be drawn are left out. `step` is where these weights hold.

    Raises CannotGoOn for category weights that none of the names can take.
    """
    raw = {name: weights.weights.get(name, 1.0) for name in names}
    if weights.category_weights:
        sizes = Counter(templates[name].category for name in names)
        if missing := [c for c in weights.category_weights if c not in sizes]:
            raise CannotGoOn(
                f"templates.category_weights: none of the templates drawn at step {step} is of the category "
                f"{', '.join(missing)}; there are {', '.join(sorted(sizes))}: name some of these"
            )
        raw = {
            name: weights.category_weights.get(templates[name].category, 1.0) / sizes[templates[name].category]
            for name in names
        }
    total = sum(raw.values())
    if not total:
        raise CannotGoOn(f"templates.category_weights: every weight is 0 at step {step}; give one that is above 0")
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
