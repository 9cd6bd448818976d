"""The metrics of a training step, a row each: whatever is said of a step is made from this one table.

    TABLE ─▶ fill: the record, a line of metrics.jsonl      ─▶ StepMetrics: chorus_learner_... at Prometheus
          ─▶ TAGS: the trackers' headings                   ─▶ deploy/tools/metrics_reference: docs/metrics.md

A record has parts, which say the same of some of its samples or tokens. A key stands in one or more scopes:

    step       the record itself
    part       each part of by_template, by_domain, by_level, by_hint and by_stage
    age        each part of by_staleness
    diversity  diversity, and each part of diversity_by_template

`fill` makes a scope complete: what was not measured is None, and a key without a row is refused. Numbers under names
that the run gives (rewards by term, groups by reason) are one row: {name: number}, and `each` is the label that the
names have at Prometheus.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

MAX_PARTS = 64  # values of one label; more would be too many series, so the rest is left to metrics.jsonl
BREAKDOWNS = ("template", "domain", "level", "hint", "stage")  # the record has them as by_template and so on
AGES = ("0", "1", "2", "3", "4+")  # steps of staleness, as the record's by_staleness names them


@dataclass(frozen=True)
class View:
    """How Prometheus has the parts of a scope: what their names begin with, their labels, the end of their help."""

    scope: str
    prefix: str = ""
    labels: tuple[str, ...] = ()
    help: str = ""


_PART_HELP = "; of the last step that had the part; by domain, level, hint or stage, where groups differ in it"
SCOPES = ("step", "part", "age", "diversity")
VIEWS = {
    "step": View("step"),
    "diversity": View("diversity"),
    "template": View("part", "template_", ("template",), "; of the last step that had the template"),
    "part": View("part", "part_", ("by", "part"), _PART_HELP),
    "age": View("age", "age_", ("age",), "; by staleness in steps"),
}


@dataclass(frozen=True)
class Metric:
    """A key of the record, in the scopes of its `views` and in those of `also`; both are words.

    name: at Prometheus in each of its views, without prefixes and without a counter's `_total`; "": not there. bare:
    views that have it without `labels`. family: what all of the name's labels are, in help texts. each: the label that
    tells its numbers apart. tag: the trackers' heading.
    """

    key: str
    unit: str
    help: str
    name: str = ""
    views: str = "step"
    also: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    counter: bool = False
    each: str = ""
    bare: str = ""
    family: str = ""
    tag: str = ""

    @property
    def scopes(self) -> list[str]:
        found = {*(VIEWS[view].scope for view in self.views.split()), *self.also.split()}
        return [scope for scope in SCOPES if scope in found]

    @property
    def exported(self) -> list[str]:
        return self.views.split() if self.name else []

    def full_name(self, view: str) -> str:
        """`step_` gives way to another view's prefix: a step's and a template's `completion_tokens`."""
        prefix = VIEWS[view].prefix
        return f"chorus_learner_{prefix}{self.name.removeprefix('step_') if prefix else self.name}"

    def full_help(self, view: str) -> str:
        return (self.family if self.labels_in(view) else self.help) + VIEWS[view].help

    def labels_in(self, view: str) -> Mapping[str, str]:
        return {} if view in self.bare.split() else self.labels

    def label_names(self, view: str) -> list[str]:
        return [*VIEWS[view].labels, *self.labels_in(view), *([self.each] if self.each else [])]


def _section(tag: str, *rows: Metric) -> tuple[Metric, ...]:
    return tuple(replace(row, tag=row.tag or tag) for row in rows)


def _kl(key: str, against: str, estimator: str, views: str, also: str = "", bare: str = "") -> Metric:
    help, labels = f"{_KL_OF[against]} a token, {estimator} estimator", {"against": against, "estimator": estimator}
    return Metric(key, "nats", help, "kl_nats", views, also, labels, bare=bare, family=_KL)


def _clipped(key: str, side: str, views: str, also: str = "") -> Metric:
    help = f"Share of tokens whose ratio was clipped, {_SIDES[side]}"
    return Metric(f"{key}_fraction", "share", help, "clipped_ratio", views, also, {"side": side}, family=_CLIPPED)


def _each(
    key: str, stat: str, unit: str, help: str, name: str, views: str = "step", also: str = "", bare: str = ""
) -> Metric:
    labels = {"stat": stat}
    return Metric(f"{key}_{stat}", unit, f"{help}, {_STATS[stat]}", name, views, also, labels, bare=bare, family=help)


