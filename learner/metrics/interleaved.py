"""Where a completion first tells something: of answers in blocks, to problems that have sub-answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from chorus.protocol.ledger import Rollout
from chorus.protocol.messages import unpack_ids
from chorus.protocol.metrics.step import mean
from chorus.protocol.templates.template import Template

_ANSWER = "<answer>"
Decode = Callable[[Sequence[Sequence[int]]], list[str]]


def step_metrics(groups: Sequence[Rollout], templates: Mapping[str, Template], decode: Decode) -> dict[str, Any]:
    """Keys of the step's record; empty where no problem has sub-answers."""
    asked = [
        unpack_ids(sample.token_ids).tolist()
        for rollout in groups
        if rollout.group.task.sub_answers and _ANSWER in templates[rollout.group.task.template].markers
        for sample in rollout.group.samples
    ]
    if not asked:
        return {}
    answers = [text.count(_ANSWER) for text in decode(asked)]
    answered = [ids for ids, n in zip(asked, answers, strict=True) if n]
    return {"answers": mean(answers), "first_answer": mean(first_answers(answered, decode))}


def first_answers(completions: Sequence[list[int]], decode: Decode) -> list[float]:
    """The place of each one's first answer's first token, as a share of its length: time to first token, relative.

    The shortest prefix that holds the tag is sought for all at once, in as many rounds as halve the longest.
    """
    low, high = [0] * len(completions), [len(ids) for ids in completions]
    while any(a + 1 < b for a, b in zip(low, high, strict=True)):
        middle = [(a + b) // 2 for a, b in zip(low, high, strict=True)]
        texts = decode([ids[:n] for ids, n in zip(completions, middle, strict=True)])
        for k, (n, text) in enumerate(zip(middle, texts, strict=True)):
            low[k], high[k] = (low[k], n) if _ANSWER in text else (n, high[k])
    return [n / len(ids) for n, ids in zip(high, completions, strict=True)]
