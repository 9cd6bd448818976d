"""Hints at admission: what a problem is asked with, and which problems never get one.

Where a stage's hint can't be given to a problem (no solution, the answer not in it or already in the hint, a prompt
too long), the problem is left out of that stage and counted. An online ratio is lowered instead, down to 0, and that
is counted. The probe is a fixed share of the problems, by a hash of seed and id: asked as they are, so that their
accuracy tells what the policy can do by itself.

Online hints: every problem has a hint ratio of its own, which follows its own pass rate.

    group at ratio r, accuracy a ─▶ a <= low: r + move    a >= high: r - move    between: r    within 0 and max
    asked next with min(that, bound(step)); the bound falls from max to 0 and stays there

The move starts from the ratio that the group had, so groups of one problem that are under way together do not move it
twice. Each observation is one line of hints.jsonl, appended before the group's fate is told to the ledger, and made
once for an admission index. The ratios are what the lines say: a resumed learner reads them, also those of groups
whose steps a crash undid, since what a problem's group has shown stays true.

The probe set's accuracy, of every group that came back since the last step, also those that the filter dropped.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from chorus.problems.hints import (
    LEAST_CHARACTERS,
    answer_in_hint,
    hint_prefix,
    hint_refusal,
    token_ends,
    with_hint,
)
from chorus.protocol.config.curriculum import OnlineHints, Stage
from chorus.protocol.config.run import RunConfig
from chorus.protocol.messages import Problem
from chorus.protocol.run_folder.files import append_line, write_whole
from chorus.protocol.runtime.exits import CannotGoOn

if TYPE_CHECKING:  # seconds, which `chorus run` and its dry run would wait for nothing
    from transformers import PreTrainedTokenizerFast

Fits = Callable[[str, str], bool]  # whether the prompt is short enough: the problem's text, the answer's beginning


class Hints:
    """`fits` looks at both under all of the run's templates. Only hints that are cut by tokens need the `tokenizer`."""

    def __init__(self, config: RunConfig, tokenizer: PreTrainedTokenizerFast | None, fits: Fits) -> None:
        self.config = config.curriculum.hints
        self.seed = config.run.seed
        self.tokenizer = tokenizer
        self.fits = fits
        self._tried = self._held = 0  # online ratios above 0 since the last `take`; with the answer in their hint
        self._lowered: Counter[str] = Counter()  # what could not be given, by reason
        self._least = 1 if self.config.place == "assistant" else LEAST_CHARACTERS

    def prefix(self, problem: Problem, ratio: float) -> str:
        """What of the solution is given; empty at ratio 0."""
        return hint_prefix(problem, ratio, self.config.unit, partial(token_ends, self.tokenizer)) if ratio else ""

    def text(self, problem: Problem, ratio: float) -> str:
        """What the user says."""
        given = ratio and self.config.place == "user"
        return with_hint(problem.problem, self.prefix(problem, ratio)) if given else problem.problem

    def begun(self, problem: Problem, ratio: float) -> str:
        """What stands in the assistant's reasoning before it goes on."""
        return self.prefix(problem, ratio) if self.config.place == "assistant" else ""

    def is_given(self, problem: Problem, ratio: float) -> bool:
        """Whether the prefix is long enough; of a shorter one only the blank line before it is, as published."""
        return len(self.prefix(problem, ratio)) >= self._least

    def holds_answer(self, problem: Problem, ratio: float) -> bool:
        return answer_in_hint(problem.answers, self.prefix(problem, ratio), self._least)

    def unusable(self, problem: Problem, stage: Stage) -> str | None:
        """Why a stage that gives hints can give none of a problem, at whatever ratio."""
        return hint_refusal(problem, "") if stage.gives_hints else None

    def refusal(self, problem: Problem, ratio: float) -> str | None:
        """Why this hint is not given to a problem that has a usable solution."""
        guard = self.config.reject_if_answer_in_hint
        reason = hint_refusal(problem, self.prefix(problem, ratio), guard, self._least)
        fits = reason or self.fits(self.text(problem, ratio), self.begun(problem, ratio))
        return reason or (None if fits else "too_long")

    def lower(self, problem: Problem, ratio: float, move: float) -> float:
        """The largest of ratio, ratio - move, ... that can be given; 0 where none can."""
        while ratio > 0:
            self._tried += 1
            self._held += self.holds_answer(problem, ratio)
            reason = self.refusal(problem, ratio)
            if reason is None:
                return ratio
            self._lowered[reason] += 1
            ratio = max(0.0, round(ratio - move, 9))
        return 0.0

    def take(self) -> tuple[float | None, Counter[str]]:
        """Of the online ratios tried since the last call: the share whose hint holds the answer, given or not (None:
        none was tried), and what could not be given, by reason."""
        taken = self._held / self._tried if self._tried else None, self._lowered
        self._tried, self._held, self._lowered = 0, 0, Counter()
        return taken

    def is_probe(self, problem_id: str) -> bool:
        key = f"{self.seed}\0probe\0{problem_id}".encode()
        number = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")
        return number < self.config.probe_share * 2**64


class OnlineRatios:
    """`steps`: of the run. `open` it on the run's hints.jsonl before the run admits anything."""

    def __init__(self, config: OnlineHints, steps: int) -> None:
        self.config = config
        self._unhinted_from = config.unhinted_after * steps
        self._most = math.floor(config.max / config.move + 1e-9)  # moves
        self._ratios: dict[str, float] = {}
        self._seen: set[int] = set()
        self._file: Path | None = None

    def open(self, file: Path) -> None:
        """Take up what earlier learners of this run have observed; a line that a crash cut short is forgotten.

        Raises CannotGoOn for any other line that is no observation.
        """
        self._file = file
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
            write_whole(self._file, f"{whole}\n" if whole else "")

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
            append_line(self._file, line)


class Probe:
    def __init__(self) -> None:
        self._groups: list[list[float]] = []

    def add(self, accuracies: Sequence[float]) -> None:
        """The graded samples of one unhinted group of a probe problem."""
        self._groups.append(list(accuracies))

    def take(self) -> dict[str, Any]:
        """probe_solved: the share of groups with a right sample. None: no group came."""
        groups, self._groups = self._groups, []
        samples = [a for group in groups for a in group]
        return {
            "probe_groups": len(groups),
            "probe_accuracy": fmean(samples) if samples else None,
            "probe_solved": fmean(float(max(group) == 1.0) for group in groups) if groups else None,
        }
