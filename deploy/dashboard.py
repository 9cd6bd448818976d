"""The Grafana dashboard: one row a question. `python -m deploy.dashboard` writes deploy/grafana/dashboards/chorus.json.

Change panels here, never in the JSON. In a query, `$__rate_interval` is Grafana's: at least four scrapes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).parent / "grafana" / "dashboards" / "chorus.json"
DATASOURCE = {"type": "prometheus", "uid": "prometheus"}  # provisioned under this uid
_WIDTH, _HEIGHT = 24, 8
_W = "$__rate_interval"
_NAMED = "* on (instance) group_left (generator) chorus_generator_run_info"  # a generator's id instead of its address


@dataclass(frozen=True)
class Panel:
    """`queries`: (PromQL, legend). `unit` is Grafana's name of it. `help` says what to make of it."""

    title: str
    help: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    width: int = 8
    kind: str = "timeseries"
    stacked: bool = False
    zero_is_good: bool = False  # stat: green at 0, red above


def _rate(metric: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}[{_W}]))"


def _quantile(q: float, histogram: str, by: str = "") -> str:
    groups = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({groups}) (rate({histogram}_bucket[{_W}])))"


def _mean(histogram: str, by: str = "") -> str:
    clause = f" by ({by})" if by else ""
    return f"sum{clause} (rate({histogram}_sum[{_W}])) / sum{clause} (rate({histogram}_count[{_W}]))"


def _of(prefix: str, *names: str) -> tuple[tuple[str, str], ...]:
    return tuple((f"{prefix}{name}", name.replace("_", " ")) for name in names)


L, G, R, B = "chorus_learner_", "chorus_generator_", "chorus_reward_server_", "chorus_ledger_"

AT_A_GLANCE = (
    Panel("Step", "Optimizer steps done.", "none", ((f"{L}step", "step"),), 3, "stat"),
    Panel("Left", "At the mean speed so far.", "s", (("chorus:learner_remaining_seconds", "left"),), 3, "stat"),
    Panel("Accuracy", "Of the last step's samples.", "percentunit", ((f"{L}accuracy_ratio", "accuracy"),), 3, "stat"),
    Panel("Learner waits", "Share of its last steps.", "percentunit", ((f"{L}wait_ratio", "waits"),), 3, "stat"),
    Panel(
        "Generators ready",
        "Registered, with fresh weights that passed the canary.",
        "none",
        ((f'{B}generators{{state="ready"}}', "ready"),),
        3,
        "stat",
    ),
    Panel(
        "Books off by",
        "Admitted - trained - dropped - outstanding: 0 when nothing is lost.",
        "none",
        ((f"{B}difference_groups", "groups"),),
        3,
        "stat",
        zero_is_good=True,
    ),
    Panel(
        "Alerts",
        "Firing. Prometheus's /alerts has what to do about each.",
        "none",
        (('sum(ALERTS{alertstate="firing", alertname=~"Chorus.*"}) or vector(0)', "firing"),),
        3,
        "stat",
        zero_is_good=True,
    ),
    Panel(
        "Held-out accuracy",
        "Before and after the run, at the training temperature.",
        "percentunit",
        ((f'{L}evaluation_ratio{{figure="accuracy"}}', "{{when}}"),),
        3,
        "stat",
    ),
)

LEARNING = (
    Panel(
        "Accuracy and format",
        "Means over each step's samples. Format rises first; accuracy should follow.",
        "percentunit",
        ((f"{L}accuracy_ratio", "accuracy"), (f"{L}format_full_ratio", "format complete")),
    ),
    Panel(
        "Reward and format score",
        "The composed reward is what is optimized.",
        "none",
        ((f"{L}reward", "reward"), (f"{L}format_score", "format score")),
    ),
    Panel(
        "Entropy",
        "Falls slowly in a healthy run. Near 0, samples are alike and teach nothing.",
        "none",
        ((f"{L}entropy_nats", "policy, nats a token"), (f"{L}solution_entropy_nats", "solutions of a group, nats")),
    ),
    Panel(
        "Groups that teach",
        "A group whose samples all got one reward has no advantage. High shares: problems too easy or too hard.",
        "percentunit",
        (
            (f"{L}groups_all_right_ratio", "all right"),
            (f"{L}groups_all_wrong_ratio", "all wrong"),
            (f"{L}zero_advantage_groups / {L}step_groups", "one reward"),
            (f"1 - {L}filter_accepted_ratio", "filtered"),
        ),
    ),
    Panel(
        "Groups by accuracy",
        "From all wrong (0) to all right (0.8 and above). What lies between teaches.",
        "none",
        ((f"{L}accuracy_groups", "from {{from}}"),),
        stacked=True,
    ),
    Panel(
        "Clipped tokens",
        "Above 30 %, the policy is far from the one its ratio is taken against.",
        "percentunit",
        ((f"{L}clipped_ratio", "{{side}}"), (f"{L}nonfinite_ratio", "no finite number")),
    ),
    Panel(
        "Gradient and loss",
        "A norm ten times the usual is one batch that stands out.",
        "none",
        ((f"{L}grad_norm", "gradient norm"), (f"{L}loss", "loss")),
    ),
    Panel(
        "KL divergence a token",
        "Between the current policy and the one that sampled, the proximal one, and the reference.",
        "none",
        ((f"{L}kl_nats", "{{against}} {{estimator}}"),),
    ),
    Panel(
        "Signs of a collapse",
        "1 while an alarm of [alarms] holds; the learner's log has a sentence about each.",
        "none",
        ((f"{L}alarm", "{{alarm}}"),),
    ),
)

