"""Online hints: every problem has a hint ratio of its own, which follows its own pass rate.

    group at ratio r, accuracy a ─▶ a <= low: r + move    a >= high: r - move    between: r    within 0 and max
    asked next with min(that, bound(step)); the bound falls from max to 0 and stays there

The move starts from the ratio that the group had, so groups of one problem that are under way together do not move it
twice. Each observation is one line of hints.jsonl, appended before the group's fate is told to the ledger, and made
once for an admission index. The ratios are what the lines say: a resumed learner reads them, also those of groups
whose steps a crash undid, since what a problem's group has shown stays true.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from protocol.curriculum import OnlineHints
from protocol.exits import CannotGoOn

FILE = "hints.jsonl"


class OnlineRatios:
    """`steps`: of the run. `open` it on the run's folder before the run admits anything."""

    def __init__(self, config: OnlineHints, steps: int) -> None:
        self.config = config
        self._unhinted_from = config.unhinted_after * steps
        self._most = math.floor(config.max / config.move + 1e-9)  # moves
        self._ratios: dict[str, float] = {}
        self._seen: set[int] = set()
        self._file: Path | None = None

    def open(self, run_dir: Path) -> None:
        """Take up what earlier learners of this run have observed; a line that a crash cut short is forgotten.

        Raises CannotGoOn for any other line that is no observation.
        """
        self._file = run_dir / FILE
        text = self._file.read_text(encoding="utf-8") if self._file.is_file() else ""
        whole, _, rest = text.rpartition("\n")
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                fields = json.loads(line)
                self._ratios[fields["id"]] = float(fields["next"])
                self._seen.add(int(fields["index"]))
            except (ValueError, TypeError, KeyError) as error:
                raise CannotGoOn(f"{self._file}:{number}: no observation ({error}); remove the line") from None
        if rest:
            self._file.write_text(f"{whole}\n" if whole else "", encoding="utf-8")

    def bound(self, step: int) -> float:
        """The largest ratio of a group that is admitted for `step`, from 1: a multiple of `move`."""
        left = max(0.0, 1.0 - (step - 1) / self._unhinted_from)
        return self._grid(min(self._most, math.ceil(self.config.max * left / self.config.move - 1e-9)))

    def wanted(self, problem_id: str, step: int) -> float:
        start = self._grid(math.floor(self.config.start / self.config.move + 1e-9))
        return min(self._ratios.get(problem_id, start), self.bound(step))

    def observe(self, index: int, problem_id: str, ratio: float, accuracy: float) -> None:
        """One group came back, at this ratio and with this mean accuracy; seen again, it counts no more."""
        if index in self._seen:
            return
        following = self.following(ratio, accuracy)
        line = {"index": index, "id": problem_id, "ratio": ratio, "accuracy": accuracy, "next": following}
        self._append(line)
        self._ratios[problem_id] = following
        self._seen.add(index)

    def following(self, ratio: float, accuracy: float) -> float:
        """The ratio after a group at `ratio` had this accuracy."""
        c = self.config
        moves = round(ratio / c.move) + (accuracy <= c.low) - (accuracy >= c.high)
        return self._grid(min(max(moves, 0), self._most))

    def _grid(self, moves: int) -> float:
        return round(moves * self.config.move, 9)

    def _append(self, line: dict[str, Any]) -> None:
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
