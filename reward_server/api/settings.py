"""What the server can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from chorus.protocol.graders import GraderSpec
from chorus.protocol.rewards import RewardSpec

# The keys of a recipe's [reward] that the server is set by, beside the composition.
OF_RECIPE = {
    *("workers", "timeout_s", "percent_sign_optional", "unfinished_reasoning"),
    *("graders", "shadow", "shadow_share", "code_block", "code_scoring"),
}


class Settings(BaseModel):
    """Configuration of one reward server; the defaults serve a laptop."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: int = Field(default=1, ge=1)
    spares: int = Field(default=1, ge=0)  # warm graders that take over where one was killed
    timeout_s: float = Field(default=5.0, gt=0.0)  # wall clock of one grade
    memory_bytes: int = Field(default=3 << 29, ge=1 << 28)  # address space of one grader: 1.5 GiB
    max_queue: int = Field(default=4096, ge=1)  # grades waiting or in progress, over all requests
    max_batch: int = Field(default=1024, ge=1)  # items of one request
    max_body_bytes: int = Field(default=32 << 20, ge=1024)
    templates: tuple[Path, ...] = ()  # files or folders beside the built-in templates
    reward: RewardSpec = RewardSpec()
    percent_sign_optional: bool = True  # docs/grading.md says what these two decide
    unfinished_reasoning: bool = False
    graders: tuple[GraderSpec, ...] = ()  # users' own: a request picks among them and can't name code
    shadow: str = ""  # a second grader, of a share of the completions; it pays nothing
    shadow_share: float = Field(default=0.1, gt=0.0, le=1.0)
    code_block: Literal["last", "longest"] = "last"
    code_scoring: Literal["strict", "fractional"] = "strict"
    token: str | None = Field(default=None, min_length=1)  # bearer token that /v1 asks for
