"""How often a model solved each problem: a file of one JSON object a line.

    {"id": "math/7", "model": "my-model", "hint_ratio": 0.5, "samples": 8, "correct": 3}

Several lines of one problem, model and hint add up, and so do those of several files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator


class Measured(BaseModel):
    """One line: `correct` of `samples` answers that could be graded. Other keys are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    model: str
    hint_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.0
    samples: Annotated[int, Field(ge=1)]
    correct: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _is_a_share(self) -> Self:
        if self.correct > self.samples:
            raise ValueError(f"{self.correct} correct of {self.samples} samples")
        return self

    @property
    def line(self) -> str:
        return json.dumps(self.model_dump()) + "\n"


def read_measured(path: Path) -> list[Measured]:
    """All lines of a file, in order. Raises ValueError for a file or a line that can't be used, with its place."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"pass rates {path}: can't be read ({error}); give a file of measure-difficulty") from None
    return [_measured(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]


def _measured(line: str, where: str) -> Measured:
    try:
        return Measured.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the line"
        raise ValueError(f"pass rates {where}: {field}: {first['msg']}; mend this line") from None
