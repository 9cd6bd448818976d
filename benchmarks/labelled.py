"""The labelled set (tests/labelled) and the scores of a grader on it."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "labelled"


@dataclass(frozen=True)
class Pair:
    """A completion, its golds (any of them matches), and whether a mathematician accepts it."""

    topic: str
    completion: str
    golds: tuple[str, ...]
    right: bool
    reason: str
    kind: str = "math"
    mode: str = "train"
    options: tuple[str, ...] = ()

    @property
    def held_out(self) -> bool:
        """A third of the pairs by a hash of their text, so that nobody chose them."""
        text = "\0".join((self.kind, self.mode, self.completion, *self.golds))
        return hashlib.sha256(text.encode()).digest()[0] % 3 == 0


@dataclass
class Score:
    """What a grader made of a set; `accuracy` counts everything that is not the label as a fault."""

    pairs: int = 0
    false_accepts: list[Pair] = field(default_factory=list)
    false_rejects: list[Pair] = field(default_factory=list)

    @property
    def accuracy(self) -> float:
        return 1 - (len(self.false_accepts) + len(self.false_rejects)) / self.pairs


def load(folder: Path = FOLDER) -> list[Pair]:
    """Every pair of the folder's files, in order."""
    groups = [group for path in sorted(folder.glob("*.toml")) for group in tomllib.loads(path.read_text())["group"]]
    return [_pair(group, *pair) for group in groups for pair in group["pairs"]]


def boxed_sentence(answer: str) -> str:
    """The least that a model writes around an answer."""
    return f"So the answer is $\\boxed{{{answer}}}$."


def score(pairs: Iterable[Pair], accepts: Callable[[Pair], bool]) -> Score:
    """The grader's faults; `accepts` says whether it takes a completion."""
    result = Score()
    for pair in pairs:
        result.pairs += 1
        if (accepted := accepts(pair)) != pair.right:
            (result.false_accepts if accepted else result.false_rejects).append(pair)
    return result


def _pair(group: dict[str, Any], answer: str, gold: str | list[str], label: str, reason: str) -> Pair:
    if label not in ("right", "wrong"):
        raise ValueError(f"{group['topic']}: {answer!r}: the label is {label!r}; it must be 'right' or 'wrong'")
    return Pair(
        group["topic"],
        boxed_sentence(answer) if group["place"] == "box" else answer,
        (gold,) if isinstance(gold, str) else tuple(gold),
        label == "right",
        reason,
        group.get("kind", "math"),
        group.get("mode", "train"),
        tuple(group.get("options", ())),
    )
