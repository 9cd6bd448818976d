"""An evaluation's parts without a model: an engine that recites, and a grader that compares texts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from chorus.evaluation.records import Spec
from chorus.evaluation.runner import Question
from chorus.protocol.messages import Problem


@dataclass(frozen=True)
class Recited:
    token_ids: list[int]
    finish_reason: str = "stop"


class Reciter:
    """Answers problem i (its prompt ends with i) with `answer(i, n)`; remembers what it was asked."""

    def __init__(self, answer: Callable[[int, int], list[Recited]], fails_after: int | None = None) -> None:
        self._answer = answer
        self._fails_after = fails_after
        self.asked: list[tuple[int, int, float, int, float]] = []  # problem, n, temperature, tokens at most, top-p

    async def generate(
        self, prompt: list[int], n: int, temperature: float, max_tokens: int, deadline_s: float, top_p: float = 1.0
    ) -> Sequence[Recited]:
        if self._fails_after is not None and len(self.asked) >= self._fails_after:
            raise RuntimeError("the engine has died")
        self.asked.append((prompt[-1], n, temperature, max_tokens, top_p))
        await asyncio.sleep(0)
        return self._answer(prompt[-1], n)


class TextGrading:
    """Right is who says the gold; "?" has no answer, "!" breaks the verifier."""

    async def grade(self, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        return [self._grade(item) for item in items]

    def _grade(self, item: dict[str, Any]) -> dict[str, Any]:
        said = item["completion"].split()[-1]
        verdict = {"?": "no_answer", "!": "timeout"}.get(said, "correct" if said in item["gold"] else "wrong")
        accuracy = None if said == "!" else float(verdict == "correct")
        return {"verdict": verdict, "accuracy": accuracy, "format": 1.0, "extracted": None if said in "?!" else said}

    async def cluster(self, texts: Sequence[str], kind: str, mode: str) -> list[int | None]:
        said = [text.split()[-1] for text in texts]
        return [None if word == "?" else said.index(word) for word in said]


def decode(ids: list[list[int]]) -> list[str]:
    """Token 100 is "?", 101 is "!", any other is its number."""
    return [f"\\boxed says {({100: '?', 101: '!'}).get(row[-1], row[-1])}" for row in ids]


def questions(n: int, benchmark: str = "sums", levels: int = 0, subjects: Sequence[str | None] = ()) -> list[Question]:
    """Problem i has the answer i, and the i-th subject where there is one."""
    return [
        Question(
            benchmark,
            Problem(
                id=f"{benchmark}/{i}",
                problem=f"say {i}",
                answers=[str(i)],
                level=i % levels if levels else None,
                domain=subjects[i] if i < len(subjects) else None,
            ),
            [7, 7, i],
        )
        for i in range(n)
    ]


def spec(**changes: Any) -> Spec:
    fields: dict[str, Any] = {
        "model": "some-model",
        "weights": "w",
        "suite": "math",
        "problems": {"sums": "d"},
        "prompts": "p",
        "titles": {"sums": "Sums"},
        "expected": {"sums": 0},
        "template": "qwen-math",
        "decoding": "greedy",
        "n": 2,
        "temperature": 0.0,
        "max_tokens": 30,
        "context": 20,
        "dtype": "float32",
        "mode": "strict",
        "seed": 1,
    }
    return Spec.model_validate(fields | changes)
