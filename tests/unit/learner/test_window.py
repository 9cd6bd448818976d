"""Windowed FIFO: oldest first, nobody starves, a stuck head does not stop the run."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any, cast

import hypothesis.strategies as st
from hypothesis import given

from chorus.learner.rollouts.window import Window
from chorus.protocol.ledger import Rollout


def ready(index: int) -> Rollout:
    return cast(Any, SimpleNamespace(group=SimpleNamespace(task=SimpleNamespace(index=index)), entry=None))


def window(outstanding: range, finished: list[int], now: list[float], capacity: int = 4) -> Window:
    w = Window(4, capacity, max_staleness=2, head_deadline_s=60, clock=lambda: now[0])
    w.outstanding = dict.fromkeys(outstanding, 0)
    for index in finished:
        w.add(ready(index), 0)
    return w


def taken(w: Window, version: int = 0) -> list[int] | None:
    groups = w.take(version)
    return groups and [g.group.task.index for g in groups]


def test_the_worked_example_of_the_docstring() -> None:
    now = [0.0]
    assert taken(window(range(8), [1, 2, 3, 4, 6], now)) == [1, 2, 3, 4]
    assert taken(window(range(8), [1, 2, 5, 7], now)) is None


def test_whatever_was_taken_before_finished_groups_are_never_stuck_behind_the_window() -> None:
    scattered = [0, 9, 20, 31, 44, 58, 77, 90]
    w = window(range(0), scattered, [0.0], capacity=8)
    assert taken(w) == [0, 9, 20, 31]


def test_a_group_about_to_be_too_old_is_waited_for_up_to_the_deadline() -> None:
    now = [0.0]
    w = window(range(8), [1, 2, 3, 4], now)
    assert taken(w, version=2) is None
    now[0] = 61.0
    assert taken(w, version=2) == [1, 2, 3, 4]


def test_where_a_step_may_make_two_versions_the_head_is_waited_for_two_versions_before_it_is_too_old() -> None:
    taught = [window(range(8), [1, 2, 3, 4], [0.0]) for _ in range(2)]
    for w in taught:
        w.versions_a_step = 2
    assert taken(taught[0], 0) == [1, 2, 3, 4], "a step later it is 2 at most, which staleness.max allows"
    assert taken(taught[1], 1) is None


def test_taken_groups_stay_outstanding_until_they_are_forgotten() -> None:
    w = window(range(4), [0, 1, 2, 3], [0.0])
    assert taken(w) == [0, 1, 2, 3]
    assert set(w.outstanding) == {0, 1, 2, 3}
    for index in range(4):
        w.forget(index)
    assert not w.outstanding


@given(target=st.integers(0, 4), per_step=st.integers(1, 6), order=st.randoms(use_true_random=False))
def test_a_group_that_is_finished_when_its_turn_comes_is_at_most_one_step_older_than_the_target(
    target: int, per_step: int, order: random.Random
) -> None:
    """docs/design.md derives it: credits are freed, and tasks admitted, before the step's weights are published."""
    w = Window(per_step, (target + 1) * per_step, max_staleness=99, head_deadline_s=60, clock=lambda: 0.0)
    sampled_at: dict[int, int] = {}
    oldest = 0
    for step in range(12):  # steps done
        for index in range(len(sampled_at), step * per_step + w.capacity):
            w.outstanding[index] = step
            # Under S = 0 it waits for the weights of its step, else it may begin under those before.
            sampled_at[index] = step if target == 0 else max(0, step - 1)
        finished = [index for index in w.outstanding if index not in w.ready]
        order.shuffle(finished)
        for index in finished:
            w.add(ready(index), step)
        for index in taken(w, step) or ():
            oldest = max(oldest, step - sampled_at[index])
            w.forget(index)
    assert oldest == (target + 1 if target else 0)
