"""What a step's answers tell by themselves: the same whether it was measured beside training or afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from rollouts import ready, sample

from chorus.learner.metrics.answers import AnswerMetrics
from chorus.protocol.templates.load import load_templates

TEMPLATES = load_templates()
REPEATS = tuple(range(10)) * 3  # 10 of its 23 runs of 8 tokens are new
GROUPS = [
    ready([sample(ids=REPEATS), sample(ids=(1, 2))], 0, "abel"),
    ready([sample(ids=(3,)), sample(ids=(3,))], 1, "formal"),
]


def decode(ids: list[list[int]]) -> list[str]:
    return [" ".join(map(str, row)) for row in ids]


@pytest.fixture
def metrics() -> Iterator[AnswerMetrics]:
    made = AnswerMetrics(TEMPLATES, decode)
    yield made
    made.close()


def test_measured_beside_training_they_are_what_they_are_measured_afterwards(metrics: AnswerMetrics) -> None:
    metrics.begin(GROUPS)
    beside = metrics.take(GROUPS)
    assert beside == metrics.take(GROUPS)
    assert beside.values["diversity"]["distinct_solutions"] == 1.5
    assert beside.values["diversity_by_template"]["formal"]["distinct_solutions"] == 1.0
    np.testing.assert_allclose(beside.repetitions, [1 - 10 / 23, 0, 0, 0])


def test_begin_returns_while_they_are_measured() -> None:
    going_on, measured_in = threading.Event(), set()

    def slow(ids: list[list[int]]) -> list[str]:
        measured_in.add(threading.current_thread())
        assert going_on.wait(5.0)
        return decode(ids)

    metrics = AnswerMetrics(TEMPLATES, slow)
    metrics.begin(GROUPS)
    going_on.set()
    assert metrics.take(GROUPS).values["diversity"]
    metrics.close()
    assert threading.current_thread() not in measured_in


def test_groups_that_were_not_begun_are_measured_all_the_same(metrics: AnswerMetrics) -> None:
    metrics.begin(GROUPS)
    assert len(metrics.take(GROUPS[1:]).repetitions) == 2


def test_what_fails_beside_training_fails_the_step() -> None:
    metrics = AnswerMetrics(TEMPLATES, lambda ids: 1 // 0)
    metrics.begin(GROUPS)
    with pytest.raises(ZeroDivisionError):
        metrics.take(GROUPS)
    metrics.close()
