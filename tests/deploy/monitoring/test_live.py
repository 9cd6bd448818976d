"""A real Prometheus with the project's own configuration scrapes a real run: every query of the dashboard answers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from liverun import LiveRun, end_run
from promql import PROMETHEUS, RATE_INTERVAL, rules, tool
from scriptedlive import start_scripted_run

from deploy.dashboard import queries

pytestmark = pytest.mark.slow
STEPS = 6
MOST_SERIES = 1200  # of one process
# What a healthy run of an ordinary recipe has no series of: nothing was evaluated, adapted or refused.
SILENT = ("evaluation_ratio", "template_weight", "refused_requests")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Prometheus:
    """Asked over its HTTP interface."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}{path}?{query}", timeout=10) as answer:
            body = json.load(answer)
        assert body["status"] == "success", body
        return body["data"]

    def query(self, expr: str) -> list[dict[str, Any]]:
        return self.get("/api/v1/query", query=expr)["result"]

    def value(self, expr: str) -> float:
        [found] = self.query(expr)
        return float(found["value"][1])

    def ready(self) -> bool:
        try:
            return len(self.get("/api/v1/targets")["activeTargets"]) == 3
        except (OSError, urllib.error.URLError):
            return False


def configuration(folder: Path, addresses: dict[str, str]) -> Path:
    """The project's own, with the addresses of this run and quicker scrapes."""
    fields = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    assert {job["job_name"] for job in fields["scrape_configs"]} == set(addresses)
    for job in fields["scrape_configs"]:
        job.pop("dns_sd_configs", None)
        job["static_configs"] = [{"targets": [addresses[job["job_name"]]]}]
    fields["rule_files"] = [str(PROMETHEUS / "rules.yml")]
    fields["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(fields))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[LiveRun]:
    tool("prometheus")
    ports = {"CHORUS_LEARNER__METRICS_PORT": free_port(), "CHORUS_GENERATOR__METRICS_PORT": free_port()}
    os.environ.update({name: str(port) for name, port in ports.items()})
    try:
        started = start_scripted_run(tmp_path_factory.mktemp("run"), tiny_model, replicas=1, delay_s=0.1)
    finally:
        for name in ports:
            del os.environ[name]
    yield started
    end_run(started)


@pytest.fixture(scope="module")
def prometheus(run: LiveRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Started before the first step, and answering until the run has done STEPS of them."""
    run.until(lambda: list(run.runs.glob("*/run.json")), "a folder")
    folder, port, config = tmp_path_factory.mktemp("prometheus"), free_port(), run.config
    addresses = {
        "learner": f"127.0.0.1:{config['learner']['metrics_port']}",
        "generator": f"127.0.0.1:{config['generator']['metrics_port']}",
        "reward-server": config["reward"]["url"].removeprefix("http://"),
    }
    command = [tool("prometheus"), f"--config.file={configuration(folder, addresses)}"]
    command += [f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    asked = Prometheus(port)
    try:
        run.until(asked.ready, "a Prometheus that answers")
        run.wait_step(STEPS)
        # Two scrapes and an evaluation after that, so that rates and records have what they need.
        run.until(lambda: asked.query(f"chorus_learner_step > {STEPS}"), "the learner's steps on Prometheus")
        run.until(lambda: asked.query("chorus:learner_remaining_seconds"), "records")
        yield asked
    finally:
        process.terminate()
        process.wait(30)


def test_every_process_is_scraped(prometheus: Prometheus) -> None:
    assert {s["metric"]["job"]: s["value"][1] for s in prometheus.query("up")} == {
        "learner": "1",
        "generator": "1",
        "reward-server": "1",
    }


def test_every_query_of_the_dashboard_has_an_answer(prometheus: Prometheus) -> None:
    empty = []
    for where, expr in queries():
        found = prometheus.query(expr.replace(RATE_INTERVAL, "15s"))
        if not found and not any(name in expr for name in SILENT):
            empty.append((where, expr))
    assert empty == []


def test_every_rule_is_evaluated_without_an_error(prometheus: Prometheus) -> None:
    groups = prometheus.get("/api/v1/rules")["groups"]
    found = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert set(found) == {rule.get("record") or rule["alert"] for rule in rules()}
    assert {name: rule.get("lastError") for name, rule in found.items() if rule["health"] != "ok"} == {}


def test_no_process_exports_more_series_than_it_should(prometheus: Prometheus) -> None:
    for found in prometheus.query('count by (job) ({job=~".+"})'):
        assert int(found["value"][1]) < MOST_SERIES, found


def test_what_is_scraped_is_what_the_run_says(prometheus: Prometheus, run: LiveRun) -> None:
    assert 0.0 <= prometheus.value("chorus_learner_wait_ratio") <= 1.0
    assert prometheus.value("chorus_ledger_difference_groups") == 0
    assert prometheus.value('chorus_ledger_generators{state="ready"}') == 1
    books = run.books()
    assert 4 * STEPS <= prometheus.value("chorus_ledger_trained_groups") <= books.trained
    generated = prometheus.value("sum(chorus_generator_completion_tokens_sum)")
    assert prometheus.value("sum(chorus_learner_completion_tokens_sum)") <= generated
    [info] = prometheus.query("chorus_generator_run_info")
    assert info["metric"]["run"] == run.folder.name


def test_a_healthy_run_fires_no_critical_alert(prometheus: Prometheus) -> None:
    assert prometheus.query('ALERTS{alertstate="firing", severity="critical"}') == []
