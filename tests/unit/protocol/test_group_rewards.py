"""What a sample is paid for its place in its group and in the run, with the numbers of methods.md 5.1, 5.6 and 5.8."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from rollouts import sample

from chorus.protocol.messages import Grade, Sample
from chorus.protocol.rewards import (
    CosineSpec,
    Gates,
    InterleavedSpec,
    PointsSpec,
    RewardSpec,
    ShortSpec,
    compose,
    compose_group,
)
from chorus.protocol.rewards.group import cosine_term, short_scores, sub_answer_score

ACCURACIES = [1.0, 1.0, 1.0, 0.0]
LENGTHS = [120, 260, 400, 90]


def group(lengths: list[int], accuracies: list[float | None], finish: str = "stop") -> list[Sample]:
    return [sample(a, ids=[5] * n, finish=finish) for n, a in zip(lengths, accuracies, strict=True)]


def totals(spec: RewardSpec, samples: list[Sample], gates: Gates | None = None) -> list[float | None]:
    return [part.total for part in compose_group(spec, samples, gates or Gates())]


def test_of_right_answers_those_within_the_band_get_the_most_and_the_longest_the_least() -> None:
    assert short_scores(ShortSpec(), LENGTHS, ACCURACIES) == pytest.approx([0.5, 0.0, -0.5, 0.0], abs=1e-6)


def test_one_right_answer_gets_the_most_and_none_gets_nothing() -> None:
    assert short_scores(ShortSpec(), [300, 90], [1.0, 0.0]) == [0.5, 0.0]
    assert short_scores(ShortSpec(), [300, 90], [0.0, 0.0]) == [0.0, 0.0]


def test_without_the_band_only_the_shortest_gets_the_most() -> None:
    scores = short_scores(ShortSpec(band=False), [100, 120, 200], [1.0] * 3)
    assert scores == pytest.approx([0.5, 0.3, -0.5], abs=1e-6)
    assert short_scores(ShortSpec(tolerance_tokens=20), [100, 120, 200], [1.0] * 3)[:2] == [0.5, 0.5]


def test_with_all_designs_off_all_lengths_count_and_a_wrong_answer_is_never_paid() -> None:
    """Kimi's form: Lmin 90 and Lmax 400 are those of all four."""
    always = ShortSpec(only_right=False, band=False, gate=False)
    scores = short_scores(always, LENGTHS, ACCURACIES)
    assert scores == pytest.approx([0.5 - 30 / 310, 0.5 - 170 / 310, -0.5, 0.0], abs=1e-6)
    assert short_scores(always, [100, 300], [1.0, 0.0]) == pytest.approx([0.5, -0.5], abs=1e-6)


def test_a_sample_without_a_grade_moves_no_length_and_gets_nothing() -> None:
    for spec in (ShortSpec(), ShortSpec(only_right=False, band=False)):
        assert short_scores(spec, [100, 300, 9, 999], [1.0, 1.0, None, None])[2:] == [0.0, 0.0]
        assert short_scores(spec, [100, 300, 9, 999], [1.0, 1.0, None, None])[0] == 0.5


def test_the_length_reward_adds_to_the_total_while_its_gate_is_open() -> None:
    spec = RewardSpec(compose="accuracy_only", short=ShortSpec(weight=2.0))
    assert totals(spec, group(LENGTHS, list(ACCURACIES))) == pytest.approx([2.0, 1.0, 0.0, 0.0], abs=1e-6)
    assert totals(spec, group(LENGTHS, list(ACCURACIES)), Gates(short=False)) == [1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("accuracy", "form", "verdict", "total"),
    [
        (1.0, 1.0, "correct", 3.0),
        (0.0, 1.0, "wrong", -0.5),
        (0.0, 1.0, "no_answer", -1.0),
        (1.0, 0.5, "correct", -3.0),  # a wrong format: -2 for the answer and -1 for the format
        (0.0, 0.0, "wrong", -3.0),
    ],
)
def test_short_rl_pays_points_for_answer_and_format(accuracy: float, form: float, verdict: str, total: float) -> None:
    spec = RewardSpec(points=PointsSpec(formless=-2.0))
    assert compose(spec, accuracy, form, verdict=verdict).total == total


