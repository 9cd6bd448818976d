"""How often a model solved each problem, from the files that a curriculum names (problems/pass_rates.py)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from problems.pass_rates import Measured, read_measured
from protocol.curriculum import PassRate
from protocol.exits import CannotGoOn


class PassRates:
    """Raises CannotGoOn for a file or line that can't be used."""

    def __init__(self, files: Iterable[str]) -> None:
        self._counts: dict[tuple[str, float], dict[str, list[int]]] = defaultdict(dict)
        for file in files:
            try:
                lines = read_measured(Path(file))
            except ValueError as error:
                raise CannotGoOn(f"curriculum.pass_rates: {error}") from None
            for measured in lines:
                self._add(measured)

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
