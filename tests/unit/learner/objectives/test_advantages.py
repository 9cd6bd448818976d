"""Advantages against the published fixture, and where rewards are missing, equal or alone."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from fixture import GRPO, LENGTHS, REWARDS

from chorus.learner.objectives.advantages import (
    ADVANTAGES,
    Advantage,
    Batch,
    batch_normalised,
    dr_grpo,
    grpo,
    reinforce_pp,
    reinforce_pp_baseline,
    returns_to_go,
    rloo,
    seed_factor,
    semantic_entropy,
)
from chorus.protocol.config.objective import ObjectiveConfig

NAN = float("nan")


def batch(rewards: list[float], lengths: list[int], group_size: int, **more: Any) -> Batch:
    n = len(rewards)
    fields = {"clusters": np.full(n, -1)} | more
    return Batch(np.array(rewards), np.array(lengths), group_size, **fields)


def whole() -> Batch:
    """The fixture's second group has three samples: the fourth was never graded."""
    return batch([*REWARDS[0], *REWARDS[1], NAN], [*LENGTHS, 0], 4)


def per_sample(advantages: list[Advantage]) -> list[float]:
    """The one value that all tokens of a sample have; the ungraded last sample has none."""
    values = []
    for a in advantages:
        unique = np.unique(np.asarray(a, dtype=np.float64))
        assert len(unique) <= 1
        values.append(float(unique[0]) if len(unique) else 0.0)
    assert values[-1] == 0.0
    return values[:-1]


@pytest.mark.parametrize(
    ("advantage", "expected"),
    [
        (lambda r: grpo(r, 1e-6), GRPO),
        (dr_grpo, [0.5, -0.5, 0.5, -0.5, 0.833333, 0.083333, -0.916667]),
        (rloo, [0.666667, -0.666667, 0.666667, -0.666667, 1.25, 0.125, -1.375]),
    ],
    ids=["grpo", "dr_grpo", "rloo"],
)
def test_a_groups_advantages_are_those_of_the_fixture(advantage: Any, expected: list[float]) -> None:
    computed = np.concatenate([advantage(np.array(r)) for r in REWARDS])
    np.testing.assert_allclose(computed, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("advantage", "expected"),
    [
        (reinforce_pp, [0.189889, -1.329220, 0.189889, -1.329220, 1.708998, 0.569666, -0.949443]),
        (reinforce_pp_baseline, [0.684653, -1.141089, 0.684653, -1.141089, 1.293234, -0.076073, -1.901814]),
    ],
    ids=["reinforce_pp", "reinforce_pp_baseline"],
)
def test_advantages_over_the_whole_batch_are_those_of_the_fixture(advantage: Any, expected: list[float]) -> None:
    np.testing.assert_allclose(per_sample(advantage(whole())), expected, atol=1e-5)


def test_the_batch_normalised_advantages_of_the_questa_run_have_no_group_baseline() -> None:
    binary = batch([1, 0, 1, 0, 1, 1, 0, NAN], [*LENGTHS, 0], 4)
    expected = [0.674197, -1.483233, 0.674197, -1.483233, 0.674197, 0.674197, -1.483233]
    np.testing.assert_allclose(per_sample(batch_normalised(binary)), expected, atol=1e-5)


def test_format_scores_of_one_group_make_the_advantages_of_the_worked_example() -> None:
    computed = grpo(np.array([2, 5 / 3, 4 / 3, 2]), 1e-6)
    np.testing.assert_allclose(computed, [0.783347, -0.261116, -1.305578, 0.783347], atol=1e-5)


def test_semantic_entropy_is_that_of_the_worked_example() -> None:
    masses = np.array([0.5, 0.25, 0.25])
    assert semantic_entropy(masses) == pytest.approx(1.039721, abs=1e-5)
    assert semantic_entropy(np.full(3, 1 / 3)) == pytest.approx(1.098612, abs=1e-5)


def test_seed_factors_are_those_of_the_worked_example() -> None:
    factors = [seed_factor(np.array(clusters), 0.5) for clusters in ([0, 0, 1, 2], [0, 1, 2])]
    np.testing.assert_allclose(factors, [0.625, 0.5], atol=1e-5)


def test_seed_advantages_are_those_of_the_worked_example() -> None:
    c = ObjectiveConfig.model_validate({"name": "seed_grpo", "seed_alpha": 0.5})
    rewards = [*REWARDS[0], *REWARDS[1], NAN]
    clustered = batch(rewards, [*LENGTHS, 0], 4, clusters=np.array([0, 0, 1, 2, 0, 1, 2, 5]))
    computed = per_sample(ADVANTAGES["seed_grpo"](clustered, c))
    np.testing.assert_allclose(computed, [0.3125, -0.3125, 0.3125, -0.3125, 0.416667, 0.041667, -0.458333], atol=1e-5)


def test_a_graded_sample_that_nobody_clustered_leaves_its_group_the_factor_of_the_others() -> None:
    c = ObjectiveConfig.model_validate({"name": "seed_grpo", "seed_alpha": 0.5})
    one = batch([1.0, 0.0, 1.0, 0.0], [2, 2, 2, 2], 4, clusters=np.array([0, 1, 0, -1]))
    p = np.array([2 / 3, 1 / 3])  # of the three that are left
    factor = 1 - 0.5 * -(p * np.log(p)).sum() / np.log(3)
    np.testing.assert_allclose(ADVANTAGES["seed_grpo"](one, c), np.array([0.5, -0.5, 0.5, -0.5]) * factor)


