"""The composition of rewards, with the numbers of the method's specification (1.4, 1.7 and 3.3 d)."""

import statistics

import pytest
from pydantic import ValidationError

from chorus.protocol.rewards import OverlongSpec, RewardSpec, compose, overlong_penalty


def test_paper_default_adds_the_format_whether_or_not_the_answer_is_right():
    spec = RewardSpec()
    assert (spec.compose, spec.format_weight, spec.overlong) == ("additive", 1.0, None)
    assert compose(spec, 1.0, 1.0).total == 2.0
    assert compose(spec, 0.0, 1.0).total == 1.0  # wrong but well formatted ...
    assert compose(spec, 1.0, 0.0).total == 1.0  # ... earns what right but unformatted earns
    assert compose(spec, 0.0, 0.0).total == 0.0


def test_worked_group_of_four_gives_the_published_advantages():
    totals = [compose(RewardSpec(), 1.0, f).total for f in (1, 2 / 3, 1 / 3, 1)]
    assert totals == pytest.approx([2, 1.6667, 1.3333, 2], abs=1e-4)
    mean, std = statistics.fmean(totals), statistics.stdev(totals)
    assert std == pytest.approx(0.319142, abs=1e-6)
    advantages = [(total - mean) / (std + 1e-6) for total in totals]
    assert advantages == pytest.approx([0.783347, -0.261116, -1.305578, 0.783347], abs=1e-5)


def test_format_gated_pays_the_format_only_for_a_right_answer():
    spec = RewardSpec(compose="format_gated", format_weight=0.5)
    assert compose(spec, 1.0, 0.5).total == 1.25
    assert compose(spec, 0.0, 1.0).total == 0.0


def test_accuracy_only_reports_the_format_and_does_not_pay_it():
    parts = compose(RewardSpec(compose="accuracy_only"), 1.0, 0.25)
    assert (parts.total, parts.format) == (1.0, 0.25)


@pytest.mark.parametrize("compose_as", ["additive", "format_gated", "accuracy_only"])
def test_verifier_failure_has_no_total_and_is_never_zero(compose_as):
    spec = RewardSpec(compose=compose_as, overlong=OverlongSpec(max_tokens=100, buffer_tokens=10))
    parts = compose(spec, None, 1.0, n_tokens=100)
    assert (parts.total, parts.accuracy, parts.format) == (None, None, 1.0)


@pytest.mark.parametrize(
    ("accuracy", "format", "both", "sparkle"),
    [(1.0, 1.0, 1.0, 2.0), (1.0, 0.75, 0.0, 1.0), (0.0, 1.0, 0.0, -1.0), (0.0, 0.0, 0.0, -1.0), (0.5, 1.0, 0.0, -1.0)],
)
def test_a_right_answer_in_the_right_format_is_what_crossthink_and_sparkle_pay(accuracy, format, both, sparkle):
    assert compose(RewardSpec(compose="accuracy_and_format"), accuracy, format).total == both
    assert compose(RewardSpec(compose="sparkle"), accuracy, format).total == sparkle


def test_missing_template_counts_zero_and_stays_none_in_the_parts():
    parts = compose(RewardSpec(), 1.0, None)
    assert (parts.total, parts.format) == (1.0, None)


@pytest.mark.parametrize(("n_tokens", "penalty"), [(0, 0), (16384, 0), (18432, -0.5), (20480, -1)])
def test_soft_overlong_penalty_has_dapos_values(n_tokens, penalty):
    spec = OverlongSpec(max_tokens=20480, buffer_tokens=4096)
    assert overlong_penalty(spec, n_tokens) == pytest.approx(penalty)
    parts = compose(RewardSpec(overlong=spec), 1.0, 1.0, n_tokens)
    assert (parts.overlong, parts.total) == pytest.approx((penalty, 2 + penalty))


def test_overlong_part_is_absent_where_the_length_is_not_known():
    spec = RewardSpec(overlong=OverlongSpec(max_tokens=10, buffer_tokens=10))
    parts = compose(spec, 1.0, 0.0)
    assert (parts.overlong, parts.total) == (None, 1.0)


def test_unknown_key_and_impossible_buffer_are_refused():
    with pytest.raises(ValidationError, match="forma_weight"):
        RewardSpec.model_validate({"forma_weight": 2.0})
    with pytest.raises(ValidationError, match="buffer_tokens is 20, more than max_tokens 10"):
        OverlongSpec(max_tokens=10, buffer_tokens=20)


def test_spec_is_frozen():
    with pytest.raises(ValidationError):
        RewardSpec().format_weight = 2.0  # type: ignore[misc]
