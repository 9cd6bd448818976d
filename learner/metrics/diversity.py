"""How different the answers to one problem are: distinct solutions, distinct-n, entropy of the solutions.

A solution is the sequence of a completion's steps, written so that only the reasoning counts: without the layout
of its template, without case and blanks. So `<think>3 + 4 = 7</think>` and `3+4=7` are the same solution, and the
samples of one problem can be compared also across templates.

Measured on at most MAX_GROUPS groups a step, evenly chosen, beside the step's training (answers.py): about a second of
a core for 8 completions of 3,000 tokens a group (docs/results.md).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from chorus.protocol.ledger import Rollout
from chorus.protocol.messages import unpack_ids
from chorus.protocol.metrics.step import fill, mean
from chorus.protocol.templates.template import Template

MAX_GROUPS = 32
N_GRAMS = (1, 2, 3)
_TAG = re.compile(r"</?[a-z_]+>")
_BOX = re.compile(r"\\boxed\{([^{}]*)\}")
_STEP_END = re.compile(r"\n|;|,\s*so\b|(?<=[.!?])\s")
_BLANKS = re.compile(r"[\s$]+")

Decode = Callable[[list[list[int]]], list[str]]


def solution_steps(text: str, template: Template | None = None) -> tuple[str, ...]:
    """The steps of a completion, normalised.

    >>> solution_steps("<think>3 + 4 = 7, so 7 - 5 = 2</think> <answer>\\\\boxed{2}</answer>")
    ('3+4=7', '7-5=2', '2')
    """
    for marker in template.markers if template else ():
        text = text.replace(marker, "\n")
    text = _TAG.sub("\n", _BOX.sub(r"\1", text))
    steps = (_BLANKS.sub("", step).strip(".,:").casefold() for step in _STEP_END.split(text))
    return tuple(step for step in steps if step)


def entropy_nats(solutions: Sequence[object]) -> float:
    """Shannon entropy of the samples' distribution over distinct solutions; 0 where all agree."""
    shares = [n / len(solutions) for n in Counter(solutions).values()]
    return abs(sum(p * math.log(p) for p in shares))


def distinct_n(sequences: Sequence[np.ndarray], n: int) -> float | None:
    """Distinct n-grams of token ids over all n-grams of these sequences, (0, 1]; None where there is none.

    n is at most 3: an n-gram is packed into one int64, 21 bits an id, since sorting numbers is far quicker than rows.
    """
    shifts = np.arange(n, dtype=np.int64) * 21
    windows = [np.lib.stride_tricks.sliding_window_view(s.astype(np.int64), n) for s in sequences if len(s) >= n]
    if not windows:
        return None
    grams = np.concatenate([(window << shifts).sum(axis=1) for window in windows])
    return len(np.unique(grams)) / len(grams)


def group_metrics(texts: Sequence[str], ids: Sequence[np.ndarray], template: Template | None) -> dict[str, float]:
    """What is measured on one problem's samples."""
    solutions = [solution_steps(text, template) for text in texts]
    found = {
        "distinct_solutions": float(len(set(solutions))),
        "distinct_solutions_ratio": len(set(solutions)) / len(solutions),
        "solution_entropy": entropy_nats(solutions),
    }
    for n in N_GRAMS:
        if (value := distinct_n(ids, n)) is not None:
            found[f"distinct_{n}"] = value
    return found


def step_metrics(groups: list[Rollout], templates: Mapping[str, Template], decode: Decode) -> dict[str, Any]:
    """Means over the groups of a step: {"diversity": {...}, "diversity_by_template": {name: {...}}}."""
    chosen = groups[:: math.ceil(len(groups) / MAX_GROUPS)] if groups else []
    by_template: dict[str, list[dict[str, float]]] = {}
    for ready in chosen:
        name = ready.group.task.template
        ids = [unpack_ids(sample.token_ids) for sample in ready.group.samples]
        texts = decode([row.tolist() for row in ids])
        by_template.setdefault(name, []).append(group_metrics(texts, ids, templates.get(name)))
    return {
        "diversity": fill("diversity", mean_metrics([row for part in by_template.values() for row in part])),
        "diversity_by_template": {
            name: fill("diversity", mean_metrics(part)) for name, part in sorted(by_template.items())
        },
    }


def mean_metrics(rows: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    """Key by key, over the rows that have it."""
    means = {key: mean(row.get(key) for row in rows) for key in dict.fromkeys(key for row in rows for key in row)}
    return {key: value for key, value in means.items() if value is not None}


def summary_metrics(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """For summary.json: the diversity of the first and of the last tenth of the steps."""
    measured = [record["diversity"] for record in records if record.get("diversity")]
    tenth = max(1, len(measured) // 10)
    return {"first": mean_metrics(measured[:tenth]), "last": mean_metrics(measured[-tenth:])} if measured else {}
