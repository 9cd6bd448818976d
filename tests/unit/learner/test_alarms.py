"""Collapse alarms: what raises each, that it is said once, and that healthy runs raise none."""

from __future__ import annotations

import re
from typing import Any

import pytest

from chorus.learner.metrics.alarms import Alarms
from chorus.protocol.config.run import AlarmsSection

HEALTHY = {
    "entropy": 0.3, "accuracy": 0.6, "truncated": 0.4, "clip_high_fraction": 0.01, "clip_low_fraction": 0.01,
    "grad_norm": 0.4, "w_effective": 0.99, "updates_skipped": 0, "zero_spread": 0.3, "no_answer": 0.1, "format": 0.8,
}  # fmt: skip


def raised(
    records: list[dict[str, Any]], loss: str = "ppo", pays_format: bool = True, **config: Any
) -> list[tuple[int, str]]:
    """(step, sentence) of everything raised."""
    alarms = Alarms(AlarmsSection(**config), loss, pays_format)
    found = []
    for step, record in enumerate(records, 1):
        found += [(step, text) for text in alarms.look({"step": step, **HEALTHY, **record})]
    return found


def test_a_healthy_run_raises_nothing() -> None:
    assert raised([{"grad_norm": 0.3 + 0.01 * (k % 7), "accuracy": 0.4 + 0.005 * k} for k in range(60)]) == []


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"clip_high_fraction": 0.2, "clip_low_fraction": 0.15}, "35% of the tokens are clipped"),
        ({"w_effective": 0.2}, "worth 20% of the tokens"),
        ({"grad_norm": 5.0}, "norm is 5, usually it is 0.4"),
        ({"updates_skipped": 1}, "1 update.s. were skipped"),
        ({"updates_skipped": 1, "grad_norm": float("inf")}, "1 update.s. were skipped"),
    ],
)
def test_one_bad_step_is_enough_for_what_no_step_should_show(bad: dict[str, Any], words: str) -> None:
    [(step, text)] = raised([{}] * 20 + [bad])
    assert step == 21
    assert text.startswith("step 21: ")
    assert re.search(words, text)


def test_a_skipped_update_is_a_warning_and_three_steps_of_them_in_a_row_are_a_collapse() -> None:
    """It has left the weights as they were; a run that goes back for a strange batch throws steps away."""
    skipped: dict[str, Any] = {"updates_skipped": 1, "grad_norm": float("inf")}
    alarms, seen = Alarms(AlarmsSection(), "ppo"), []
    for step, record in enumerate([*[{}] * 12, skipped, skipped, {}, skipped, skipped, skipped, {}], 1):
        alarms.look({"step": step, **HEALTHY, **record})
        seen.append((bool(alarms.active), list(alarms.collapse)))
    warned = (True, [])
    assert seen[12:] == [warned, warned, (False, []), warned, warned, (True, ["nonfinite"]), (False, [])]


def test_any_other_alarm_is_a_sign_of_a_collapse_at_once() -> None:
    alarms = Alarms(AlarmsSection(), "ppo")
    alarms.look({"step": 1, **HEALTHY, "w_effective": 0.1, "updates_skipped": 1})
    assert list(alarms.active) == ["effective", "nonfinite"]
    assert list(alarms.collapse) == ["effective"]


def test_gspo_clips_much_as_a_matter_of_course_unless_a_limit_is_set() -> None:
    clipped = [{"clip_high_fraction": 0.4}]
    assert raised(clipped, loss="gspo") == []
    assert len(raised(clipped, loss="gspo", clip_fraction=0.3)) == 1


def test_entropy_must_stay_below_its_floor_for_some_steps() -> None:
    low = [{"entropy": 0.005}] * 4
    assert raised([*low, {}, *low, {}]) == []
    [(step, text)] = raised([*low, *low])
    assert step == 5
    assert "below 0.01 for 5 steps" in text


def test_accuracy_is_compared_as_a_mean_over_steps_with_its_best() -> None:
    noisy = [{"accuracy": 0.6 + (0.1 if k % 2 else -0.1)} for k in range(40)]
    assert raised(noisy) == []
    [(step, text)] = raised(noisy + [{"accuracy": 0.5}] * 10)
    assert 45 <= step <= 50
    assert "getting worse" in text


def test_answers_that_come_to_no_end_any_more_are_told_from_those_that_never_did() -> None:
    learning = [{"truncated": max(0.0, 0.5 - 0.02 * k)} for k in range(40)]
    assert raised(learning) == []
    [(step, text)] = raised(learning + [{"truncated": 0.9}] * 10)
    assert 43 <= step <= 45
    assert "of the last 10 steps were cut off, it has been 0%" in text


def test_an_alarm_is_said_once_and_again_after_it_was_quiet() -> None:
    bad: dict[str, Any] = {"w_effective": 0.1}
    assert [step for step, _ in raised([{}, bad, bad, bad, {}, bad])] == [2, 6]


def test_a_threshold_of_0_turns_an_alarm_off() -> None:
    off = dict.fromkeys(
        ("entropy_floor", "accuracy_drop", "truncated_rise", "clip_fraction", "grad_norm_factor", "effective_share"), 0
    )
    bad = {
        "entropy": 0.0,
        "accuracy": 0.0,
        "truncated": 1.0,
        "clip_low_fraction": 1.0,
        "grad_norm": 1e9,
        "w_effective": 0.001,
    }
    assert raised([{}] * 12 + [bad] * 12, **off) == []
    flat = {"truncated": 1.0, "zero_spread": 1.0, "no_answer": 1.0, "format": 0.0}
    assert len(raised([flat] * 30)) == 4
    none = dict.fromkeys(("flat_truncated", "flat_zero_spread", "flat_no_answer", "flat_format"), 0)
    assert raised([flat] * 30, **none) == []
    assert raised([flat] * 30, flat_steps=0) == []


def test_what_was_not_measured_raises_nothing() -> None:
    assert raised([dict.fromkeys(HEALTHY)] * 12) == []


@pytest.mark.parametrize(
    ("flat", "words"),
    [
        ({"truncated": 0.97}, "at least 95% of the answers were cut off in each of the run's 20 steps so far: raise"),
        ({"zero_spread": 1.0}, "at least 98% of the groups had one reward in each of the run's 20 steps so far"),
        ({"no_answer": 0.99}, "no answer was found in at least 95% of the samples in each of the run's 20 steps"),
        ({"format": 0.0}, "the mean format score was 0.01 at most in each of the run's 20 steps so far"),
    ],
)
def test_a_run_that_is_flat_from_its_first_step_on_is_told_and_one_that_becomes_so_is_not(
    flat: dict[str, Any], words: str
) -> None:
    [(step, text)] = raised([flat] * 60)
    assert (step, words in text) == (20, True), text
    assert raised([flat] * 19) == []
    stirred = [text for _, text in raised([flat] * 19 + [{}] + [flat] * 40)]
    assert not any("so far" in text for text in stirred)


def test_a_format_that_is_not_paid_may_be_flat() -> None:
    assert raised([{"format": 0.0}] * 30, pays_format=False) == []
