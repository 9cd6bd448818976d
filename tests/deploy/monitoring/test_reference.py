"""docs/metrics.md lists what is exported; names end with their unit, and no label can take any value."""

from __future__ import annotations

import pytest

from chorus.deploy.tools.metrics_reference import PAGE, Exported, exported, page

UNITS = ("_seconds", "_tokens", "_steps", "_step", "_nats", "_bytes", "_groups", "_ratio", "_info", "_total")
# Numbers without a unit: norms, scores, weights, counts of something that the name says.
PLAIN = {
    "chorus_generator_groups_in_flight",
    "chorus_generator_state",
    "chorus_learner_advantage",
    "chorus_learner_age_importance_weight",
    "chorus_learner_alarm",
    "chorus_learner_answers",
    "chorus_learner_coefficient",
    "chorus_learner_distinct_solutions",
    "chorus_learner_fence",
    "chorus_learner_format_score",
    "chorus_learner_grad_norm",
    "chorus_learner_groups_waiting",
    "chorus_learner_hard_prompts",
    "chorus_learner_hint_characters",
    "chorus_learner_importance_weight",
    "chorus_learner_learning_rate",
    "chorus_learner_loss",
    "chorus_learner_overlong_penalty",
    "chorus_learner_paid",
    "chorus_learner_part_reward",
    "chorus_learner_part_samples",
    "chorus_learner_passes",
    "chorus_learner_policy_ratio_mean",
    "chorus_learner_policy_ratio_off_max",
    "chorus_learner_reference_resets",
    "chorus_learner_reward",
    "chorus_learner_score",
    "chorus_learner_seed_clusters",
    "chorus_learner_seed_factor",
    "chorus_learner_stage_number",
    "chorus_learner_steps_planned",
    "chorus_learner_supervised_grad_norm",
    "chorus_learner_supervised_learning_rate",
    "chorus_learner_supervised_loss",
    "chorus_learner_template_advantage_abs",
    "chorus_learner_template_format_score",
    "chorus_learner_template_importance_weight",
    "chorus_learner_template_reward",
    "chorus_learner_template_samples",
    "chorus_learner_template_weight",
    "chorus_ledger_dead_letters",
    "chorus_ledger_generators",
    "chorus_ledger_up",
    "chorus_reward_server_queue_items",
    "chorus_reward_server_warm_workers",
    "chorus_reward_server_workers",
}
LABELS = {
    *("what", "outcome", "result", "finish", "state", "reason", "why", "answer", "stat", "side", "age", "from", "n"),
    *("gate", "of", "bin", "against", "estimator", "alarm"),  # values are written down in the code
    *("when", "figure", "kind", "verdict"),  # and these
    *("template", "by", "part", "score"),  # bounded: MAX_PARTS of protocol/metrics/step.py
    *("run", "recipe", "generator"),  # one value a process
}


@pytest.fixture(scope="module")
def families() -> list[Exported]:
    return [f for found in exported().values() for f in found if not f.of_every_process]


def test_the_page_lists_what_is_exported() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == page(text), "run python -m chorus.deploy.tools.metrics_reference"


def test_names_end_with_their_unit(families: list[Exported]) -> None:
    assert {f.name for f in families if not f.name.endswith(UNITS)} == PLAIN


def test_counters_and_only_counters_end_with_total(families: list[Exported]) -> None:
    assert [f.name for f in families if (f.kind == "counter") != f.name.endswith("_total")] == []


def test_every_metric_has_a_help_text(families: list[Exported]) -> None:
    assert [f.name for f in families if len(f.help) < 4] == []


def test_labels_are_those_whose_values_are_bounded(families: list[Exported]) -> None:
    assert {label for f in families for label in f.labels} <= LABELS


def test_no_name_means_two_things(families: list[Exported]) -> None:
    assert len({f.name for f in families}) == len(families)