def _distinct(n: str) -> Metric:
    help = f"Distinct {n}-grams of tokens in a group, over all of them, mean"
    return Metric(f"distinct_{n}", "share", help, "distinct_ngrams_ratio", _DIVERSITY, labels={"n": n}, family=_N_GRAMS)


_PARTS, _TEMPLATES, _DIVERSITY = "step template part", "step template", "diversity"
_OTHERS = ("proximal", "reference")
_STATS = {"mean": "mean", "min": "least", "max": "largest", "std": "standard deviation"}
_STATS |= {"p95": "95th percentile", "p99": "99th percentile"}
_SIDES = {"high": "advantage > 0", "low": "advantage < 0", "dual": "at the dual clip's bound"}
_KL_OF = {
    "behaviour": "KL(behaviour || current)",
    "proximal_behaviour": "KL(behaviour || proximal)",
    "proximal": "KL(current || proximal)",
    "reference": "KL(current || reference)",
}
_KL = (
    "Estimated KL divergence a token between the policy and another: behaviour (sampled with), proximal, reference; "
    "proximal_behaviour: between these two"
)
_CLIPPED = "Share of tokens whose ratio was clipped: high (advantage > 0), low (< 0), dual (the dual clip's)"
_SKIPPED = "Updates left out: a gradient that was no finite number, or no tokens"
_GAP = "Distance of the learner's log-probabilities to the sampled ones, mean"
_WEIGHT = "Importance weight of a token before caps (proximal over behaviour policy)"
_ESS = "Effective sample size of the importance weights, ESS / N"
_CAPPED = "Share of tokens whose weight was capped"
_DROPPED = "Share of tokens whose weight was set to 0"
_REJECTED = "Share of tokens in sequences that were rejected"
_FIFTHS = "Groups by their accuracy: from this fifth of 0 to 1 on"
_ONE_REWARD = "Groups whose samples got one reward: nothing to learn where the baseline is the group's"
_NO_ANSWER = "Share of samples in which no answer was found"
_NO_SPREAD = "Share of groups with one reward, those included that dynamic sampling replaced as all right or all wrong"
_PEAK = "Largest memory of the learner so far: on its GPU, or of its process without one"
_MFU = "Arithmetic that the step's tokens need, over what the learner's devices could do while it trained them"
_SCORES = "Users' own graders, and their parts as grader.part: mean over the samples that have it"
_DISPUTED = "Share of second opinions that differ from the grade"
_SEED = "SEED-GRPO: what a group's advantages were multiplied by, since its answers differ"
_FILTERED = "Groups that dynamic sampling replaced, by why"
_ADVANTAGE = "Advantage of a sample (the largest: without its sign)"
_LENGTH = "Length of a completion"
_CUT_OFF = "Share of completions that were cut off at sampling.max_tokens"
_ENDLESS = "Share of shorter completions that ended without the end token"
_REPEATED = "Share of a completion's runs of 8 tokens that it has had before, mean"
_OLDEST = "Steps between the weights of a group's oldest token and those it trains"
_LAG = "Steps between the weights that sampled a token and those it trains"
_MIXED = "Share of completions sampled under more than one version"
_MASKED = "Samples left out of the loss, for they have no grade"
_OVERLONG = "Cut-off samples that objective.overlong_filter left out"
_UNGRADED = "Samples of trained groups that the verifier failed to grade"
_IDLE = "Share of the fleet's time without any group in work"
_PAID = "What a sample got for its place in its group and in the run, mean"
_PAID_FOR = {"short": "a short right answer", "cosine": "few tokens", "interleaved": "right sub-answers"}
_FOUND = "Share of the gold sub-answers that an answer before the last one says"
_FIRST = "Share of a completion that comes before its first answer, mean, where problems have sub-answers"
_GATES = {
    "short": "accuracy is near the best so far",
    "cosine": "its updates of the period are on",
    "interleaved": "accuracy has not fallen",
}
_GATE = "1 where the step paid a gated part of the reward"
_FACTOR = "Coefficient in the step's loss or reward"
_RIGHT_LENGTH = "Length of a group's right answers"
_STAGE = "Stage of the curriculum that the step's oldest group is of"
_HINT = "Share of the solution that was given as a hint, mean over groups, those without one included"
_IN_HINT = "Share of the stage's hints that hold the answer, given or not; online: of those tried since the last step"
_NOT_HELD = "ReLIFT: groups without a right sample that are not held, by why"
_DIFFICULTY = "ReLIFT: share of the groups whose accuracy is easy (0.75 up), medium (0.375 up), hard (above 0)"
_NLL = "Negative log-likelihood of a target token in the supervised update, mean"
_VERDICTS = "Share of the update's critiques whose verdict was likelier than not, before the update"
_TAUGHT = "Target tokens trained on in supervised updates; no tokens of rollouts"
_EXAMPLES = "Examples trained on in supervised updates; no rollouts"
_DISTINCT = "Distinct solutions in a group, mean"
_DISTINCT_RATIO = "The same, as a share of its samples"
_N_GRAMS = "Distinct n-grams of tokens in a group, over all of them, mean"
_OF_PARTS = "Of the samples of each"
_CHANCE = "Chance of a template to be drawn next, where the mixture adapts"

