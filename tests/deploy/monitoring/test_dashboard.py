"""The dashboard: what is provisioned is what panels.toml says, and every query is PromQL about what is exported."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from promql import check_parse, label_names, metric_names, rules

from chorus.deploy.tools.dashboard import DASHBOARD, DATASOURCE, Panel, dashboard, queries, rows, text
from chorus.deploy.tools.metrics_reference import exported

GRAFANA = DASHBOARD.parents[1]
QUESTIONS = (
    "Is it learning?",
    "Who waits for whom?",
    "How stale is what it trains on?",
    "Which template?",
    "Is the verifier healthy?",
    "Is anything lost?",
)


def test_the_provisioned_file_is_made_of_the_table_as_it_is_now() -> None:
    assert DASHBOARD.read_text() == text(), "run python -m chorus.deploy.tools.dashboard"


def test_there_is_a_row_for_each_question() -> None:
    assert set(QUESTIONS) <= {row.title for row in rows()}


def test_every_panel_says_what_to_make_of_it() -> None:
    assert [panel.title for row in rows() for panel in row.panel if len(panel.help) < 8 or panel.help[-1] != "."] == []


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        p = panel["gridPos"]
        cells = {(x, y) for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])}
        assert max(x for x, _ in cells) < 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_query_is_promql(tmp_path: Path) -> None:
    checked = check_parse([expr for _, expr in queries()], tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_query_that_is_no_promql_is_found(tmp_path: Path) -> None:
    assert check_parse(["sum(rate(chorus_learner_step[5m])"], tmp_path).returncode != 0


def test_every_query_names_series_and_labels_that_the_processes_export() -> None:
    families = [family for found in exported().values() for family in found]
    series = {name for family in families for name in family.series} | {"ALERTS"}
    series |= {rule["record"] for rule in rules() if "record" in rule}
    labels = {label for family in families for label in family.labels} | {"instance", "le", "alertstate", "alertname"}
    for where, expr in queries():
        assert metric_names(expr), where
        assert metric_names(expr) <= series, where
        assert label_names(expr) <= labels, where


def test_every_legend_names_labels_that_the_query_leaves() -> None:
    labels = {
        series: set(family.labels) | {"job", "instance"}
        for found in exported().values()
        for family in found
        for series in family.series
    }
    for where, expr in queries():
        left = set().union(*(labels.get(name, set()) for name in metric_names(expr))) | label_names(expr)
        assert set(re.findall(r"\{\{(\w+)\}\}", where)) <= left, where


def test_a_name_that_nobody_exports_would_be_found() -> None:
    assert metric_names('sum by (a) (rate(chorus_x_total{b="chorus_y"}[5m])) / on (c) up') == {"chorus_x_total", "up"}
    assert label_names('sum by (a) (rate(chorus_x_total{b="chorus_y"}[5m])) / on (c) up') == {"a", "b", "c"}


@pytest.mark.parametrize("changes", [{"qeries": {}}, {"queries": {}}, {"kind": "pie"}])
def test_a_slip_in_the_table_is_refused(changes: dict) -> None:
    good = {"title": "t", "help": "h.", "queries": {"a": "up"}}
    Panel.model_validate(good)
    with pytest.raises(ValueError, match=next(iter(changes))):
        Panel.model_validate(good | changes)


def test_grafana_is_given_the_data_source_that_the_panels_ask_for_and_the_folder_that_is_mounted() -> None:
    [source] = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert {"type": source["type"], "uid": source["uid"]} == DATASOURCE
    assert source["url"] == "http://prometheus:9090"
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            assert target["datasource"] == DATASOURCE
    [provider] = yaml.safe_load((GRAFANA / "provisioning/dashboards/chorus.yml").read_text())["providers"]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