def test_seed_leaves_alone_what_agrees_what_is_alone_and_what_nobody_clustered() -> None:
    assert seed_factor(np.zeros(4), 0.5) == 1.0
    assert seed_factor(np.zeros(1), 0.5) == 1.0
    assert seed_factor(np.array([0, 1]), 3.0) == 0.0  # never turned around
    unknown = ADVANTAGES["seed_grpo"](whole(), ObjectiveConfig.model_validate({"name": "seed_grpo"}))
    np.testing.assert_allclose(np.array(unknown)[:4], dr_grpo(np.array(REWARDS[0])))


def test_returns_to_go_discount_what_comes_later() -> None:
    penalty = np.array([0.1, 0.2, 0.4])
    # from the end: 1 - 0.4 = 0.6; -0.2 + 0.5 * 0.6 = 0.1; -0.1 + 0.5 * 0.1 = -0.05
    np.testing.assert_allclose(returns_to_go(1.0, penalty, 0.5), [-0.05, 0.1, 0.6])
    assert len(returns_to_go(1.0, np.empty(0), 0.5)) == 0


def test_a_kl_penalty_in_the_reward_is_summed_for_a_sample_and_kept_apart_for_its_tokens() -> None:
    penalties = [np.array([0.2, 0.3]), np.array([0.0])]
    two = batch([1.0, 0.0], [2, 1], 2, penalties=penalties)
    np.testing.assert_allclose(two.by_group(dr_grpo), [0.25, -0.25])  # 0.5 against 0
    returns = np.array([0.5, 0.7, 0.0])
    expected = (returns - returns.mean()) / np.sqrt(returns.var(ddof=1) + 1e-8)
    np.testing.assert_allclose(np.concatenate(reinforce_pp(two)), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ADVANTAGES)
def test_equal_rewards_have_exactly_no_advantage(name: str) -> None:
    c = ObjectiveConfig.model_validate({"advantage": name})
    assert np.mean([0.1] * 3) != 0.1, "else rounding would hide what is to be seen"
    for a in ADVANTAGES[name](batch([0.1] * 6, [3] * 6, 3), c):
        assert (np.asarray(a) == 0).all()


@pytest.mark.parametrize("name", ADVANTAGES)
def test_a_group_of_equal_rewards_beside_one_that_differs(name: str) -> None:
    """It has nothing to learn from itself, so only advantages that know no groups give it any."""
    c = ObjectiveConfig.model_validate({"advantage": name, "std_epsilon": 1e-6})
    mixed = batch([1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0], [1, 2, 3, 4, 2, 3, 1, 4], 4)
    made = ADVANTAGES[name](mixed, c)
    equal, other = [np.unique(a) for a in made[:4]], [float(np.unique(a)[0]) for a in made[4:]]
    tokens = np.array([1.0] * 10 + [1.0] * 2 + [0.0] * 8)  # rewards, one a token: mean 0.6
    if name == "reinforce_pp":
        np.testing.assert_allclose(np.concatenate(equal), 0.4 / np.sqrt(20 / 19 * 0.24 + 1e-8))
    elif name == "batch_normalised":
        np.testing.assert_allclose(np.concatenate(equal), 0.4 / (tokens.std() + 1e-6))
    else:
        assert all((a == 0).all() for a in equal)
    assert other[0] > 0 > other[1] == other[2] == other[3]


def test_a_group_of_equal_rewards_counts_in_the_whitening_of_the_others() -> None:
    made = reinforce_pp_baseline(batch([1.0, 1.0, 1.0, 0.0], [3, 3, 1, 5], 2))
    tokens = np.array([0.0] * 6 + [0.5] + [-0.5] * 5)  # rewards less their group's mean: mean -1/6
    expected = (np.array([0.5, -0.5]) + 1 / 6) / np.sqrt(tokens.var(ddof=1) + 1e-8)
    np.testing.assert_allclose([np.unique(a)[0] for a in made[2:]], expected)
    assert all((np.asarray(a) == 0).all() for a in made[:2])


@pytest.mark.parametrize("name", ADVANTAGES)
def test_a_sample_without_a_grade_neither_moves_the_others_nor_has_an_advantage(name: str) -> None:
    c = ObjectiveConfig.model_validate({"advantage": name})
    failed = ADVANTAGES[name](batch([1.0, NAN, 0.0, 1.0], [2, 0, 1, 3], 4), c)
    without = ADVANTAGES[name](batch([1.0, 0.0, 1.0], [2, 1, 3], 3), c)
    for a, b in zip([failed[0], failed[2], failed[3]], without, strict=True):
        np.testing.assert_allclose(a, b)
    assert (np.asarray(failed[1]) == 0).all()


@pytest.mark.parametrize("name", ADVANTAGES)
@pytest.mark.parametrize("rewards", [[NAN] * 4, [1.0, NAN, NAN, NAN]], ids=["none graded", "one graded"])
def test_a_group_with_nothing_to_compare_has_no_advantage(name: str, rewards: list[float]) -> None:
    c = ObjectiveConfig.model_validate({"advantage": name})
    lengths = [0 if np.isnan(r) else 1 for r in rewards]
    for a in ADVANTAGES[name](batch(rewards, lengths, 4), c):
        assert (np.asarray(a) == 0).all()


def test_every_advantage_of_the_configuration_is_there() -> None:
    assert set(ADVANTAGES) == set(get_args(ObjectiveConfig.model_fields["advantage"].annotation))
