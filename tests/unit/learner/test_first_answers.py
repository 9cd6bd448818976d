"""Where a completion first tells something, in tokens."""

from __future__ import annotations

import pytest
from rollouts import ready, sample

from chorus.learner.metrics.interleaved import first_answers, step_metrics
from chorus.protocol.ledger import Rollout
from chorus.protocol.templates.load import choose_templates

TEMPLATES = choose_templates(["interleaved", "qwen-math"])
WORDS = {1: "<think>", 2: "</think>", 3: "<ans", 4: "wer>", 5: "</answer>", 6: "x"}  # a tag of two tokens


def decode(sequences: list[list[int]]) -> list[str]:  # type: ignore[override]
    return ["".join(WORDS[id] for id in ids) for ids in sequences]


def test_the_first_answers_tag_is_found_to_the_token() -> None:
    early, late = [1, 2, 3, 4, 6, 5, 6, 6, 6, 6], [1, 6, 6, 6, 2, 3, 4, 6, 5, 6, 6, 3, 4, 6, 6, 6]
    assert first_answers([early, late], decode) == [0.4, 7 / 16]
    assert first_answers([], decode) == []


def asked(sub_answers: list[str], template: str, *completions: list[int]) -> Rollout:
    made = ready([sample(ids=ids) for ids in completions], template=template)
    task = made.group.task.model_copy(update={"sub_answers": sub_answers})
    return Rollout(made.entry, made.group.model_copy(update={"task": task}))


def test_only_problems_with_sub_answers_under_a_template_of_answers_are_measured() -> None:
    groups = [
        asked(["7"], "interleaved", [1, 2, 3, 4, 6, 5, 1, 2, 3, 4, 6, 5], [1, 6, 2, 6]),
        asked([], "interleaved", [3, 4]),
        asked(["7"], "qwen-math", [3, 4]),
    ]
    assert step_metrics(groups, TEMPLATES, decode) == {"answers": 1.0, "first_answer": pytest.approx(4 / 12)}
    assert step_metrics(groups[1:], TEMPLATES, decode) == {}