def test_interleaved_reasoning_pays_the_answer_only_in_a_right_format() -> None:
    spec = RewardSpec(points=PointsSpec(formless=0.0))
    cases = [(1.0, 1.0, "correct"), (0.0, 1.0, "wrong"), (0.0, 1.0, "no_answer"), (1.0, 0.0, "correct")]
    assert [compose(spec, a, f, verdict=v).total for a, f, v in cases] == [3.0, -0.5, -1.0, -1.0]


def test_points_stand_alone() -> None:
    with pytest.raises(ValidationError, match="points take the place of compose and format_weight"):
        RewardSpec(points=PointsSpec(), compose="accuracy_only")


@pytest.mark.parametrize(
    ("design", "places", "paid"),
    [
        ("partial", [1, 2, 0], 0.333333),
        ("time_discounted", [1, 2, 0], 0.25),
        ("time_discounted", [1, 0, 3], 0.222222),
        ("all_or_none", [1, 2, 0], 0.0),
        ("all_or_none", [3, 1, 2], 0.5),
        ("partial", [3, 1, 2], 0.5),
        ("time_discounted", [3, 1, 2], 0.5),
        ("partial", [0, 0, 0], 0.0),
        ("partial", [], 0.0),
    ],
)
def test_each_design_pays_sub_answers_as_the_paper_says(design: str, places: list[int], paid: float) -> None:
    spec = InterleavedSpec.model_validate({"design": design})
    assert sub_answer_score(spec, places) == pytest.approx(paid, abs=1e-6)


def interleaved(accuracy: float, form: float, places: list[int]) -> Sample:
    grade = Grade(verdict="any", accuracy=accuracy, format=form, sub_answers=places)
    return sample().model_copy(update={"grade": grade})


def test_sub_answers_are_paid_for_a_right_final_answer_in_a_right_format_while_the_gate_is_open() -> None:
    spec = RewardSpec(points=PointsSpec(formless=0.0), interleaved=InterleavedSpec(design="partial"))
    samples = [interleaved(1.0, 1.0, [1, 2, 0]), interleaved(0.0, 1.0, [1, 2, 3]), interleaved(1.0, 0.0, [1, 2, 3])]
    assert totals(spec, samples) == pytest.approx([3.333333, -0.5, -1.0], abs=1e-6)
    assert totals(spec, samples, Gates(interleaved=False)) == [3.0, -0.5, -1.0]


def test_the_cosine_term_falls_from_eta_max_to_eta_min() -> None:
    spec = CosineSpec(weight=0.2, eta_min=-1.0, eta_max=0.5, max_tokens=8)
    found = [cosine_term(spec, n) for n in (0, 4, 8, 9)]
    assert found == pytest.approx([0.1, -0.05, -0.2, -0.2])
    whole = RewardSpec(compose="accuracy_only", cosine=spec)
    assert totals(whole, group([4, 8], [1.0, 0.0])) == pytest.approx([0.95, -0.2])
    assert totals(whole, group([4, 8], [1.0, 0.0]), Gates(cosine=False)) == [1.0, 0.0]


@pytest.mark.parametrize(("setting", "paid"), [(0.0, [0.0, 0.0]), (0.5, [0.75, -0.25]), (-1.0, [-1.0, -1.0])])
def test_stopping_properly_multiplies_the_reward_of_a_cut_off_answer_or_replaces_it(
    setting: float, paid: list[float]
) -> None:
    spec = RewardSpec(compose="accuracy_only", cosine=CosineSpec(max_tokens=4), stop_properly=setting)
    short = [4, 2]  # the term is -0.5 at the longest, and 0 at half of it
    samples = group([0, 4], [1.0, 0.0], finish="length")
    assert totals(spec, samples) == pytest.approx(paid)
    assert totals(spec, group(short, [1.0, 1.0])) == pytest.approx([0.5, 1.0])


def test_a_record_says_which_gates_were_open_and_one_without_a_part_says_nothing() -> None:
    assert Gates.of_record({"short_gate": 0, "cosine_gate": 1}) == Gates(short=False)
    assert Gates.of_record({"short_gate": None}) == Gates()
