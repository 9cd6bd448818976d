"""A step's record: over all, by template and by staleness, and what is not measured is None, never NaN."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch
from rollouts import ready, sample

from chorus.learner.metrics.step_record import Surroundings, repetition, step_record
from chorus.learner.objectives.objective import TOKEN_STATS
from chorus.learner.training.batch import MicroBatch, cut
from chorus.learner.training.experience import Experience, make_experience
from chorus.learner.training.memory import peak_memory
from chorus.learner.training.token_stats import StepStats
from chorus.protocol.config.objective import ObjectiveConfig
from chorus.protocol.config.run import RewardSection, RunConfig
from chorus.protocol.ledger import Rollout
from chorus.protocol.messages import Grade
from chorus.protocol.metrics.step import AGES, KEYS, TABLE

CONFIG = RunConfig.model_validate(
    {
        "model": {"path": "any", "context": 64},
        "problems": {"train": ["any"], "max_prompt_tokens": 16},
        "templates": {"names": ["a", "b"]},
        "sampling": {"group_size": 2, "max_tokens": 10},
        "objective": {"advantage": "dr_grpo"},
    }
)
SLOW = Surroundings(1.0, 4.0)
OVERLONG = {"overlong": {"max_tokens": 10, "buffer_tokens": 5}}
GROUPS = [
    ready([sample(1.0, ids=(5,) * 3, form=1.0), sample(0.0, ids=(6,) * 10, finish="length")], 0, "a"),
    ready([sample(1.0, ids=(7,) * 2, versions=[(1, 0, 1), (1, 2, 1)]), sample(None)], 1, "b"),
]


def measured(experience: Experience, w: dict[int, float], entropy: dict[int, float]) -> StepStats:
    """What a trainer would have counted: these weights by age, these entropies by sequence."""
    stats = StepStats(sequences=len(experience.sequences), mfu=0.4)
    for b in cut(experience.sequences, 16):
        stats.count(b, table(b, w, entropy), 0)
    stats.grad_norms = [0.5]
    return stats


def table(b: MicroBatch, w: dict[int, float], entropy: dict[int, float]) -> torch.Tensor:
    values = torch.zeros(len(TOKEN_STATS), len(b.target))
    weight = torch.tensor([w[min(int(a), max(w))] for a in b.age])
    values[TOKEN_STATS.index("w")], values[TOKEN_STATS.index("w_squared")] = weight, weight**2
    values[TOKEN_STATS.index("ratio")] = weight
    for i, where in b.origin:
        values[TOKEN_STATS.index("entropy"), where] = entropy[i]
    return values


def record(groups: list[Rollout] = GROUPS, config: RunConfig = CONFIG) -> dict:
    experience = make_experience(groups, config, version=2)
    stats = measured(experience, {0: 1.0, 2: 3.0}, {0: 0.5, 1: 0.1, 2: 0.3, 3: 9.9})
    around = Surroundings(1.0, 4.0, 0.25, 400, 3, Counter(all_right=2), memory=(5, 9))
    return step_record(3, config, groups, experience, stats, around)


def test_entropy_is_a_token_mean_over_all_and_within_each_template() -> None:
    r = record()
    assert r["entropy"] == pytest.approx((3 * 0.5 + 10 * 0.1 + 2 * 0.3) / 15)
    assert r["by_template"]["a"]["entropy"] == pytest.approx((3 * 0.5 + 10 * 0.1) / 13)
    assert r["by_template"]["b"]["entropy"] == pytest.approx(0.3)


def test_importance_weights_are_told_by_the_age_of_the_token() -> None:
    r = record()
    ages = r["by_staleness"]
    assert {age: part["tokens"] for age, part in ages.items()} == {"0": 1, "2": 14}
    assert (ages["0"]["w_mean"], ages["2"]["w_mean"]) == (1.0, 3.0)
    assert ages["2"]["w_effective"] == pytest.approx(1.0)
    assert r["w_mean"] == pytest.approx(43 / 15)
    assert r["w_effective"] == pytest.approx(43**2 / (15 * (14 * 9 + 1)))
    assert (r["w_min"], r["w_max"]) == (1.0, 3.0)
    assert r["w_p99"] == pytest.approx(3.0, rel=0.02)
    assert r["ratio_off_max"] == pytest.approx(2.0)


def test_the_spread_of_the_weights_is_told_by_age_and_by_template() -> None:
    r = record()
    for part, low, high in ((r["by_staleness"]["0"], 1.0, 1.0), (r["by_staleness"]["2"], 3.0, 3.0)):
        assert (part["w_min"], part["w_max"]) == (low, high)
        assert part["w_p99"] == pytest.approx(high, rel=0.0203)  # a bin of 0.02 in log w
    a, b = r["by_template"]["a"], r["by_template"]["b"]
    assert ((a["w_min"], a["w_max"]), (b["w_min"], b["w_max"])) == ((3.0, 3.0), (1.0, 3.0))


def test_figures_of_random_tokens_are_those_of_their_sequences_and_ages() -> None:
    experience = make_experience(GROUPS, CONFIG, version=2)
    stats = StepStats(sequences=4)
    g = torch.Generator().manual_seed(0)
    w_of: dict[int, list[float]] = {}
    by_age: dict[int, list[float]] = {}
    for b in cut(experience.sequences, 16):  # one sequence at a time, or two
        values = torch.rand(len(TOKEN_STATS), len(b.target), generator=g, dtype=torch.float64) + 0.1
        stats.count(b, values, 0)
        w = values[TOKEN_STATS.index("w")].tolist()
        for i, where in b.origin:
            w_of[i] = w[where]
        for age, x in zip(b.age.tolist(), w, strict=True):
            by_age.setdefault(age, []).append(x)
    assert {i: stats.by_sequence.w_range([i]) for i in w_of} == {i: (min(x), max(x)) for i, x in w_of.items()}
    assert stats.by_sequence.w_range([3]) == (None, None)  # it has no grade, so no tokens
    for age, x in by_age.items():
        assert stats.by_age.w_range([age]) == (min(x), max(x))
        assert stats.by_age.mean("w", [age]) == pytest.approx(sum(x) / len(x))
        assert stats.w_quantile(1.0, [age]) == pytest.approx(max(x), rel=0.0202)
    assert stats.by_sequence.w_range() == stats.by_age.w_range()


def test_divergences_clipping_and_rejection_are_told_by_template() -> None:
    config = CONFIG.model_copy(update={"objective": ObjectiveConfig.model_validate({"kl_coefficient": 0.1})})
    experience = make_experience(GROUPS, CONFIG, version=2)
    stats = StepStats(sequences=4)
    names = ("dual_clip", "mismatch_k1", "proximal_k2", "reference_k3", "w_k1", "w_k2", "rejected")
    for b in cut(experience.sequences, 16):
        values = torch.zeros(len(TOKEN_STATS), len(b.target))
        for i, where in b.origin:
            values[[TOKEN_STATS.index(name) for name in names], where] = float(i)  # of sequences 0, 1 and 2
        stats.count(b, values, 0)
    r = step_record(3, config, GROUPS, experience, stats, SLOW)
    for part, mean in ((r["by_template"]["a"], 10 / 13), (r["by_template"]["b"], 2.0), (r, 14 / 15)):
        for name in names:
            key = {"dual_clip": "dual_clip_fraction", "rejected": "rejected_fraction"}.get(name, name)
            assert part[key] == pytest.approx(mean)


def test_what_seed_grpo_made_of_the_answers_is_told() -> None:
    config = CONFIG.model_copy(update={"objective": ObjectiveConfig.model_validate({"name": "seed_grpo"})})
    groups = [
        ready([sample(1.0, cluster=0), sample(0.0, cluster=1)], 0, "a"),  # two answers: 1 - alpha
        ready([sample(1.0, cluster=4), sample(1.0, cluster=4)], 1, "b"),
    ]
    experience = make_experience(groups, config)
    r = step_record(1, config, groups, experience, measured(experience, {0: 1.0}, dict.fromkeys(range(4), 0.1)), SLOW)
    assert r["seed_factor_min"] == pytest.approx(1 - 0.0417)
    assert r["seed_factor_mean"] == pytest.approx(1 - 0.0417 / 2)
    assert r["seed_clusters_mean"] == 1.5
    assert record()["seed_factor_mean"] is None


def test_groups_rewards_and_lengths_are_told_apart() -> None:
    r = record()
    assert (r["accuracy"], r["verifier_failures"], r["samples_masked"]) == (pytest.approx(2 / 3), 1, 1)
    assert (r["groups_all_right"], r["groups_all_wrong"]) == (0.5, 0.0)
    assert r["accuracy_histogram"] == [0, 0, 1, 0, 1]
    assert (r["response_tokens_right"], r["response_tokens_wrong"]) == (2.5, 10.0)
    assert r["truncated"] == 0.25
    assert r["repetition"] == pytest.approx((2 / 3) / 4)  # of three runs of 8 tokens two were there before
    assert r["mixed_version_samples"] == 0.25
    assert (r["token_lag_mean"], r["token_lag_max"]) == (pytest.approx(28 / 15), 2)
    assert (r["groups_filtered"], r["filter_accepted"], r["groups_waiting"]) == ({"all_right": 2}, 0.5, 3)
    assert (r["tokens_per_second"], r["generated_tokens_per_second"]) == (15 / 4, 100.0)


def test_the_overlong_part_of_the_reward_is_told_apart_by_template() -> None:
    buffered = CONFIG.model_copy(update={"reward": RewardSection.model_validate(OVERLONG)})
    r = record(config=buffered)
    # Of 10 tokens at most, the last 5 are the buffer: a completion of 10 pays 1, shorter ones than 5 pay nothing.
    assert r["by_template"]["a"]["overlong_penalty"] == -0.5
    assert r["by_template"]["b"]["overlong_penalty"] == 0.0
    assert r["overlong_penalty"] == -0.25
    assert record()["overlong_penalty"] is None


def test_a_step_in_which_nothing_could_be_trained_is_still_written_as_json() -> None:
    groups = [ready([sample(None), sample(None)])]
    experience = make_experience(groups, CONFIG)
    r = step_record(1, CONFIG, groups, experience, StepStats(sequences=2), Surroundings(0.0, 1.0))
    assert json.loads(json.dumps(r, allow_nan=False))["entropy"] is None
    assert r["by_staleness"] == {}


def test_repetition_counts_runs_of_tokens() -> None:
    assert repetition(np.arange(100, dtype=np.int32)) == 0.0
    assert repetition(np.zeros(8, dtype=np.int32)) == 0.0  # one run only
    assert repetition(np.tile(np.arange(10, dtype=np.int32), 10)) == pytest.approx(1 - 10 / 93)


def test_a_record_and_each_of_its_parts_has_the_keys_of_the_table() -> None:
    r = record()
    assert tuple(r) == KEYS["step"]
    assert {tuple(part) for part in r["by_template"].values()} == {KEYS["part"]}
    assert {tuple(part) for part in r["by_staleness"].values()} == {KEYS["age"]}
    assert set(r["by_staleness"]) <= set(AGES)
    assert r["stage"] is r["by_hint"] is r["template_weights"] is None


def test_every_exported_number_of_the_samples_and_tokens_is_measured() -> None:
    r = record()
    elsewhere = ("curriculum", "diversity", "template_weights", "control", "supervised", "difficulty")  # other modules
    unmeasured = {"overlong_penalty", "kl_reward", "shadow_disagreement", "answers", "first_answer"} | {
        *("short_reward", "cosine_reward", "interleaved_reward", "sub_answers_found")
    }
    unmeasured |= {row.key for row in TABLE if row.labels.get("against") == "reference"}
    unmeasured |= {row.key for row in TABLE if row.key.startswith("seed_")}
    parts = {"step": r, "template": r["by_template"]["a"], "part": r["by_template"]["a"], "age": r["by_staleness"]["0"]}
    exported = [(row.key, view) for row in TABLE if row.tag not in elsewhere for view in row.exported]
    assert [e for e in exported if parts[e[1]][e[0]] is None and e[0] not in unmeasured] == []


def test_what_samples_got_for_their_group_and_their_sub_answers_is_told_over_all_and_by_template() -> None:
    two = [sample(1.0, ids=(5,) * n, form=1.0) for n in (4, 8)]
    found = Grade(verdict="correct", accuracy=1.0, format=1.0, sub_answers=[1, 0])
    groups = [ready(two, 0, "a"), ready([two[0].model_copy(update={"grade": found}), sample(0.0)], 1, "b")]
    reward = {
        "short": {"tolerance_tokens": 0},
        "cosine": {"eta_min": 0.0, "eta_max": 1.0},
        "interleaved": {"design": "partial"},
    }
    section = RewardSection.model_validate(reward)
    r = record(groups, CONFIG.model_copy(update={"reward": section}))
    assert r["short_reward"] == pytest.approx((0.5 - 0.5 + 0.5 + 0.0) / 4, abs=1e-5)
    assert r["by_template"]["a"]["short_reward"] == pytest.approx(0.0, abs=1e-5)
    assert r["interleaved_reward"] == 0.25 / 4
    assert r["sub_answers_found"] == 0.5
    assert r["by_template"]["a"]["sub_answers_found"] is None
    assert r["by_template"]["a"]["cosine_reward"] == pytest.approx(
        (0.5 * (1 + np.cos(0.4 * np.pi)) + 0.5 * (1 + np.cos(0.8 * np.pi))) / 2
    )
    assert (r["right_tokens_min"], r["right_tokens_max"]) == (4, 6)


def test_groups_with_one_reward_are_counted_with_those_that_dynamic_sampling_replaced() -> None:
    alike = [ready([sample(0.0), sample(0.0)], 0, "a"), ready([sample(1.0), sample(0.0)], 1, "a")]
    experience = make_experience(alike, CONFIG, version=2)
    stats = measured(experience, {0: 1.0}, dict.fromkeys(range(4), 0.0))
    for filtered, share in (({}, 0.5), ({"all_wrong": 5, "all_right": 1, "outside": 2}, 7 / 10)):
        around = Surroundings(1.0, 4.0, filtered=Counter(filtered))
        assert step_record(3, CONFIG, alike, experience, stats, around)["zero_spread"] == share


def test_samples_without_an_answer_are_counted_over_all_and_by_template() -> None:
    mute = sample(0.0).model_copy(update={"grade": Grade(verdict="no_answer", accuracy=0.0)})
    groups = [ready([mute, sample(0.0)], 0, "a"), ready([mute, mute], 1, "b")]
    found = record(groups)
    assert found["no_answer"] == 0.75
    assert [found["by_template"][name]["no_answer"] for name in ("a", "b")] == [0.5, 1.0]


def test_the_learners_memory_is_in_the_record() -> None:
    experience = make_experience(GROUPS, CONFIG, version=2)
    stats = measured(experience, {0: 1.0}, dict.fromkeys(range(4), 0.0))
    peak, limit = peak_memory()
    found = step_record(3, CONFIG, GROUPS, experience, stats, Surroundings(1.0, 4.0, memory=(peak, limit)))
    assert (found["memory_peak"], found["memory_limit"]) == (peak, limit)
    assert 10 * 2**20 < peak < limit
