"""From problems to graded answers: asks an engine, grades, writes each problem down, goes on where it was.

Ask ──generate──▶ token ids ──decode──▶ texts ──grade, cluster──▶ one line of answers.jsonl
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from chorus.evaluation.records import Spec, Store
from chorus.protocol.messages import Problem
from chorus.protocol.runtime.exits import CannotGoOn


class Completion(Protocol):
    @property
    def token_ids(self) -> list[int]: ...
    @property
    def finish_reason(self) -> str: ...


class Engine(Protocol):
    """What samples: a vLLM of its own, or a run's generators (evaluation/fleet.py)."""

    async def generate(
        self, prompt: list[int], n: int, temperature: float, max_tokens: int, deadline_s: float, top_p: float = 1.0
    ) -> Sequence[Completion]: ...


class Grading(Protocol):
    """The reward server's grades and clusters."""

    async def grade(self, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]: ...
    async def cluster(self, texts: Sequence[str], kind: str, mode: str) -> list[int | None]: ...


@dataclass(frozen=True)
class Question:
    """A problem of a benchmark as the token ids that the model sees."""

    benchmark: str
    problem: Problem
    prompt: list[int]


@dataclass
class Progress:
    """Of one sitting, for people: `asked` of `wanted` answers are in, `right` of `graded` samples are right."""

    wanted: int
    asked: int = 0
    graded: int = 0
    right: float = 0.0


def digests(questions: Sequence[Question]) -> tuple[dict[str, str], str]:
    """(by benchmark of its problems, of all prompts), in order."""
    problems: dict[str, list[Any]] = {}
    for q in questions:
        problems.setdefault(q.benchmark, []).append(
            (q.problem.id, q.problem.problem, q.problem.kind, q.problem.answers, q.problem.tests)
        )
    return {name: _digest(facts) for name, facts in problems.items()}, _digest([q.prompt for q in questions])


def _digest(value: list[Any]) -> str:
    return hashlib.blake2b(repr(value).encode(), digest_size=12).hexdigest()


def check_room(questions: Sequence[Question], context: int) -> None:
    """Raises CannotGoOn for a prompt that leaves no room for an answer."""
    longest = max(questions, key=lambda q: len(q.prompt))
    if len(longest.prompt) >= context:
        raise CannotGoOn(
            f"{longest.benchmark}: the prompt of {longest.problem.id} has {len(longest.prompt)} tokens and the context "
            f"{context}; raise --context"
        )


async def answer_all(
    spec: Spec,
    questions: Sequence[Question],
    store: Store,
    engine: Engine,
    grading: Grading,
    decode: Callable[[list[list[int]]], list[str]],
    at_once: int,
    deadline_s: float,
    on_progress: Callable[[Progress], None],
) -> None:
    """Ask what has no line in the store yet, `at_once` problems at a time. What an engine raises ends it."""
    keys = {(q.benchmark, q.problem.id, run) for q in questions for run in range(spec.runs)}
    progress = Progress(wanted=len(keys), asked=len(keys & store.done))

    def open_asks() -> Iterator[tuple[Question, int]]:
        # Run after run, so that a problem's greedy runs meet different neighbours in the engine's batches.
        for run in range(spec.runs):
            yield from ((q, run) for q in questions if (q.benchmark, q.problem.id, run) not in store.done)

    asks = open_asks()

    async def worker() -> None:
        for question, run in asks:
            record = await _answer(spec, question, run, engine, grading, decode, deadline_s)
            store.append(record)
            progress.asked += 1
            progress.graded += len(record["samples"])
            progress.right += sum(s["accuracy"] or 0.0 for s in record["samples"])
            on_progress(progress)

    workers = [asyncio.create_task(worker()) for _ in range(max(1, at_once))]
    try:
        await asyncio.gather(*workers)
    finally:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def _answer(
    spec: Spec,
    question: Question,
    run: int,
    engine: Engine,
    grading: Grading,
    decode: Callable[[list[list[int]]], list[str]],
    deadline_s: float,
) -> dict[str, Any]:
    """One problem's samples, graded, as the line that is written down."""
    started = time.monotonic()
    p = question.problem
    room = min(spec.max_tokens, spec.context - len(question.prompt))
    completions = await engine.generate(question.prompt, spec.samples, spec.temperature, room, deadline_s, spec.top_p)
    texts = decode([c.token_ids for c in completions])
    asked = {"template": spec.template, "mode": spec.mode} | p.grading()
    items = [{"completion": text} | asked for text in texts]
    grades = await grading.grade(items)
    clusters = await grading.cluster(texts, p.kind, spec.mode) if spec.samples > 1 else None
    return {
        "benchmark": question.benchmark,
        "id": p.id,
        "run": run,
        "level": p.level,
        "subject": p.domain,
        "samples": [_sample(p.kind, c, t, g) for c, t, g in zip(completions, texts, grades, strict=True)],
        "clusters": clusters,
        "seconds": round(time.monotonic() - started, 3),
    }


def _sample(kind: str, completion: Completion, text: str, grade: Mapping[str, Any]) -> dict[str, Any]:
    """`formatted`: it gives an answer, and where the problem is mathematics, in a box."""
    return {
        "verdict": grade["verdict"],
        "accuracy": grade["accuracy"],
        "format": grade["format"],
        "formatted": grade["verdict"] != "no_answer" and (kind != "math" or "\\boxed" in text),
        "extracted": grade["extracted"],
        "tokens": len(completion.token_ids),
        "truncated": completion.finish_reason == "length",
        "text": text,
    }
