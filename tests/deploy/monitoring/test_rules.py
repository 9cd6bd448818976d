"""Prometheus's configuration and rules: promtool accepts them, and every alert has been made to fire."""

from __future__ import annotations

from pathlib import Path

import yaml
from promql import PROMETHEUS, label_names, matchers, metric_names, promtool, rules

from chorus.deploy.tools.metrics_reference import exported
from chorus.learner.metrics.alarms import NAMES as ALARMS
from chorus.protocol.metrics.ledger import MEMBER_STATES
from chorus.protocol.metrics.processes import GENERATOR_STATES
from chorus.reward_server.api.metrics import VERDICTS

# Labels that Prometheus or a rule itself adds.
ADDED = {"job", "instance", "le", "alertname", "alertstate"}


def alerts() -> list[dict]:
    return [rule for rule in rules() if "alert" in rule]


def test_promtool_accepts_the_configuration_and_the_rules() -> None:
    checked = promtool("check", "config", PROMETHEUS / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_rule_does_what_its_test_says() -> None:
    tested = promtool("test", "rules", PROMETHEUS / "rules_test.yml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_a_rule_that_changes_breaks_its_test(tmp_path: Path) -> None:
    text = (PROMETHEUS / "rules.yml").read_text()
    assert "chorus_learner_wait_ratio > 0.5" in text
    (tmp_path / "rules.yml").write_text(
        text.replace("chorus_learner_wait_ratio > 0.5", "chorus_learner_wait_ratio > 0.9")
    )
    (tmp_path / "rules_test.yml").write_text((PROMETHEUS / "rules_test.yml").read_text())
    assert promtool("test", "rules", tmp_path / "rules_test.yml").returncode != 0


def test_every_alert_is_in_the_rules_tests() -> None:
    tests = (PROMETHEUS / "rules_test.yml").read_text()
    assert [rule["alert"] for rule in alerts() if rule["alert"] not in tests] == []


def test_every_alert_says_how_bad_it_is_what_is_wrong_and_what_to_look_at() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}, rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description"}, rule["alert"]
        assert len(rule["annotations"]["description"]) > 50, rule["alert"]


def test_rules_name_nothing_that_nobody_exports() -> None:
    families = [family for found in exported().values() for family in found]
    series = {name for family in families for name in family.series} | {"up"}
    series |= {rule["record"] for rule in rules() if "record" in rule}
    labels = {label for family in families for label in family.labels} | ADDED
    for rule in rules():
        assert metric_names(rule["expr"]) <= series, rule
        assert label_names(rule["expr"]) <= labels, rule


def test_rules_select_by_values_that_exist() -> None:
    jobs = {job["job_name"] for job in yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]}
    known = {
        "alarm": set(ALARMS),
        "verdict": set(VERDICTS),
        "state": {*GENERATOR_STATES, *MEMBER_STATES},
        "job": jobs,
        "reason": {"filtered"},
    }
    for rule in rules():
        for label, value in matchers(rule["expr"]):
            assert value in known[label], rule["expr"]