# The record's keys in their order.
TABLE: tuple[Metric, ...] = (
    Metric("step", "steps", "The step, from 1"),
    Metric("steps", "steps", "Steps after which the run ends"),
    Metric("time", "unix s", "When the step ended"),
    *_section(
        "reward",
        Metric("samples", "samples", "Samples", "samples", "template part"),
        Metric("reward", "", "Composed reward, mean over samples", "reward", _PARTS),
        Metric("accuracy", "share", "Accuracy, mean over graded samples", "accuracy_ratio", _PARTS),
        Metric("format", "0 to 1", "Format score, mean over samples", "format_score", _TEMPLATES),
        Metric("format_full", "share", "Share of samples whose format score is 1", "format_full_ratio", _TEMPLATES),
        Metric("no_answer", "share", _NO_ANSWER, "no_answer_ratio", _TEMPLATES, also="part"),
        Metric(
            "overlong_penalty", "", "What length cost a sample in its reward, mean", "overlong_penalty", also="part"
        ),
        *(
            Metric(f"{part}_reward", "", f"{_PAID}: {said}", "paid", also="part", labels={"part": part}, family=_PAID)
            for part, said in _PAID_FOR.items()
        ),
        Metric("sub_answers_found", "share", _FOUND, "sub_answers_found_ratio", also="part"),
        Metric("answers", "answers", "Answer blocks in a completion, mean, where problems have sub-answers", "answers"),
        Metric("first_answer", "share", _FIRST, "first_answer_ratio"),
        Metric("kl_reward", "nats", "KL penalty a sample paid in its reward, before the coefficient", "kl_reward_nats"),
        Metric("scores", "", _SCORES, "score", also="part", each="score", tag="scores"),
        Metric("shadow_disagreement", "share", _DISPUTED, "shadow_disagreement_ratio"),
        Metric("shadow", "", f"{_DISPUTED}, by kind and template, with their number", tag="shadow"),
    ),
    *_section(
        "policy",
        Metric("entropy", "nats", "Entropy of the policy a token", "entropy_nats", _TEMPLATES),
        Metric("logprob", "nats", "Log-probability of a trained token, mean", "logprob_nats"),
        Metric("loss", "", "Loss", "loss"),
        Metric("lr", "", "Learning rate", "learning_rate"),
        Metric("grad_norm", "", "Largest gradient norm of the step's updates, before clipping", "grad_norm"),
        Metric("updates", "updates", "Optimizer updates", "updates", counter=True),
        Metric("updates_skipped", "updates", _SKIPPED, "skipped_updates", counter=True),
        Metric("ratio_mean", "", "Current over behaviour probability of a token, mean", "policy_ratio_mean"),
        Metric(
            "ratio_off_max", "", "Largest distance of that ratio from 1, at the first update", "policy_ratio_off_max"
        ),
        Metric("mismatch_abs", "nats", _GAP, "behaviour_gap_nats"),
        _kl("mismatch_k1", "behaviour", "k1", "step template age", bare="age"),
        *(_kl(f"w_{k}", "proximal_behaviour", k, "step", also="part age") for k in ("k1", "k2", "k3")),
        *(_kl(f"{other}_{k}", other, k, "step", also="part") for other in _OTHERS for k in ("k1", "k2")),
        *(_kl(f"{other}_k3", other, "k3", _TEMPLATES) for other in _OTHERS),
        _clipped("clip_high", "high", "step template age"),
        _clipped("clip_low", "low", "step template age"),
        _clipped("dual_clip", "dual", _TEMPLATES, also="age"),
        Metric("nonfinite_fraction", "share", "Share of tokens whose ratio was no finite number", "nonfinite_ratio"),
    ),
    *_section(
        "control",
        *(
            Metric(f"{gate}_gate", "", f"{_GATE}: {said}", "gate_open_ratio", labels={"gate": gate}, family=_GATE)
            for gate, said in _GATES.items()
        ),
        Metric("accuracy_best", "share", "Highest accuracy of a step so far, where a gate asks", "best_accuracy_ratio"),
        *(
            Metric(f"{of}_coefficient", "", f"{_FACTOR}: of {of}", "coefficient", labels={"of": of}, family=_FACTOR)
            for of in ("kl", "entropy")
        ),
        Metric("reference_reset", "", "Why the reference became the current policy before the step, in words"),
        Metric("reference_resets", "resets", "Resets of the reference so far", "reference_resets"),
        Metric("reference_age", "steps", "Steps from the reference's last reset to this one", "reference_age_steps"),
    ),
    *_section(
        "importance",
        Metric("tokens", "tokens", "Trained tokens", "tokens", "age"),
        *(_each("w", stat, "", _WEIGHT, "importance_weight", "step template age") for stat in ("mean", "min", "max")),
        _each("w", "p99", "", _WEIGHT, "importance_weight", "step age"),
        Metric("w_effective", "share", _ESS, "importance_effective_ratio", "step age", also="part"),
        Metric("w_truncated_fraction", "share", _CAPPED, "importance_truncated_ratio", also="part age"),
        Metric("w_dropped_fraction", "share", _DROPPED, "importance_dropped_ratio", also="part age"),
        Metric("rejected_fraction", "share", _REJECTED, "rejected_ratio", _TEMPLATES, also="age"),
    ),
    *_section(
        "groups",
        Metric("groups", "groups", "Groups that the step trained", "step_groups"),
        Metric("groups_all_right", "share", "Share of groups whose samples are all right", "groups_all_right_ratio"),
        Metric("groups_all_wrong", "share", "Share of groups whose samples are all wrong", "groups_all_wrong_ratio"),
        Metric("accuracy_histogram", "groups", _FIFTHS, "accuracy_groups", each="from"),
        Metric("zero_advantage_groups", "groups", _ONE_REWARD, "zero_advantage_groups"),
        Metric("zero_spread", "share", _NO_SPREAD, "zero_spread_ratio"),
        *(_each("seed_factor", stat, "", _SEED, "seed_factor") for stat in ("mean", "min")),
        Metric("seed_clusters_mean", "answers", "SEED-GRPO: different answers in a group, mean", "seed_clusters"),
        Metric(
            "groups_filtered", "groups", _FILTERED, "filtered_groups", counter=True, each="why", tag="groups_filtered"
        ),
        Metric("filter_accepted", "share", "Share of groups that dynamic sampling kept", "filter_accepted_ratio"),
        *(_each("advantage", stat, "", _ADVANTAGE, "advantage") for stat in ("mean", "std", "max")),
        Metric("advantage_abs", "", "Absolute advantage of a sample, mean", "advantage_abs", "template"),
    ),
    *_section(
        "length",
        _each("response_tokens", "mean", "tokens", _LENGTH, "step_completion_tokens", _PARTS, bare="template part"),
        _each("response_tokens", "p95", "tokens", _LENGTH, "step_completion_tokens", also="part"),
        _each("response_tokens", "max", "tokens", _LENGTH, "step_completion_tokens", also="part"),
        Metric("response_tokens_right", "tokens", "Length of a completion that is right, mean", also="part"),
        Metric("response_tokens_wrong", "tokens", "Length of a completion that is wrong, mean", also="part"),
        *(_each("right_tokens", stat, "tokens", f"{_RIGHT_LENGTH}, mean", "right_tokens") for stat in ("min", "max")),
        Metric("truncated", "share", _CUT_OFF, "truncated_ratio", _TEMPLATES),
        Metric("no_end", "share", _ENDLESS, "unended_ratio", also="part"),
        Metric("repetition", "share", _REPEATED, "repetition_ratio", also="part"),
    ),
    *_section(
        "staleness",
        Metric("staleness_mean", "steps", f"{_OLDEST}, mean"),
        Metric("staleness_max", "steps", f"{_OLDEST}, largest"),
        *(_each("token_lag", stat, "steps", _LAG, "token_lag_steps") for stat in ("mean", "max")),
        Metric("mixed_version_samples", "share", _MIXED, "mixed_version_ratio"),
        Metric("version", "", "Version of the weights that the step trained: steps and supervised updates before it"),
    ),
    *_section(
        "flow",
        Metric("groups_waiting", "groups", "Finished groups that the next step can take", "groups_waiting"),
        Metric("samples_masked", "samples", _MASKED, "masked_samples", counter=True),
        Metric("samples_overlong", "samples", _OVERLONG, "overlong_samples", counter=True),
        Metric(
            "scores_failed", "samples", "Samples that a user's own grader failed on, by grader", tag="scores_failed"
        ),
        Metric("verifier_failures", "samples", _UNGRADED, "ungraded_samples", counter=True),
        Metric("verifier_ms_mean", "ms", "Time of a grade in its grader, mean"),
        Metric("trained_tokens", "tokens", "Completion tokens trained on", "trained_tokens", counter=True),
        Metric("tokens_per_second", "tokens/s", "Trained tokens over the step's time"),
        Metric("generated_tokens_per_second", "tokens/s", "Tokens that the fleet sampled, over the step's time"),
        Metric("seconds", "s", "The step's time, waiting included; a checkpoint counts with the step after it"),
        Metric("mfu", "share", _MFU, "mfu_ratio"),
        Metric("wait_seconds", "s", "Waiting for rollouts, in steps that are done", "wait_seconds", counter=True),
        Metric("learner_wait_ratio", "share", "Share of the step's time that the learner waited for rollouts"),
        Metric("generator_wait_ratio", "share", _IDLE, "generators_wait_ratio"),
        Metric("memory_peak", "bytes", _PEAK, "peak_memory_bytes"),
        Metric("memory_limit", "bytes", "What there is of that memory"),
    ),
    *_section(
        "curriculum",
        Metric("stage", "name", _STAGE),
        Metric("stage_number", "", f"{_STAGE}, from 0", "stage_number"),
        Metric("max_tokens", "tokens", "Longest completion that the stage allows"),
        Metric("hint_ratio", "share", _HINT, "hint_ratio"),
        Metric("hint_characters", "characters", "Length of a hint, mean over the groups with one", "hint_characters"),
        Metric("answer_in_hint", "share", _IN_HINT, "answer_in_hint_ratio"),
        Metric("hints_lowered", "hints", "Online ratios that could not be given, by reason", tag="hints_lowered"),
        Metric("probe_groups", "groups", "Groups that never get a hint"),
        Metric("probe_accuracy", "share", "Accuracy of the groups that never get a hint", "probe_accuracy_ratio"),
        Metric("probe_solved", "share", "Share of those groups with at least one right sample", "probe_solved_ratio"),
    ),
    *_section(
        "supervised",
        Metric("hard_prompts", "prompts", "ReLIFT: unsolved prompts that are held for an update", "hard_prompts"),
        Metric("hard_prompts_skipped", "groups", _NOT_HELD, tag="hard_prompts_skipped"),
        Metric("difficulty", "share", _DIFFICULTY, "difficulty_groups_ratio", each="bin", tag="difficulty"),
        Metric("shown_groups", "groups", "ReLIFT: groups of problems whose solution was trained on before"),
        Metric("shown_accuracy", "share", "ReLIFT: accuracy of those groups", "shown_accuracy_ratio"),
        Metric("supervised_updates", "updates", "Supervised updates", "supervised_updates", counter=True),
        Metric("supervised_loss", "", "Loss of the supervised update", "supervised_loss"),
        Metric("supervised_nll", "nats", _NLL, "supervised_nll_nats"),
        Metric("supervised_entropy", "nats", "Entropy of the policy at those tokens, mean", "supervised_entropy_nats"),
        Metric("supervised_tokens", "tokens", _TAUGHT, "supervised_tokens", counter=True),
        Metric("supervised_demonstrations", "examples", _EXAMPLES, "supervised_demonstrations", counter=True),
        Metric("supervised_grad_norm", "", "Gradient norm of the supervised update", "supervised_grad_norm"),
        Metric("supervised_lr", "", "Learning rate of the supervised update", "supervised_learning_rate"),
        Metric("supervised_verdicts", "share", _VERDICTS, "supervised_verdicts_ratio"),
        Metric("passes", "passes", "Passes over the examples of [finetune] so far", "passes"),
    ),
    *_section(
        "diversity",
        Metric("distinct_solutions", "solutions", _DISTINCT, "distinct_solutions", _DIVERSITY),
        Metric("distinct_solutions_ratio", "share", _DISTINCT_RATIO, "distinct_solutions_ratio", _DIVERSITY),
        Metric("solution_entropy", "nats", "Entropy of a group's solutions, mean", "solution_entropy_nats", _DIVERSITY),
        *(_distinct(n) for n in ("1", "2", "3")),
    ),
    Metric("by_template", "", f"{_OF_PARTS} template", tag="template"),
    *(
        Metric(f"by_{by}", "", f"{_OF_PARTS} {by}, where groups may differ in it", tag=f"by_{by}")
        for by in BREAKDOWNS[1:]
    ),
    Metric("by_staleness", "", "Of the tokens of each age: 0, 1, 2, 3, and 4 or more steps", tag="age"),
    Metric("diversity", "", "How different a group's answers are", tag="diversity"),
    Metric("diversity_by_template", "", "The same for the groups of each template", tag="template_diversity"),
    Metric("template_weights", "share", _CHANCE, "template_weight", each="template", tag="template_weights"),
    Metric("alarms", "", "What alarms the step raised, in words"),
    Metric("findings", "", "What the doctor newly found in the run's first steps, in words"),
    Metric("not_finite", "", "Keys whose value was no finite number, and is null therefore"),
)

