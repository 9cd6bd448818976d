"""The recipe's `[curriculum]`: which problems come when, with how much of a hint, and for how long.

    [[curriculum.stages]]           in turn; each may choose problems, blend domains, give hints, and have a sampling
                                    and an optimizer's rate of its own
    [curriculum.hints]              how hints are cut and guarded, and which problems never get one
    curriculum.pass_rates           files that say how often a model solved each problem

A stage ends at the first of its ends: `steps`, a `plateau` of accuracy, an `entropy_fall`. The last one ends with the
run. Without `[curriculum]` a run has one stage that takes every problem as it is.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from chorus.protocol.runtime.paths import WrittenOut
from chorus.protocol.templates.sampling import Weight

Share = Annotated[float, Field(ge=0, le=1)]
Shares = Annotated[list[Share], Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PassRate(_Part):
    """Problems that a model solved in this share of its samples, bounds included."""

    low: Share = 0.0
    high: Share = 1.0
    model: str = Field(default="", description="as the file names it; empty: the only one there")
    hint_ratio: float | None = Field(default=None, ge=0, lt=1, description="measured with it; none: the stage's own")

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low ({self.low:g}) is above high ({self.high:g}); no problem would be left")
        return self


class Plateau(_Part):
    """Over the last `window` steps the mean of `figure` is not above that of the `window` before by `gain`."""

    figure: Literal["accuracy", "probe_accuracy", "validation_accuracy"] = "accuracy"
    window: int = Field(default=20, ge=1, description="steps; validation_accuracy: validations")
    gain: float = Field(default=0.01, ge=0)


class EntropyFall(_Part):
    """Over the last `window` steps mean entropy is below its highest such mean of the stage by this share of it."""

    window: int = Field(default=10, ge=1, description="steps")
    share: float = Field(default=0.2, gt=0, lt=1)


class Stage(_Part):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    hint_ratio: Literal["online"] | Annotated[float, Field(ge=0, lt=1)] | Shares = Field(
        default=0.0,
        description="share of the solution that is given; `online`: of its own for every problem; a list: every "
        "problem with each of them, mixed",
    )
    pass_rate: PassRate | None = None
    drop_above: Share | None = Field(
        default=None, description="after each pass, leave out problems whose newest group was right more often"
    )
    levels: list[int] = Field(default_factory=list, description="of the problems; empty: all")
    domains: dict[str, Weight] = Field(default_factory=dict, description="by weight; others are left out. Empty: all")
    stratified: bool = Field(default=True, description="domains: every groups_per_step admissions hold their shares")
    max_tokens: int | None = Field(default=None, ge=1, description="none: sampling.max_tokens")
    group_size: int | None = Field(default=None, ge=2, description="none: sampling.group_size")
    temperature: float | None = Field(default=None, gt=0, description="none: sampling.temperature")
    lr: float | None = Field(default=None, gt=0, description="none: learner.lr")
    entropy_coefficient: float | None = Field(default=None, description="none: objective.entropy_coefficient")
    kl_coefficient: float | None = Field(default=None, ge=0, description="none: objective.kl_coefficient")
    overlong_filter: bool | None = Field(default=None, description="none: objective.overlong_filter")
    reset_optimizer: bool = Field(default=False, description="forget its moments before the stage's first step")
    steps: int | None = Field(default=None, ge=1, description="ends after so many")
    plateau: Plateau | None = None
    entropy_fall: EntropyFall | None = None

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Self:
        if isinstance(self.hint_ratio, list) and len(set(self.hint_ratio)) < len(self.hint_ratio):
            raise ValueError(f"stage {self.name}: hint_ratio names one share twice; leave one out")
        if self.domains and not any(self.domains.values()):
            raise ValueError(f"stage {self.name}: every weight of its domains is 0; give one that is above 0")
        return self

    @property
    def ends(self) -> bool:
        """Whether it can end before the run does."""
        return any(end is not None for end in (self.steps, self.plateau, self.entropy_fall))

    @property
    def gives_hints(self) -> bool:
        return self.hint_ratio == "online" or any(self.hint_ratios)

    @property
    def hint_ratios(self) -> list[float]:
        """Those that are fixed before the run begins."""
        if isinstance(self.hint_ratio, list):
            return self.hint_ratio
        return [] if self.hint_ratio == "online" else [self.hint_ratio]


class OnlineHints(_Part):
    """A ratio for each problem, moved after every one of its groups; never above a bound that falls to 0."""

    start: float = Field(default=0.5, ge=0, lt=1)
    move: float = Field(default=0.125, gt=0, lt=1, description="ratios are multiples of it")
    low: Share = Field(default=0.0, description="accuracy of a group, hint in force: up to this, the ratio is raised")
    high: Share = Field(default=0.5, description="from this on it is lowered")
    max: float = Field(default=0.75, gt=0, lt=1)
    unhinted_after: float = Field(default=0.8, gt=0, le=1, description="share of run.steps; the bound is 0 from there")

    @model_validator(mode="after")
    def _can_move(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        if self.start > self.max or self.move > self.max:
            raise ValueError(f"start ({self.start:g}) and move ({self.move:g}) must not be above max ({self.max:g})")
        return self


class HintsSection(_Part):
    unit: Literal["characters", "tokens", "steps", "parts"] = "characters"
    place: Literal["user", "assistant"] = Field(
        default="user",
        description="behind the problem (QuestA), or as the answer's beginning, in its reasoning (SPARKLE)",
    )
    reject_if_answer_in_hint: bool = True
    probe_share: float = Field(default=0.05, ge=0, lt=1, description="problems that never get a hint")
    online: OnlineHints = OnlineHints()


class CurriculumSection(_Part):
    pass_rates: list[WrittenOut] = Field(default_factory=list, description="files of measured pass rates")
    hints: HintsSection = HintsSection()
    stages: list[Stage] = Field(default_factory=list)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if doubled := [name for name, n in Counter(s.name for s in self.stages).items() if n > 1]:
            raise ValueError(f"stages: {', '.join(doubled)} named twice; give each stage a name of its own")
        for stage in self.stages[:-1]:
            if not stage.ends:
                raise ValueError(
                    f"stages: {stage.name} never ends, so {self.stages[-1].name} would never begin: give it steps, "
                    "plateau or entropy_fall"
                )
        for stage in self.stages:
            if stage.pass_rate and not self.pass_rates:
                raise ValueError(
                    f"stages: {stage.name} chooses by pass_rate, and no file says one: name it in curriculum.pass_rates"
                )
            if stage.plateau and stage.plateau.figure == "probe_accuracy" and not self.hints.probe_share:
                raise ValueError(
                    f"stages: {stage.name} waits for a plateau of probe_accuracy, and curriculum.hints.probe_share is "
                    "0: raise that"
                )
        return self

    @property
    def all_stages(self) -> list[Stage]:
        """At least one."""
        return self.stages or [Stage(name="all")]

    @property
    def gives_hints(self) -> bool:
        return any(stage.gives_hints for stage in self.stages)