LENGTH = (
    Panel(
        "Generated against trained",
        "Mean length of completions. Trained ones lag behind; if they stay shorter, long answers get lost.",
        "none",
        (
            (f"{_mean(G + 'completion_tokens')}", "generated, tokens"),
            (f"{_mean(L + 'completion_tokens')}", "trained, tokens"),
        ),
    ),
    Panel(
        "Right against wrong",
        "Mean length of trained completions by answer.",
        "none",
        ((_mean(L + "completion_tokens", "answer"), "{{answer}}, tokens"),),
    ),
    Panel(
        "Cut off, repeated",
        "Cut off: at sampling.max_tokens. Repeated: share of 8-token runs seen before in the same completion.",
        "percentunit",
        _of(L, "truncated_ratio", "unended_ratio", "repetition_ratio"),
    ),
)

WAITING = (
    Panel(
        "Who waits",
        "Learner waits: add generators. Generators wait: too many of them, or staleness.target is too small.",
        "percentunit",
        ((f"{L}wait_ratio", "learner"), (f"{L}generators_wait_ratio", "generators")),
    ),
    Panel(
        "Tokens a second",
        "In the long run they are equal, but for what is dropped.",
        "none",
        (("chorus:generated_tokens:rate1m", "generated"), ("chorus:trained_tokens:rate1m", "trained")),
    ),
    Panel(
        "Groups on their way",
        "Queued: generators are the bottleneck. Unread or read: the learner is.",
        "none",
        ((f"{B}outstanding_groups", "{{state}}"),),
        stacked=True,
    ),
    Panel(
        "What the learner waits for now",
        "Age of its oldest open wait of each kind; each has a deadline (`chorus why`).",
        "s",
        ((f"{L}waiting_seconds", "{{what}}"),),
    ),
    Panel(
        "What generators wait for",
        "Seconds waited in a second, over all groups at work.",
        "none",
        ((_rate(G + "waited_seconds_total", "what"), "{{what}}"),),
    ),
    Panel(
        "One step",
        "Where its time goes.",
        "s",
        (
            (_mean(L + "step_seconds"), "whole"),
            (f"sum(rate({L}wait_seconds_total[{_W}])) / sum(rate({L}step_seconds_count[{_W}]))", "waiting"),
            (_mean(L + "checkpoint_seconds"), "one checkpoint"),
        ),
    ),
    Panel(
        "One group",
        "Mean time to sample and to grade it.",
        "s",
        ((_mean(G + "generate_seconds"), "sampling"), (_mean(G + "grade_seconds"), "grading")),
    ),
    Panel(
        "New weights",
        "Sampling stands still during the pause; the transfer is a part of it. The learner sends while it trains.",
        "s",
        (
            (_mean(G + "sync_pause_seconds"), "pause"),
            (_mean(G + "sync_transfer_seconds"), "of which transfer"),
            (_mean(L + "weight_sync_seconds"), "offer to report"),
        ),
    ),
    Panel(
        "Generators at work",
        "Share of its time in which a generator has a group at work, and how many groups.",
        "none",
        (
            (f"rate({G}busy_seconds_total[{_W}]) {_NAMED}", "{{generator}} busy"),
            (f"{G}groups_in_flight {_NAMED}", "{{generator}} groups"),
        ),
    ),
)