TAGS = {row.key: row.tag for row in TABLE if "step" in row.scopes}
KEYS = {scope: tuple(row.key for row in TABLE if scope in row.scopes) for scope in SCOPES}


def fill(scope: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The scope's keys in the table's order, None where `values` has none. Raises KeyError for a key without a row.

    >>> fill("diversity", {"distinct_1": 0.5})["distinct_2"] is None
    True
    """
    if unknown := values.keys() - set(KEYS[scope]):
        raise KeyError(f"{', '.join(sorted(unknown))}: no row with scope {scope} in protocol/metrics/step.py; add one")
    return {key: values.get(key) for key in KEYS[scope]}


def mean(values: Iterable[float | None]) -> float | None:
    """Of those that were measured; None where none was."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


class StepMetrics:
    """`set` shows a record: gauges its values, NaN where it has none, and counters add them up."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._rows = {view: [row for row in TABLE if view in row.exported] for view in VIEWS}
        self._families: dict[str, Gauge | Counter] = {}
        self._seen: dict[str, set[str]] = {}
        for view, rows in self._rows.items():
            for row in rows:
                if (name := row.full_name(view)) not in self._families:
                    kind = Counter if row.counter else Gauge
                    self._families[name] = kind(name, row.full_help(view), row.label_names(view), registry=registry)
        self._shadow = Gauge(
            "chorus_learner_shadow_part_disagreement_ratio",
            f"{_DISPUTED}, by kind and template, in the last step that had any",
            ["kind", "template"],
            registry=registry,
        )

    def set(self, record: Mapping[str, Any]) -> None:
        for view, labels, part in self._parts(record):
            for row in self._rows[view]:
                for more, value in self._values(row, part.get(row.key)):
                    self._show(row, view, {**labels, **row.labels_in(view), **more}, value)
        for kind, templates in (record.get("shadow") or {}).items():
            for template, part in templates.items():
                if part["disagreement"] is not None and self._known("shadow", f"{kind}/{template}"):
                    self._shadow.labels(kind, template).set(part["disagreement"])

    def _parts(self, record: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str], Mapping[str, Any]]]:
        yield "step", {}, record
        yield "diversity", {}, record.get("diversity") or {}
        for by in BREAKDOWNS:
            for name, part in (record.get(f"by_{by}") or {}).items():
                if not self._known(by, name):
                    continue
                if by == "template":
                    yield "template", {"template": name}, part
                else:
                    yield "part", {"by": by, "part": name}, part
        for age in AGES:
            yield "age", {"age": age}, (record.get("by_staleness") or {}).get(age, {"tokens": 0})

    def _values(self, row: Metric, value: Any) -> Iterator[tuple[dict[str, str], float | None]]:
        """(label of a name that the run gave, number); a list holds equal bins of 0 to 1."""
        if not row.each:
            yield {}, value
            return
        if isinstance(value, list):
            value = {f"{k / len(value):g}": count for k, count in enumerate(value)}
        for name, number in (value or {}).items():
            if self._known(row.each, name):
                yield {row.each: name}, number

    def _show(self, row: Metric, view: str, labels: dict[str, str], value: float | None) -> None:
        family = self._families[row.full_name(view)]
        one = family.labels(**labels) if labels else family
        if isinstance(one, Counter):
            one.inc(value or 0)
        else:
            one.set(math.nan if value is None else value)

    def _known(self, label: str, name: str) -> bool:
        """Whether the label may have this value, too."""
        seen = self._seen.setdefault(label, set())
        if len(seen) < MAX_PARTS:
            seen.add(name)
        return name in seen
