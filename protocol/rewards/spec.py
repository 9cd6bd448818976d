"""`[reward]` as data: which parts a reward has, and their numbers. Formulas stand in compose.py and group.py."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Composition = Literal["additive", "format_gated", "accuracy_only", "accuracy_and_format", "sparkle"]


class _Spec(BaseModel):
    """Where None is allowed, a recipe writes `"none"`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _none(cls, fields: Any) -> Any:
        return {k: None if v == "none" else v for k, v in fields.items()} if isinstance(fields, dict) else fields


class OverlongSpec(_Spec):
    """DAPO's soft overlong penalty (arXiv 2503.14476): 0 up to `max_tokens - buffer_tokens`, then linear.

    At `max_tokens` the penalty is `-factor`; a completion that is longer still pays proportionally more.
    """

    max_tokens: int = Field(gt=0)
    buffer_tokens: int = Field(gt=0)
    factor: float = Field(default=1.0, ge=0.0)

    @model_validator(mode="after")
    def _buffer_fits(self) -> Self:
        if self.buffer_tokens > self.max_tokens:
            raise ValueError(
                f"buffer_tokens is {self.buffer_tokens}, more than max_tokens {self.max_tokens}: "
                "even an empty completion would be punished; make the buffer smaller"
            )
        return self


class Term(_Spec):
    """A user's own grader as a part of the reward: `weight` times its score. Weight 0 logs it and pays nothing."""

    grader: str = Field(description="the name of one of [[reward.graders]]")
    weight: float = 1.0


class PointsSpec(_Spec):
    """Points for an answer and for its format, in the place of `compose`. An answer is right whose accuracy is 1, a
    format whose score is 1. The numbers are those of Short-RL (arXiv 2505.12284) and, but for `formless`, of
    interleaved reasoning (arXiv 2505.19640)."""

    right: float = 2.0
    wrong: float = -1.5
    no_answer: float = -2.0
    formless: float | None = Field(
        default=None, description="what the answer earns where the format is wrong; none: as if it were right"
    )
    format_right: float = 1.0
    format_wrong: float = -1.0


class ShortSpec(_Spec):
    """Short-RL's length reward (arXiv 2505.12284, its code): three designs, each with a switch. With all three off it
    is the always-on form of Kimi k1.5 (arXiv 2501.12599)."""

    weight: float = Field(default=1.0, gt=0, description="of the length reward, which is 0.5 at most")
    only_right: bool = Field(
        default=True, description="lengths of right answers alone; false: of all, and a wrong one gets min(0, s)"
    )
    band: bool = Field(default=True, description="answers within tolerance_tokens of the shortest all get 0.5")
    tolerance_tokens: int = Field(default=100, ge=0, description="of the band; 200 for logic in the paper")
    gate: bool = Field(default=True, description="only in steps whose accuracy is near the best so far")
    accuracy_margin: float = Field(default=0.05, ge=0, le=1, description="of the gate, below the best accuracy")


class CosineSpec(_Spec):
    """ProRL's length term (arXiv 2507.12507): weight x (eta_min + (eta_max - eta_min) (1 + cos(pi t / T)) / 2), where t
    are the answer's tokens and T is `max_tokens`. On and off in turn. Its sizes are not published: they are ours."""

    weight: float = Field(default=1.0, gt=0)
    eta_min: float = -0.5
    eta_max: float = 0.5
    max_tokens: int | None = Field(default=None, gt=0, description="none: sampling.max_tokens")
    on_updates: int = Field(default=100, ge=1, description="optimizer updates with it, then")
    off_updates: int = Field(default=500, ge=0, description="so many without")

    @model_validator(mode="after")
    def _falls(self) -> Self:
        if self.eta_max < self.eta_min:
            raise ValueError(f"eta_max {self.eta_max:g} is below eta_min {self.eta_min:g}: exchange them")
        return self


class InterleavedSpec(_Spec):
    """Interleaved reasoning's pay for sub-answers (arXiv 2505.19640): for a right final answer in a right format, in
    steps that are more accurate than the one before, less `accuracy_margin`."""

    design: Literal["all_or_none", "partial", "time_discounted"] = "time_discounted"
    base: float = Field(default=0.5, gt=0, description="shared by all sub-answers of a problem")
    gate: bool = Field(default=True, description="only where accuracy has not fallen")
    accuracy_margin: float = Field(default=0.05, ge=0, le=1, description="Algorithm 1's; equation 3.4 has 0")


class RewardSpec(_Spec):
    """Which composition, and its numbers.

    * `additive`: accuracy + format_weight x format, format paid whether or not the answer is right
      (prompt augmentation, arXiv 2602.03190; its weight is 1)
    * `format_gated`: the format is paid only when the answer is right
    * `accuracy_only`: the format is measured and logged, never paid
    * `accuracy_and_format`: 1 for a right answer in a whole format, 0 for all else (CrossThink, arXiv 2504.13941)
    * `sparkle`: 2 for that, 1 for a right answer in another format, -1 for a wrong one (SPARKLE, arXiv 2506.04723)

    `points` takes the place of these. `overlong`, `terms`, `short`, `cosine` and `interleaved` add to each of them,
    whether or not the answer is right; `stop_properly` looks at the sum.
    """

    compose: Composition = "additive"
    format_weight: float = Field(default=1.0, ge=0.0)
    overlong: OverlongSpec | None = None
    terms: tuple[Term, ...] = ()
    points: PointsSpec | None = None
    short: ShortSpec | None = None
    cosine: CosineSpec | None = None
    interleaved: InterleavedSpec | None = None
    stop_properly: float | None = Field(
        default=None,
        le=1,
        description="0 to 1: the reward of an answer that was cut off, times this (ProRL: 0); below 0: its reward",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        names = [term.grader for term in self.terms]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"terms: {twice!r} stands there twice; add up its weights")
        if self.points and (self.compose, self.format_weight) != ("additive", 1.0):
            raise ValueError("points take the place of compose and format_weight: leave these two out")
        return self