STALENESS = (
    Panel(
        "Age of what is trained",
        "Steps between the weights that sampled a group's oldest token and those it trains.",
        "none",
        (
            (_mean(L + "staleness_steps"), "groups, mean"),
            (_quantile(0.95, L + "staleness_steps"), "groups, 95 %"),
            (f"{L}token_lag_steps", "tokens, {{stat}}"),
        ),
    ),
    Panel(
        "Worth of stale tokens",
        "Effective share of the importance weights by age. Below 0.3, few tokens carry the step.",
        "percentunit",
        ((f"{L}importance_effective_ratio", "all"), (f"{L}age_importance_effective_ratio", "{{age}} steps old")),
    ),
    Panel(
        "Tokens by age",
        "Of the last step.",
        "none",
        ((f"{L}age_tokens", "{{age}} steps old"),),
        stacked=True,
    ),
    Panel(
        "Steps behind",
        "Weights of each generator against the learner's.",
        "none",
        ((f"scalar({L}step) - {G}version_step {_NAMED}", "{{generator}}"),),
    ),
    Panel(
        "Distance of engine and learner",
        "Log-probabilities for the same weights, after each sync. Above the tolerance: quarantine.",
        "none",
        (
            (f"{G}logprob_gap_nats {_NAMED}", "{{generator}}, nats"),
            (f"max({G}logprob_tolerance_nats)", "tolerance, nats"),
        ),
    ),
    Panel(
        "Importance weights",
        "Proximal over behaviour policy, before caps.",
        "none",
        ((f"{L}importance_weight", "{{stat}}"), (f"{L}policy_ratio_mean", "ratio, mean")),
    ),
    Panel(
        "Mixed, corrected",
        "Completions under several versions; tokens whose weight was capped, set to 0, rejected.",
        "percentunit",
        _of(
            L,
            "mixed_version_ratio",
            "importance_truncated_ratio",
            "importance_dropped_ratio",
            "rejected_ratio",
        ),
    ),
)

TEMPLATES = (
    Panel("Accuracy", "By template.", "percentunit", ((f"{L}template_accuracy_ratio", "{{template}}"),)),
    Panel("Format score", "By template.", "none", ((f"{L}template_format_score", "{{template}}"),)),
    Panel("Reward", "By template.", "none", ((f"{L}template_reward", "{{template}}"),)),
    Panel("Entropy, nats a token", "By template.", "none", ((f"{L}template_entropy_nats", "{{template}}"),)),
    Panel("Length, tokens", "By template.", "none", ((f"{L}template_completion_tokens", "{{template}}"),)),
    Panel(
        "What still teaches",
        "Mean absolute advantage by template, and its chance to be drawn where that is adapted.",
        "none",
        ((f"{L}template_advantage_abs", "{{template}}"), (f"{L}template_weight", "{{template}}, chance")),
    ),
)

VERIFIER = (
    Panel("Grades a second", "By verdict.", "none", ((_rate(R + "grades_total", "verdict"), "{{verdict}}"),)),
    Panel(
        "Time of one grade",
        "95th percentile by verdict. A timeout lasts as long as the limit.",
        "s",
        ((_quantile(0.95, R + "grade_seconds", "verdict"), "{{verdict}}"),),
    ),
    Panel(
        "Failures",
        "Timeouts and errors among all grades; samples masked for want of a grade.",
        "percentunit",
        (
            ("chorus:verifier_failures:ratio5m", "timeout or error"),
            (
                f"sum(rate({G}ungraded_samples_total[{_W}])) / sum(rate({G}completion_tokens_count[{_W}]))",
                "samples without a grade",
            ),
        ),
    ),
    Panel(
        "Queue",
        "Grades waiting or in progress. A queue that grows wants more workers.",
        "none",
        ((f"sum({R}queue_items)", "waiting or in progress"), (f"sum({R}warm_workers)", "graders warm")),
    ),
    Panel(
        "Time of one request",
        "A request is a group. Waiting in the queue included.",
        "s",
        ((_quantile(0.5, R + "request_seconds"), "median"), (_quantile(0.95, R + "request_seconds"), "95 %")),
    ),
    Panel(
        "Graders replaced, requests refused",
        "timeout: killed at the limit. crashed: died. The others are reasons of a refusal.",
        "none",
        (
            (f"sum by (reason) (increase({R}worker_restarts_total[5m]))", "{{reason}}"),
            (f"sum by (reason) (increase({R}refused_requests_total[5m]))", "refused: {{reason}}"),
        ),
    ),
)

