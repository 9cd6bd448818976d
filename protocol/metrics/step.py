"""The figures of a step's record (a line of metrics.jsonl) as Prometheus gauges, a row of a table each.

The same table groups them for the trackers: `tag` is the heading under which TensorBoard shows a key. A figure that
a step could not measure is NaN until the next step that can.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Gauge

MAX_PARTS = 64  # values of one label; more would be too many series, so the rest is left to metrics.jsonl
BREAKDOWNS = ("template", "domain", "level", "hint")  # the record has them as by_template and so on
AGES = ("0", "1", "2", "3", "4+")  # steps of staleness, as the record's by_staleness names them


@dataclass(frozen=True)
class Figure:
    """`key` of the record (a dot leads into a part) -> `chorus_learner_<name>{labels}`."""

    tag: str
    key: str
    name: str
    help: str
    labels: Mapping[str, str] = field(default_factory=dict)


def _rows(tag: str, *rows: tuple[Any, ...]) -> tuple[Figure, ...]:
    return tuple(Figure(tag, *row) for row in rows)


_LENGTH = "Length of the last step's completions"
_KL = (
    "Estimated KL divergence a token between the policy and another: behaviour (sampled with), proximal, reference; "
    "proximal_behaviour: between these two"
)
_CLIPPED = "Share of tokens whose ratio was clipped: high (advantage > 0), low (< 0), dual (the dual clip's)"
_WEIGHT = "Importance weight of a token before caps: proximal over behaviour policy"
_ADVANTAGE = "Advantage of a sample, over the last step's"
_ONE_REWARD = "Groups whose samples got one reward: nothing to learn where the baseline is the group's"
_SEED = "SEED-GRPO: what a group's advantages were multiplied by, since its answers differ"
_LAG = "Steps between the weights that sampled a token and those it trains"

STEP_METRICS: tuple[Figure, ...] = (
    *_rows(
        "reward",
        ("reward", "reward", "Composed reward, mean over the last step's samples"),
        ("accuracy", "accuracy_ratio", "Accuracy, mean over the last step's graded samples"),
        ("format", "format_score", "Format score, mean over the last step's samples"),
        ("format_full", "format_full_ratio", "Share of samples whose format score is 1"),
        ("overlong_penalty", "overlong_penalty", "What length cost a sample in its reward, mean"),
        ("kl_reward", "kl_reward_nats", "KL penalty that a sample paid in its reward, before the coefficient"),
        ("shadow_disagreement", "shadow_disagreement_ratio", "Share of second opinions that differ from the grade"),
    ),
    *_rows(
        "policy",
        ("entropy", "entropy_nats", "Entropy of the policy a token"),
        ("logprob", "logprob_nats", "Log-probability of a trained token, mean"),
        ("loss", "loss", "Loss of the last step"),
        ("lr", "learning_rate", "Learning rate"),
        ("grad_norm", "grad_norm", "Largest gradient norm of the last step's updates, before clipping"),
        ("ratio_mean", "policy_ratio_mean", "Current over behaviour probability of a token, mean"),
        ("ratio_off_max", "policy_ratio_off_max", "Largest distance of that ratio from 1, at the first update"),
        ("mismatch_abs", "behaviour_gap_nats", "Distance of the learner's log-probabilities to the sampled ones, mean"),
        ("mismatch_k1", "kl_nats", _KL, {"against": "behaviour", "estimator": "k1"}),
        *((f"w_{k}", "kl_nats", _KL, {"against": "proximal_behaviour", "estimator": k}) for k in ("k1", "k2", "k3")),
        *(
            (f"{other}_{k}", "kl_nats", _KL, {"against": other, "estimator": k})
            for other in ("proximal", "reference")
            for k in ("k1", "k2", "k3")
        ),
        ("clip_high_fraction", "clipped_ratio", _CLIPPED, {"side": "high"}),
        ("clip_low_fraction", "clipped_ratio", _CLIPPED, {"side": "low"}),
        ("dual_clip_fraction", "clipped_ratio", _CLIPPED, {"side": "dual"}),
        ("nonfinite_fraction", "nonfinite_ratio", "Share of tokens whose ratio was no finite number"),
    ),
    *_rows(
        "importance",
        *((f"w_{stat}", "importance_weight", _WEIGHT, {"stat": stat}) for stat in ("mean", "min", "max", "p99")),
        ("w_effective", "importance_effective_ratio", "Effective sample size of the importance weights, ESS / N"),
        ("w_truncated_fraction", "importance_truncated_ratio", "Share of tokens whose weight was capped"),
        ("w_dropped_fraction", "importance_dropped_ratio", "Share of tokens whose weight was set to 0"),
        ("rejected_fraction", "rejected_ratio", "Share of tokens in sequences that were rejected"),
    ),
    *_rows(
        "groups",
        ("groups", "step_groups", "Groups that the last step trained"),
        ("groups_all_right", "groups_all_right_ratio", "Share of groups whose samples are all right"),
        ("groups_all_wrong", "groups_all_wrong_ratio", "Share of groups whose samples are all wrong"),
        ("zero_advantage_groups", "zero_advantage_groups", _ONE_REWARD),
        *((f"seed_factor_{stat}", "seed_factor", _SEED, {"stat": stat}) for stat in ("mean", "min")),
        ("seed_clusters_mean", "seed_clusters", "SEED-GRPO: different answers in a group, mean"),
        ("filter_accepted", "filter_accepted_ratio", "Share of groups that dynamic sampling kept"),
        *((f"advantage_{stat}", "advantage", _ADVANTAGE, {"stat": stat}) for stat in ("mean", "std", "max")),
    ),
    *_rows(
        "length",
        *(
            (f"response_tokens_{stat}", "step_completion_tokens", _LENGTH, {"stat": stat})
            for stat in ("mean", "p95", "max")
        ),
        ("truncated", "truncated_ratio", "Share of completions that were cut off at sampling.max_tokens"),
        ("no_end", "unended_ratio", "Share of shorter completions that ended without the end token"),
        ("repetition", "repetition_ratio", "Share of a completion's runs of 8 tokens that it has had before"),
    ),
    *_rows(
        "staleness",
        ("token_lag_mean", "token_lag_steps", _LAG, {"stat": "mean"}),
        ("token_lag_max", "token_lag_steps", _LAG, {"stat": "max"}),
        ("mixed_version_samples", "mixed_version_ratio", "Share of completions sampled under more than one version"),
    ),
    *_rows(
        "flow",
        ("groups_waiting", "groups_waiting", "Finished groups that the next step can take"),
        ("generator_wait_ratio", "generators_wait_ratio", "Share of the fleet's time without any group in work"),
    ),
    *_rows(
        "curriculum",
        ("stage_number", "stage_number", "Stage of the curriculum that the step's oldest group is of, from 0"),
        ("hint_ratio", "hint_ratio", "Share of the solution that was given as a hint, mean over the step's groups"),
        ("hint_characters", "hint_characters", "Length of a hint, mean over the groups that were given one"),
        ("answer_in_hint", "answer_in_hint_ratio", "Share of hints that hold the answer, given or not"),
        ("probe_accuracy", "probe_accuracy_ratio", "Accuracy of the groups that never get a hint"),
        ("probe_solved", "probe_solved_ratio", "Share of those groups with at least one right sample"),
    ),
    *_rows(
        "diversity",
        ("diversity.distinct_solutions", "distinct_solutions", "Distinct solutions in a group, mean"),
        ("diversity.distinct_solutions_ratio", "distinct_solutions_ratio", "The same, as a share of its samples"),
        ("diversity.solution_entropy", "solution_entropy_nats", "Entropy of a group's solutions, mean"),
        *(
            (f"diversity.distinct_{n}", "distinct_ngrams_ratio", "Distinct n-grams of tokens in a group", {"n": n})
            for n in ("1", "2", "3")
        ),
    ),
)

_OF_TEMPLATE = "of the last step that had the template"
TEMPLATE_METRICS: tuple[Figure, ...] = _rows(
    "template",
    ("samples", "template_samples", f"Samples {_OF_TEMPLATE}"),
    ("reward", "template_reward", f"Composed reward, mean {_OF_TEMPLATE}"),
    ("accuracy", "template_accuracy_ratio", f"Accuracy, mean {_OF_TEMPLATE}"),
    ("format", "template_format_score", f"Format score, mean {_OF_TEMPLATE}"),
    ("format_full", "template_format_full_ratio", f"Share of samples whose format score is 1, {_OF_TEMPLATE}"),
    ("entropy", "template_entropy_nats", f"Entropy of the policy a token, mean {_OF_TEMPLATE}"),
    ("advantage_abs", "template_advantage_abs", f"Absolute advantage, mean {_OF_TEMPLATE}"),
    ("response_tokens_mean", "template_completion_tokens", f"Length of a completion, mean {_OF_TEMPLATE}"),
    ("truncated", "template_truncated_ratio", f"Share of completions that were cut off, {_OF_TEMPLATE}"),
    *(
        (key, "template_kl_nats", f"KL of the policy a token from another, mean {_OF_TEMPLATE}", labels)
        for key, labels in (
            ("mismatch_k1", {"against": "behaviour", "estimator": "k1"}),
            ("proximal_k3", {"against": "proximal", "estimator": "k3"}),
            ("reference_k3", {"against": "reference", "estimator": "k3"}),
        )
    ),
    *(
        (f"{key}_fraction", "template_clipped_ratio", f"Share of tokens clipped, {_OF_TEMPLATE}", {"side": side})
        for key, side in (("clip_high", "high"), ("clip_low", "low"), ("dual_clip", "dual"))
    ),
    *(
        (f"w_{stat}", "template_importance_weight", f"Importance weight before caps, {_OF_TEMPLATE}", {"stat": stat})
        for stat in ("mean", "min", "max")
    ),
    ("rejected_fraction", "template_rejected_ratio", f"Share of tokens in rejected sequences, {_OF_TEMPLATE}"),
)

_OF_PART = "of the last step that had the part; by domain, level or hint, where the problems differ in it"
PART_METRICS: tuple[Figure, ...] = _rows(
    "part",
    ("samples", "part_samples", f"Samples {_OF_PART}"),
    ("reward", "part_reward", f"Composed reward, mean {_OF_PART}"),
    ("accuracy", "part_accuracy_ratio", f"Accuracy, mean {_OF_PART}"),
    ("response_tokens_mean", "part_completion_tokens", f"Length of a completion, mean {_OF_PART}"),
)

AGE_METRICS: tuple[Figure, ...] = _rows(
    "staleness",
    ("tokens", "age_tokens", "Trained tokens of the last step, by their staleness in steps"),
    *(
        (f"w_{stat}", "age_importance_weight", "Importance weight before caps, by staleness in steps", {"stat": stat})
        for stat in ("mean", "min", "max", "p99")
    ),
    ("w_effective", "age_importance_effective_ratio", "ESS / N of the importance weights, by staleness in steps"),
    ("mismatch_k1", "age_kl_nats", "KL(behaviour || current) a token, k1 estimator, by staleness in steps"),
    ("clip_high_fraction", "age_clipped_ratio", "Share of tokens clipped, by staleness in steps", {"side": "high"}),
    ("clip_low_fraction", "age_clipped_ratio", "Share of tokens clipped, by staleness in steps", {"side": "low"}),
)

TAGS = {figure.key: figure.tag for figure in STEP_METRICS}


class StepGauges:
    """`set` shows a record; a figure that it has not is NaN."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._gauges: dict[str, Gauge] = {}
        for figure in STEP_METRICS:
            self._make(figure)
        for figure in TEMPLATE_METRICS:
            self._make(figure, "template")
        for figure in PART_METRICS:
            self._make(figure, "by", "part")
        for figure in AGE_METRICS:
            self._make(figure, "age")
        self._weight = Gauge(
            "chorus_learner_template_weight", "Chance of a template to be drawn next", ["template"], registry=registry
        )
        self._histogram = Gauge(
            "chorus_learner_accuracy_groups",
            "Groups of the last step by their accuracy: from this fifth of 0 to 1 on",
            ["from"],
            registry=registry,
        )
        self._score = Gauge(
            "chorus_learner_score",
            "Users' own graders, and their parts as grader.part: mean over the last step's samples that have it",
            ["score"],
            registry=registry,
        )
        self._shadow = Gauge(
            "chorus_learner_shadow_part_disagreement_ratio",
            "Share of second opinions that differ from the grade, by kind and template, in the last step that had any",
            ["kind", "template"],
            registry=registry,
        )
        self._parts: dict[str, set[str]] = {by: set() for by in (*BREAKDOWNS, "score", "shadow")}

    def set(self, record: Mapping[str, Any]) -> None:
        for figure in STEP_METRICS:
            self._show(figure, _value(record, figure.key))
        for by in BREAKDOWNS:
            for name, part in record.get(f"by_{by}", {}).items():
                if self._known(by, name):
                    self._show_part(by, name, part)
        for age in AGES:
            part = record["by_staleness"].get(age, {"tokens": 0})
            for figure in AGE_METRICS:
                self._show(figure, _value(part, figure.key), age=age)
        for name, weight in record.get("template_weights", {}).items():
            if self._known("template", name):
                self._weight.labels(name).set(weight)
        for name, value in record.get("scores", {}).items():
            if self._known("score", name):
                self._score.labels(name).set(value)
        for kind, templates in record.get("shadow", {}).items():
            for template, part in templates.items():
                if self._known("shadow", f"{kind}/{template}") and part["disagreement"] is not None:
                    self._shadow.labels(kind, template).set(part["disagreement"])
        bins = record["accuracy_histogram"]
        for k, count in enumerate(bins):
            self._histogram.labels(f"{k / len(bins):g}").set(count)

    def _show_part(self, by: str, name: str, part: Mapping[str, Any]) -> None:
        if by == "template":
            for figure in TEMPLATE_METRICS:
                self._show(figure, _value(part, figure.key), template=name)
        else:
            for figure in PART_METRICS:
                self._show(figure, _value(part, figure.key), by=by, part=name)

    def _make(self, figure: Figure, *more: str) -> None:
        if figure.name not in self._gauges:
            labels = [*more, *figure.labels]
            name = f"chorus_learner_{figure.name}"
            self._gauges[figure.name] = Gauge(name, figure.help, labels, registry=self._registry)

    def _show(self, figure: Figure, value: float, **more: str) -> None:
        gauge, labels = self._gauges[figure.name], {**more, **figure.labels}
        (gauge.labels(**labels) if labels else gauge).set(value)

    def _known(self, by: str, name: str) -> bool:
        if len(self._parts[by]) < MAX_PARTS:
            self._parts[by].add(name)
        return name in self._parts[by]


def _value(record: Mapping[str, Any], key: str) -> float:
    found: Any = record
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return math.nan if found is None else float(found)
