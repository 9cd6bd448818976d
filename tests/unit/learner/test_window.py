"""Windowed FIFO: oldest first, nobody starves, a stuck head does not stop the run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from learner.window import Ready, Window


def ready(index: int) -> Ready:
    return cast(Any, SimpleNamespace(group=SimpleNamespace(task=SimpleNamespace(index=index)), entry=None))


def window(outstanding: range, finished: list[int], now: list[float]) -> Window:
    w = Window(4, 4, head_deadline_s=60, clock=lambda: now[0], outstanding=set(outstanding))
    for index in finished:
        w.add(ready(index))
    return w


def taken(w: Window) -> list[int] | None:
    groups = w.take()
    return groups and [g.group.task.index for g in groups]


def test_the_worked_example_of_the_docstring() -> None:
    now = [0.0]
    assert taken(window(range(8), [1, 2, 3, 4, 6], now)) == [1, 2, 3, 4]
    assert taken(window(range(8), [1, 2, 5, 7], now)) is None


def test_a_head_that_is_stuck_past_its_deadline_is_passed() -> None:
    now = [0.0]
    w = window(range(12), [5, 6, 7, 8], now)
    assert taken(w) is None
    now[0] = 61.0
    assert taken(w) == [5, 6, 7, 8]


def test_taken_groups_stay_outstanding_until_they_are_forgotten() -> None:
    w = window(range(4), [0, 1, 2, 3], [0.0])
    assert taken(w) == [0, 1, 2, 3]
    assert w.outstanding == {0, 1, 2, 3}
    for index in range(4):
        w.forget(index)
    assert w.outstanding == set()
