"""Diversity: what counts as another solution, and the figures on examples worked out by hand."""

from __future__ import annotations

import math
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from chorus.learner.metrics.diversity import (
    MAX_GROUPS,
    distinct_n,
    entropy_nats,
    group_metrics,
    solution_steps,
    step_metrics,
    summary_metrics,
)
from chorus.protocol.messages import pack_ids
from chorus.protocol.templates.load import load_templates
from chorus.starter.solutions import sloppy_solution

TEMPLATES = load_templates()


@pytest.mark.parametrize("name", [n for n in TEMPLATES if not n.startswith("reflective")])
def test_the_same_reasoning_is_the_same_solution_under_every_template(name: str) -> None:
    text = sloppy_solution(TEMPLATES[name], (3, 4, 5), Random(0), slip=0, garble=0)
    assert solution_steps(text, TEMPLATES[name]) == ("3+4=7", "7-5=2", "2")


def test_a_check_is_a_step_more() -> None:
    template = TEMPLATES["reflective_prompt"]
    text = sloppy_solution(template, (3, 4, 5), Random(0), slip=0, garble=0)
    assert solution_steps(text, template) == ("3+4=7", "7-5=2", "7-5=2", "2")


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("Add:  3 + 4\n\n= 7. Then $7 - 5 = 2$.", ("add:3+4", "=7", "then7-5=2")),
        ("a = 1; b = 2", ("a=1", "b=2")),
        ("It is 3.5 apples.", ("itis3.5apples",)),
        ("", ()),
        ("<think>\n</think>", ()),
    ],
)
def test_blanks_case_and_layout_do_not_make_a_solution_another_one(text: str, steps: tuple[str, ...]) -> None:
    assert solution_steps(text) == steps


def test_entropy_of_the_solutions() -> None:
    assert entropy_nats(["a", "a", "b", "c"]) == pytest.approx(1.5 * math.log(2))
    assert entropy_nats(["a"] * 4) == 0.0


def test_distinct_n_counts_over_all_samples_together_and_never_across_two() -> None:
    samples = [np.array([1, 2, 1], np.int32), np.array([1, 2], np.int32), np.array([2], np.int32)]
    assert distinct_n(samples, 1) == 2 / 6
    assert distinct_n(samples, 2) == 2 / 3  # 12, 21, 12
    assert distinct_n(samples, 3) == 1.0
    assert distinct_n(samples[2:], 2) is None


def test_large_token_ids_do_not_collide_when_n_grams_are_packed() -> None:
    ids = np.array([0, 2**20, 1, 0, 2**20 + 1, 151_935, 0], np.int32)
    assert distinct_n([ids], 3) == 1.0


def test_a_groups_figures() -> None:
    ids = [np.array(row, np.int32) for row in ([1, 2], [1, 2], [1, 3], [4, 4])]
    figures = group_metrics(["x = 1", "X=1", "x = 2", "x = 3"], ids, None)
    assert figures["distinct_solutions"] == 3
    assert figures["distinct_solutions_ratio"] == 0.75
    assert figures["solution_entropy"] == pytest.approx(1.5 * math.log(2))
    assert figures["distinct_2"] == 0.75
    assert "distinct_3" not in figures


def ready(template: str, rows: list[list[int]]) -> Any:
    samples = [SimpleNamespace(token_ids=pack_ids(row)) for row in rows]
    return SimpleNamespace(group=SimpleNamespace(task=SimpleNamespace(template=template), samples=samples))


def test_a_steps_figures_are_means_over_its_groups_and_by_template() -> None:
    groups = [ready("abel", [[1], [1]]), ready("abel", [[1], [2]]), ready("formal", [[3], [4]])]
    record = step_metrics(cast(Any, groups), TEMPLATES, lambda ids: [str(row) for row in ids])
    assert record["diversity"]["distinct_solutions"] == pytest.approx(5 / 3)
    assert record["diversity_by_template"]["abel"]["distinct_solutions"] == 1.5
    assert record["diversity_by_template"]["formal"]["distinct_solutions"] == 2.0


def test_a_large_step_is_measured_on_a_bounded_number_of_groups() -> None:
    asked: list[int] = []

    def decode(ids: list[list[int]]) -> list[str]:
        asked.append(ids[0][0])
        return [""] * len(ids)

    step_metrics(cast(Any, [ready("abel", [[k], [k]]) for k in range(1000)]), TEMPLATES, decode)
    assert len(asked) == MAX_GROUPS
    assert max(asked) > 900  # from the whole step, not from its head


def test_the_summary_compares_the_first_with_the_last_tenth() -> None:
    records = [{"diversity": {"distinct_solutions": float(k)}} for k in range(20)]
    assert summary_metrics(records) == {"first": {"distinct_solutions": 0.5}, "last": {"distinct_solutions": 18.5}}
    assert summary_metrics([{"step": 1}]) == {}
