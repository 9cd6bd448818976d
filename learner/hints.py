"""Hints at admission: what a problem is asked with, and which problems never get one.

Where a stage's hint can't be given to a problem (no solution, the answer not in it or already in the hint, a prompt
too long), the problem is left out of that stage and counted. An online ratio is lowered instead, down to 0, and that
is counted. The probe is a fixed share of the problems, by a hash of seed and id: asked as they are, so that their
accuracy tells what the policy can do by itself.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any

from transformers import PreTrainedTokenizerFast

from problems.hints import answer_in_hint, hint_prefix, hint_refusal, with_hint
from protocol.config import RunConfig
from protocol.curriculum import Stage
from protocol.messages import Problem

Fits = Callable[[str], bool]  # whether the prompt is short enough, with this text as the problem's


class Hints:
    """`fits` looks at a text under all of the run's templates."""

    def __init__(self, config: RunConfig, tokenizer: PreTrainedTokenizerFast, fits: Fits) -> None:
        self.config = config.curriculum.hints
        self.seed = config.run.seed
        self.tokenizer = tokenizer
        self.fits = fits
        self._tried = self._held = 0  # online ratios above 0 since the last `take`; with the answer in their hint
        self._lowered: Counter[str] = Counter()  # what could not be given, by reason

    def prefix(self, problem: Problem, ratio: float) -> str:
        """What of the solution is given; empty at ratio 0."""
        return hint_prefix(problem, ratio, self.config.unit, self._token_ends) if ratio else ""

    def text(self, problem: Problem, ratio: float) -> str:
        """What the user says."""
        return with_hint(problem.problem, self.prefix(problem, ratio)) if ratio else problem.problem

    def holds_answer(self, problem: Problem, ratio: float) -> bool:
        return answer_in_hint(problem.answers, self.prefix(problem, ratio))

    def unusable(self, problem: Problem, stage: Stage) -> str | None:
        """Why a stage that gives hints can give none of a problem, at whatever ratio."""
        return hint_refusal(problem, "") if stage.gives_hints else None

    def refusal(self, problem: Problem, ratio: float) -> str | None:
        """Why this hint is not given to a problem that has a usable solution."""
        reason = hint_refusal(problem, self.prefix(problem, ratio), self.config.reject_if_answer_in_hint)
        return reason or (None if self.fits(self.text(problem, ratio)) else "too_long")

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

    def _token_ends(self, text: str) -> list[int]:
        encoded: Any = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return [end for _, end in encoded["offset_mapping"]]
