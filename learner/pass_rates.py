"""How often a model solved each problem: files of one JSON object a line, as `chorus measure-difficulty` writes them.

    {"id": "math/7", "model": "my-model", "hint_ratio": 0.5, "samples": 8, "correct": 3}

Several lines of one problem, model and hint add up; so do those of several files. Other keys are ignored.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from protocol.curriculum import PassRate
from protocol.exits import CannotGoOn


class Measured(BaseModel):
    """One line."""

    id: str
    model: str
    hint_ratio: float = Field(default=0.0, ge=0, lt=1)
    samples: Annotated[int, Field(ge=1)]
    correct: Annotated[int, Field(ge=0)]


class PassRates:
    """Raises CannotGoOn for a file or line that can't be used."""

    def __init__(self, files: Iterable[str]) -> None:
        self._counts: dict[tuple[str, float], dict[str, list[int]]] = defaultdict(dict)
        for file in files:
            for number, line in enumerate(_lines(file), 1):
                if line.strip():
                    self._add(_measured(line, f"{file}:{number}"))

    def _add(self, measured: Measured) -> None:
        count = self._counts[measured.model, measured.hint_ratio].setdefault(measured.id, [0, 0])
        count[0] += measured.samples
        count[1] += measured.correct

    def rates(self, asked: PassRate, stage_hint: float) -> dict[str, float]:
        """Problem id to its pass rate, under the model and the hint that a stage asks for.

        Raises CannotGoOn where the files say nothing of them, or of several models and the stage of none.
        """
        hint = stage_hint if asked.hint_ratio is None else asked.hint_ratio
        at_hint = [model for model, ratio in self._counts if ratio == hint]
        models = [model for model in at_hint if asked.model in ("", model)]
        if len(models) != 1:
            known = (
                ", ".join(f"{model!r} at hint ratio {ratio:g}" for model, ratio in sorted(self._counts)) or "nothing"
            )
            what = f"model {asked.model!r}" if asked.model else "one model"
            raise CannotGoOn(
                f"curriculum.pass_rates: {what} at hint ratio {hint:g} is asked for, and the files hold {known}; set "
                "the stage's pass_rate.model and pass_rate.hint_ratio"
            )
        return {id: correct / samples for id, (samples, correct) in self._counts[models[0], hint].items()}


def _lines(file: str) -> list[str]:
    try:
        return Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CannotGoOn(f"curriculum.pass_rates: {file} can't be read ({error}); give a file of pass rates") from None


def _measured(line: str, where: str) -> Measured:
    try:
        measured = Measured.model_validate(json.loads(line))
    except json.JSONDecodeError as error:
        raise CannotGoOn(f"curriculum.pass_rates: {where}: not JSON ({error.msg}); mend this line") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the line"
        raise CannotGoOn(f"curriculum.pass_rates: {where}: {field}: {first['msg']}; mend this line") from None
    if measured.correct > measured.samples:
        raise CannotGoOn(
            f"curriculum.pass_rates: {where}: {measured.correct} correct of {measured.samples} samples; mend this line"
        )
    return measured