LOSSES = (
    Panel(
        "The books",
        "Admitted = trained + dropped + outstanding, always. Durable: in a checkpoint.",
        "none",
        (
            (f"{B}admitted_groups_total", "admitted"),
            (f"{B}trained_groups", "trained"),
            (f"{B}durable_groups_total", "durable"),
            (f"sum({B}dropped_groups_total)", "dropped"),
        ),
    ),
    Panel(
        "Dropped, by reason",
        "In five minutes. filtered is dynamic sampling at work; anything else is work thrown away.",
        "none",
        ((f"sum by (reason) (increase({B}dropped_groups_total[5m]))", "{{reason}}"),),
        stacked=True,
    ),
    Panel(
        "Out of the ordinary",
        "The difference of the books, tasks given up, entries of strangers.",
        "none",
        (
            (f"{B}difference_groups", "books off by"),
            (f"{B}dead_letters", "dead letters"),
            (f"{B}foreign_entries_total", "foreign entries"),
        ),
    ),
    Panel(
        "Generators",
        "By state, as they say of themselves on Redis; gone: no heartbeat for 15 s.",
        "none",
        ((f"{B}generators", "{{state}}"),),
        stacked=True,
    ),
    Panel(
        "What became of groups",
        "A second, at the generators. interrupted, lease_lost and twin cost time, not data.",
        "none",
        ((_rate(G + "groups_total", "outcome"), "{{outcome}}"),),
    ),
    Panel(
        "Restarts and failed syncs",
        "Since the process started.",
        "none",
        (
            (f"sum({G}engine_starts_total)", "vLLM starts"),
            (f"{L}fence", "learner starts"),
            (f"{L}weight_sync_failures_total", "failed syncs"),
        ),
    ),
    Panel(
        "Steps that a crash would undo",
        "Since the newest checkpoint.",
        "none",
        ((f"{L}step - {L}durable_step", "steps"),),
    ),
    Panel(
        "Memory",
        "Resident, of each process; graders and vLLM are processes of their own, not in here.",
        "bytes",
        (
            ("process_resident_memory_bytes", "{{job}} {{instance}}"),
            (f"{B}redis_memory_bytes", "redis"),
        ),
    ),
)

ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    ("At a glance", AT_A_GLANCE),
    ("Is it learning?", LEARNING),
    ("How long are the answers?", LENGTH),
    ("Who waits for whom?", WAITING),
    ("How stale is what it trains on?", STALENESS),
    ("Which template?", TEMPLATES),
    ("Is the verifier healthy?", VERIFIER),
    ("Is anything lost?", LOSSES),
)


def queries() -> Iterator[tuple[str, str]]:
    """(row and title, PromQL) of every query of the dashboard."""
    for row, panels in ROWS:
        for panel in panels:
            for expr, _ in panel.queries:
                yield f"{row} / {panel.title}", expr


def dashboard() -> dict[str, Any]:
    """The model that Grafana provisions."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS:
        panels.append(_row(len(panels) + 1, title, y))
        x, y, height = 0, y + 1, 4 if row[0].kind == "stat" else _HEIGHT
        for panel in row:
            if x + panel.width > _WIDTH:
                x, y = 0, y + height
            place = {"x": x, "y": y, "w": panel.width, "h": height}
            panels.append({"id": len(panels) + 1, "gridPos": place, **_panel(panel)})
            x += panel.width
        y += height
    return {
        "uid": "chorus",
        "title": "Chorus",
        "description": "One run: a row for each question. Written by deploy/dashboard.py.",
        "tags": ["chorus"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,  # one crosshair for all panels
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "templating": {"list": []},
        "panels": panels,
    }


def _row(number: int, title: str, y: int) -> dict[str, Any]:
    place = {"x": 0, "y": y, "w": _WIDTH, "h": 1}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}


def _panel(panel: Panel) -> dict[str, Any]:
    options = _stat_options() if panel.kind == "stat" else _series_options()
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.help,
        "datasource": DATASOURCE,
        "targets": [
            {"refId": chr(ord("A") + k), "datasource": DATASOURCE, "expr": expr, "legendFormat": legend}
            for k, (expr, legend) in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": options,
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        steps: list[dict[str, Any]] = [{"color": "green" if panel.zero_is_good else "blue", "value": None}]
        if panel.zero_is_good:
            steps += [{"color": "red", "value": 1}]
        return {"unit": panel.unit, "color": {"mode": "thresholds"}, "thresholds": {"mode": "absolute", "steps": steps}}
    custom: dict[str, Any] = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 0, "spanNulls": False}
    if panel.stacked:
        custom |= {"fillOpacity": 30, "stacking": {"mode": "normal", "group": "A"}}
    return {"unit": panel.unit, "color": {"mode": "palette-classic"}, "custom": custom}


def _stat_options() -> dict[str, Any]:
    calculation = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    return {"reduceOptions": calculation, "colorMode": "value", "graphMode": "area", "textMode": "value_and_name"}


def _series_options() -> dict[str, Any]:
    legend = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
    return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}


def text() -> str:
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    DASHBOARD.write_text(text(), encoding="utf-8")
