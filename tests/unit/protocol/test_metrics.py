"""What a step's record becomes on /metrics, and the accounts that are read from Redis when somebody asks."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
import redis
from prometheus_client import CollectorRegistry, generate_latest
from rollouts import ready, sample
from samples import MEMBER, TASK

from chorus.protocol.ledger import Keys, LearnerLedger
from chorus.protocol.ledger.keys import TASK_GROUP
from chorus.protocol.metrics.ledger import LedgerCollector
from chorus.protocol.metrics.processes import GeneratorMetrics, LearnerMetrics
from chorus.protocol.metrics.step import MAX_PARTS, TABLE, StepMetrics, fill
from chorus.protocol.metrics.waits import WaitShare
from chorus.protocol.runtime.redis import glance

RECORD: dict[str, Any] = {
    "step": 3,
    "seconds": 4.0,
    "wait_seconds": 1.0,
    "trained_tokens": 15,
    "updates": 2,
    "updates_skipped": 1,
    "samples_masked": 1,
    "samples_overlong": 0,
    "verifier_failures": 1,
    "groups_filtered": {"all_right": 2},
    "accuracy": 0.75,
    "entropy": None,
    "clip_high_fraction": 0.1,
    "clip_low_fraction": 0.2,
    "dual_clip_fraction": 0.0,
    "reference_k3": 0.5,
    "diversity": {"distinct_2": 0.25},
    "accuracy_histogram": [1, 0, 2, 0, 3],
    "by_template": {"qwen-math": {"samples": 8, "accuracy": 0.5, "entropy": None}},
    "by_staleness": {"0": {"tokens": 10, "w_effective": 0.9}, "4+": {"tokens": 5, "w_effective": 0.2}},
}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def shown(registry: CollectorRegistry, name: str, **labels: str) -> float:
    value = registry.get_sample_value(name, labels)
    assert value is not None, f"{name} {labels} is not exported"
    return value


def test_a_steps_figures_are_gauges_with_names_and_labels() -> None:
    m = LearnerMetrics()
    m.step_done(RECORD, [])
    r = m.registry
    assert shown(r, "chorus_learner_accuracy_ratio") == 0.75
    assert shown(r, "chorus_learner_clipped_ratio", side="low") == 0.2
    assert shown(r, "chorus_learner_kl_nats", against="reference", estimator="k3") == 0.5
    assert shown(r, "chorus_learner_distinct_ngrams_ratio", n="2") == 0.25
    assert shown(r, "chorus_learner_template_accuracy_ratio", template="qwen-math") == 0.5
    assert shown(r, "chorus_learner_accuracy_groups", **{"from": "0.8"}) == 3
    assert shown(r, "chorus_learner_step_seconds_sum") == 4.0


def test_what_a_step_could_not_measure_is_nan_and_not_the_value_before() -> None:
    m = LearnerMetrics()
    m.step_done(RECORD | {"entropy": 0.5}, [])
    m.step_done(RECORD, [])
    assert math.isnan(shown(m.registry, "chorus_learner_entropy_nats"))
    assert math.isnan(shown(m.registry, "chorus_learner_template_entropy_nats", template="qwen-math"))


def test_an_age_that_no_token_has_any_more_shows_no_old_figures() -> None:
    m = LearnerMetrics()
    m.step_done(RECORD, [])
    assert shown(m.registry, "chorus_learner_age_importance_effective_ratio", age="4+") == 0.2
    m.step_done(RECORD | {"by_staleness": {"0": {"tokens": 15}}}, [])
    assert shown(m.registry, "chorus_learner_age_tokens", age="4+") == 0
    assert math.isnan(shown(m.registry, "chorus_learner_age_importance_effective_ratio", age="4+"))


def test_counts_add_up_over_steps() -> None:
    m = LearnerMetrics()
    m.step_done(RECORD, [])
    m.step_done(RECORD, [])
    assert shown(m.registry, "chorus_learner_trained_tokens_total") == 30
    assert shown(m.registry, "chorus_learner_skipped_updates_total") == 2
    assert shown(m.registry, "chorus_learner_wait_seconds_total") == 2.0
    assert shown(m.registry, "chorus_learner_filtered_groups_total", why="all_right") == 4


def test_trained_lengths_are_told_by_answer_and_groups_by_staleness() -> None:
    m = LearnerMetrics()
    group = ready([sample(1.0, ids=(5,) * 3), sample(0.0, ids=(6,) * 10), sample(None, ids=(6,))]).group
    m.step_done(RECORD, [(group, 2)])
    for answer, tokens in (("right", 3), ("wrong", 10), ("ungraded", 1)):
        assert shown(m.registry, "chorus_learner_completion_tokens_sum", answer=answer) == tokens
    assert shown(m.registry, "chorus_learner_staleness_steps_sum") == 2


def test_no_recipe_makes_more_series_of_its_parts_than_the_limit() -> None:
    registry = CollectorRegistry()
    metrics = StepMetrics(registry)
    for k in range(2 * MAX_PARTS):
        parts = {"by_template": {f"t{k}": {"samples": 1}}, "by_level": {str(k): {"samples": 1}}}
        metrics.set(RECORD | parts | {"template_weights": {f"t{k}": 0.5}})
    text = generate_latest(registry).decode()
    assert text.count("chorus_learner_template_samples{") == MAX_PARTS
    assert text.count("chorus_learner_template_weight{") == MAX_PARTS
    assert text.count('chorus_learner_part_samples{by="level"') == MAX_PARTS


def test_samples_are_told_apart_by_domain_level_and_hint_where_the_record_does() -> None:
    m = LearnerMetrics()
    parts = {"by_domain": {"algebra": {"accuracy": 0.5}}, "by_hint": {"0.25": {"accuracy": 0.75}}}
    m.step_done(RECORD | parts, [])
    assert shown(m.registry, "chorus_learner_part_accuracy_ratio", by="domain", part="algebra") == 0.5
    assert shown(m.registry, "chorus_learner_part_accuracy_ratio", by="hint", part="0.25") == 0.75


def test_alarms_that_hold_are_1_and_the_others_0() -> None:
    m = LearnerMetrics()
    m.alarms(("entropy", "clip"), {"clip": "30 % are clipped"})
    assert shown(m.registry, "chorus_learner_alarm", alarm="clip") == 1
    assert shown(m.registry, "chorus_learner_alarm", alarm="entropy") == 0


def test_the_wait_ratio_is_over_the_last_steps() -> None:
    share = WaitShare(steps=2)
    assert share.ratio() == 0.0
    for waited, lasted in ((10.0, 10.0), (1.0, 4.0), (2.0, 4.0)):
        share.begin()
        share.end(waited, lasted)
    assert share.ratio() == pytest.approx(3 / 8)  # the step that only waited is too long ago


def test_a_step_that_waits_for_ever_drives_the_wait_ratio_to_1() -> None:
    clock = Clock()
    share = WaitShare(steps=2, clock=clock)
    share.end(0.0, 10.0)
    share.begin()
    clock.now += 30.0
    assert share.ratio() == pytest.approx(30 / 40)
    clock.now += 960.0
    assert share.ratio() == pytest.approx(0.99)
    share.worked()
    clock.now += 1000.0
    assert share.ratio() == pytest.approx(990 / 2000)  # and the work after it counts as work


def test_a_generator_says_how_long_its_completions_are_and_how_they_end() -> None:
    m = GeneratorMetrics()
    m.sampled([(3, "stop"), (5, "stop"), (64, "length"), (1, "a word that vLLM may invent")])
    assert shown(m.registry, "chorus_generator_completion_tokens_sum", finish="stop") == 8
    assert shown(m.registry, "chorus_generator_completion_tokens_count", finish="length") == 1
    assert shown(m.registry, "chorus_generator_completion_tokens_count", finish="other") == 1


def test_a_generator_is_in_one_state() -> None:
    m = GeneratorMetrics()
    m.heartbeat("ready", 2, 0.5)
    m.heartbeat("quarantined", 0, 0.25)
    assert shown(m.registry, "chorus_generator_state", state="quarantined") == 1
    assert shown(m.registry, "chorus_generator_state", state="ready") == 0
    assert shown(m.registry, "chorus_generator_busy_seconds_total") == 0.75


def accounts(client: redis.Redis) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(LedgerCollector(client, "run"))
    return registry


def test_the_accounts_on_metrics_are_those_of_the_ledger(client: redis.Redis) -> None:
    ledger = LearnerLedger(client, "run")
    keys = Keys("run")
    registry = accounts(client)
    ledger.admit(0, [TASK.encode()] * 5, capacity=9)
    client.xreadgroup(TASK_GROUP, "g", {keys.tasks: ">"}, count=2)
    client.xadd(keys.dead, {"reason": "attempts"})
    assert shown(registry, "chorus_ledger_up") == 1
    assert shown(registry, "chorus_ledger_admitted_groups_total") == 5
    assert shown(registry, "chorus_ledger_outstanding_groups", state="queued") == 3  # the lag of the tasks stream
    assert shown(registry, "chorus_ledger_outstanding_groups", state="leased") == 2
    assert shown(registry, "chorus_ledger_difference_groups") == 0
    assert shown(registry, "chorus_ledger_dead_letters") == 1
    client.hincrby(keys.accounts, "admitted", 1)
    assert shown(registry, "chorus_ledger_difference_groups") == 1
    client.hincrby(keys.accounts, "dropped:stale", 1)
    assert shown(registry, "chorus_ledger_dropped_groups_total", reason="stale") == 1
    assert shown(registry, "chorus_ledger_difference_groups") == 0


def test_generators_are_counted_by_state_and_the_silent_ones_as_gone(client: redis.Redis) -> None:
    LearnerLedger(client, "run")
    for name, state, silent_s in (("a", "ready", 0), ("b", "ready", 60), ("c", "quarantined", 0)):
        member = MEMBER.model_copy(update={"generator_id": name, "state": state, "last_seen": time.time() - silent_s})
        client.hset(Keys("run").members, name, member.encode())
    client.hset(Keys("run").members, "d", b"\xff")
    registry = accounts(client)
    for state, count in (("ready", 1), ("gone", 1), ("quarantined", 1), ("unreadable", 1), ("joining", 0)):
        assert shown(registry, "chorus_ledger_generators", state=state) == count


def test_a_redis_that_is_away_costs_a_scrape_little_and_the_rest_of_the_page_nothing() -> None:
    m = LearnerMetrics()
    m.registry.register(LedgerCollector(glance("redis://127.0.0.1:1/0"), "run"))
    text = generate_latest(m.registry).decode()
    assert "chorus_ledger_up 0.0" in text
    assert "chorus_ledger_difference_groups 0" not in text
    assert "chorus_learner_step " in text


def test_a_ledger_that_was_flushed_is_not_up(client: redis.Redis) -> None:
    assert shown(accounts(client), "chorus_ledger_up") == 0


def test_no_series_is_two_rows_and_labels_of_one_name_agree() -> None:
    labels: dict[str, set[tuple[str, ...]]] = {}
    series: list[tuple[str, str]] = []
    for row in TABLE:
        for view in row.exported:
            labels.setdefault(row.full_name(view), set()).add(tuple(row.label_names(view)))
            series.append((row.full_name(view), str(row.labels_in(view))))
    assert [name for name, found in labels.items() if len(found) > 1] == []
    assert len(set(series)) == len(series)
    scoped = [(scope, row.key) for row in TABLE for scope in row.scopes]
    assert len(set(scoped)) == len(scoped)


def test_a_row_has_its_scopes_and_each_view_its_own_name() -> None:
    rows = {row.key: row for row in TABLE}
    length, mismatch = rows["response_tokens_mean"], rows["mismatch_k1"]
    assert length.scopes == ["step", "part"]
    assert [length.full_name(view) for view in length.exported] == [
        "chorus_learner_step_completion_tokens",
        "chorus_learner_template_completion_tokens",
        "chorus_learner_part_completion_tokens",
    ]
    assert (length.label_names("step"), length.label_names("part")) == (["stat"], ["by", "part"])
    assert mismatch.label_names("template") == ["template", "against", "estimator"]
    assert mismatch.label_names("age") == ["age"]


def test_a_record_is_made_complete_and_a_key_that_the_table_does_not_know_is_refused() -> None:
    part = fill("age", {"tokens": 3, "w_mean": 1.0})
    assert (part["tokens"], part["w_mean"], part["w_p99"]) == (3, 1.0, None)
    with pytest.raises(KeyError, match="entropy: no row with scope age"):
        fill("age", {"tokens": 3, "entropy": 0.5})


def test_a_record_in_which_nothing_was_measured_counts_nothing_and_shows_nan() -> None:
    registry = CollectorRegistry()
    StepMetrics(registry).set(fill("step", {"step": 1}))
    assert shown(registry, "chorus_learner_updates_total") == 0
    assert math.isnan(shown(registry, "chorus_learner_loss"))
    assert shown(registry, "chorus_learner_age_tokens", age="4+") == 0
