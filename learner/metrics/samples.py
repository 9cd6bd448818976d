"""A few samples of a step for people: the best, the worst, and the odd ones, as texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from chorus.learner.training.experience import Experience
from chorus.protocol.messages import unpack_ids

Decode = Callable[[list[list[int]]], list[str]]
EACH = 2  # of each sort


def shown(experience: Experience, decode: Decode) -> list[dict[str, Any]]:
    """At most `EACH` of every sort, a dict each. Odd are those whose advantage is the farthest from 0."""
    known = np.flatnonzero(np.isfinite(experience.rewards))
    by_reward = known[np.argsort(experience.rewards[known], kind="stable")]
    by_advantage = known[np.argsort(-np.abs(experience.advantages[known]), kind="stable")]
    sorts = {"best": by_reward[::-1][:EACH], "worst": by_reward[:EACH], "odd": by_advantage[:EACH]}
    chosen = [(sort, int(k)) for sort, ks in sorts.items() for k in ks]
    texts = decode([unpack_ids(experience.samples[k][1].token_ids).tolist() for _, k in chosen])
    return [_row(sort, k, text, experience) for (sort, k), text in zip(chosen, texts, strict=True)]


def _row(sort: str, k: int, text: str, experience: Experience) -> dict[str, Any]:
    group, sample = experience.samples[k]
    return {
        "sort": sort,
        "template": group.task.template,
        "problem_id": group.task.problem_id,
        "verdict": sample.grade.verdict,
        "reward": float(experience.rewards[k]),
        "advantage": float(experience.advantages[k]),
        "tokens": sample.n_tokens,
        "text": text,
    }
