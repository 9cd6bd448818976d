"""From groups to training sequences: who is masked, who moves the baseline, how old each token is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rollouts import ready, sample

from chorus.learner.training.batch import TrainingSequence
from chorus.learner.training.experience import make_experience, minibatches
from chorus.protocol.config.run import RunConfig

NAN = float("nan")


def config(group_size: int, **objective: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "model": {"path": "any", "context": 64},
            "problems": {"train": ["any"], "max_prompt_tokens": 16},
            "templates": {"names": ["qwen-math"]},
            "sampling": {"group_size": group_size, "max_tokens": 10},
            "reward": {"compose": "accuracy_only"},
            "objective": {"advantage": "dr_grpo", **objective},
        }
    )


def advantages(sequences: list[TrainingSequence]) -> list[float]:
    return [float(s.advantage) for s in sequences]


def test_a_sample_the_verifier_failed_on_is_masked_and_moves_no_baseline() -> None:
    made = make_experience([ready([sample(1.0), sample(None), sample(0.0)])], config(3))
    assert [len(s.completion) for s in made.sequences] == [3, 0, 3]
    assert advantages(made.sequences) == [0.5, 0.0, -0.5]
    assert made.masked == 1
    assert np.isnan(made.rewards[1])


def test_a_sample_with_a_log_probability_that_is_no_number_is_dropped_and_counted() -> None:
    made = make_experience([ready([sample(1.0, logprob=NAN), sample(0.0)])], config(2))
    assert [len(s.completion) for s in made.sequences] == [0, 3]
    assert made.masked == 1


def test_an_empty_completion_has_its_place_in_the_baseline_and_no_tokens() -> None:
    made = make_experience([ready([sample(0.0, ids=()), sample(1.0)])], config(2, name="reinforce_pp"))
    assert [len(s.completion) for s in made.sequences] == [0, 3]
    assert made.masked == 0


def test_overlong_filtering_keeps_a_truncated_sample_in_the_baseline_only() -> None:
    group = [sample(0.0, finish="length"), sample(1.0)]
    made = make_experience([ready(group)], config(2, overlong_filter=True))
    assert [len(s.completion) for s in made.sequences] == [0, 3]
    assert advantages(made.sequences)[1] == 0.5
    assert (made.masked, made.overlong) == (0, 1)
    assert make_experience([ready(group)], config(2)).overlong == 0


def test_the_soft_overlong_penalty_is_part_of_the_reward() -> None:
    group = [sample(1.0, ids=range(10)), sample(1.0, ids=range(8))]  # the buffer is the last half of 10 tokens
    made = make_experience([ready(group)], config(2, overlong_buffer=0.5))
    assert made.rewards.tolist() == pytest.approx([0.0, 0.4])
    assert made.penalties is not None
    assert made.penalties.tolist() == pytest.approx([-1.0, -0.6])
    assert make_experience([ready(group)], config(2)).penalties is None


def test_each_token_of_a_mixed_version_sequence_has_its_own_age() -> None:
    mixed = sample(1.0, ids=(5, 6, 7, 8), versions=[(1, 2, 1), (1, 3, 2), (2, 5, 1)])
    made = make_experience([ready([mixed, sample(0.0)])], config(2), version=4)
    assert np.asarray(made.sequences[0].age).tolist() == [2, 1, 1, 0]  # never below 0
    assert np.asarray(made.sequences[1].age).tolist() == [4, 4, 4]


def test_clusters_that_came_with_the_group_scale_the_advantages_of_seed_grpo() -> None:
    group = [sample(a, cluster=c) for a, c in ((1.0, 0), (0.0, 1), (1.0, 0), (0.0, 2))]
    made = make_experience([ready(group)], config(4, name="seed_grpo", advantage="seed_grpo", seed_alpha=0.5))
    # 2, 1, 1 of 4: entropy 0.75 of its maximum, so the factor is 1 - 0.5 x 0.75
    assert advantages(made.sequences) == pytest.approx([0.3125, -0.3125, 0.3125, -0.3125])


def test_a_kl_penalty_in_the_reward_is_taken_from_each_sample() -> None:
    c = config(2, kl_coefficient=0.1, kl_estimator="k1", kl_in="reward")

    def reference(sequences: list[TrainingSequence]) -> list[np.ndarray]:
        return [np.full(len(s.completion), -0.5 - shift) for s, shift in zip(sequences, (0.2, 0.0), strict=True)]

    made = make_experience([ready([sample(1.0), sample(0.0)])], c, 0, reference)
    # 3 tokens x (-0.5 - -0.7) = 0.6 of KL, a tenth of it: rewards 0.94 and 0
    assert advantages(made.sequences) == pytest.approx([0.47, -0.47], abs=1e-6)
    assert made.kl_reward == pytest.approx(0.3, abs=1e-6)
    assert made.rewards.tolist() == [1.0, 0.0]


def test_tokens_of_one_sample_may_be_worth_different_things() -> None:
    c = config(2, name="reinforce_pp", advantage="reinforce_pp", discount=0.5)
    made = make_experience([ready([sample(1.0), sample(0.0)])], c)
    returns = np.array([0.25, 0.5, 1.0, 0.0, 0.0, 0.0])
    expected = (returns - returns.mean()) / np.sqrt(returns.var(ddof=1) + 1e-8)
    np.testing.assert_allclose(np.asarray(made.sequences[0].advantage), expected[:3])
    assert made.sequences[1].advantage == pytest.approx(expected[3])


def test_mini_batches_are_whole_groups_in_order() -> None:
    groups = [ready([sample(float(k % 2)), sample(0.0)], index=k) for k in range(4)]
    parts = minibatches(make_experience(groups, config(2)), 2)
    assert [len(p) for p in parts] == [4, 4]


def test_a_term_adds_its_weighted_score_and_one_that_failed_takes_the_reward() -> None:
    scores = [{"short": 0.5, "short.lines": 9.0}, {"short": -1.0}, {"short": None}, None]
    group = [
        one.model_copy(update={"grade": one.grade.model_copy(update={"scores": of_one})})
        for one, of_one in zip([sample(1.0), sample(0.0), sample(1.0), sample(1.0)], scores, strict=True)
    ]
    sections = config(4).model_dump()
    sections["reward"] |= {
        "graders": [{"name": "short", "function": "own.py:short"}],
        "terms": [{"grader": "short", "weight": 0.5}],
    }
    made = make_experience([ready(group)], RunConfig.model_validate(sections))
    assert made.rewards[:2].tolist() == [1.25, -0.5]
    assert np.isnan(made.rewards[2:]).all()
    assert made.masked == 2
    assert advantages(made.sequences)[:2] == [0.875, -0.875]
