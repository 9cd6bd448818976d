"""What a grader is asked and what it answers: the types between the API, the pool, its workers and the graders.

    GradeTask ─▶ grader ─▶ GradeResult        task "grade" or "explain"
                        ├▶ Extracted           task "extract"
                        └▶ Clusters            task "cluster"

All of them are plain data that a frame carries (`pool/frames.py`). No algebra is imported here: the API process may.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Asked = Literal["grade", "explain", "extract", "cluster"]
Mode = Literal["train", "paper", "strict"]
Verdict = Literal["correct", "wrong", "no_answer", "timeout", "error"]
Failure = Literal["timeout", "error"]
Block = Literal["last", "longest"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
ACCURACY = {"correct": 1.0, "wrong": 0.0, "no_answer": 0.0}  # a failure has none


@dataclass(frozen=True, slots=True)
class Program:
    """Of kind `code`: the tests as JSON (they may hold integers of any size), and how they are run and scored."""

    tests: str
    sandbox: str  # the mechanism
    timeout_s: float
    scoring: Literal["strict", "fractional"] = "strict"
    block: Block = "last"


@dataclass(frozen=True, slots=True)
class GradeTask:
    """One thing to do. `kind` is the grader's name; `row`: JSON of the columns that a user's own grader asked for.

    term: its score adds to a reward, or is a second opinion; otherwise it decides the sample's accuracy.
    """

    kind: str
    completion: str = ""
    golds: tuple[str, ...] = ()
    mode: Mode = "train"
    task: Asked = "grade"
    options: tuple[str, ...] = ()
    program: Program | None = None
    row: str | None = None
    markers: tuple[str, ...] = ()  # of the template, whose answer place is read first
    prefill: str = ""
    percent_sign_optional: bool = True  # these two: graders/policy.py
    unfinished_reasoning: bool = False
    term: bool = False
    answers: tuple[str | None, ...] = ()  # of the task "cluster", in the completion's place


@dataclass(frozen=True, slots=True)
class GradeResult:
    """The verdict on one completion. `timeout` and `error` are the verifier's failures: they have no accuracy.

    explanation: of the task "explain", plain data. score and parts: what a user's own grader said, as numbers.
    """

    verdict: Verdict
    accuracy: float | None
    verifier: str
    extracted: str | None = None
    reason: str | None = None
    refused: bool = False
    explanation: dict[str, Any] | None = None
    score: float | None = None
    parts: dict[str, float] = field(default_factory=dict)
    ms: float = 0.0

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS or not isinstance(self.accuracy, float | int | None):
            raise ValueError(f"no grade: verdict {self.verdict!r:.40}, accuracy {self.accuracy!r:.40}")

    @classmethod
    def failed(cls, verifier: str, reason: str, verdict: Failure = "error", **facts: Any) -> GradeResult:
        return cls(verdict, None, verifier, reason=reason, **facts)


@dataclass(frozen=True, slots=True)
class Extracted:
    """The answer that a completion gives, and the key that tells answers apart where comparing them fails."""

    answer: str | None
    key: str


@dataclass(frozen=True, slots=True)
class Clusters:
    """A number for each answer, the same for equivalent ones."""

    numbers: tuple[int, ...]


Reply = GradeResult | Extracted | Clusters
Grader = Callable[[GradeTask], GradeResult]
