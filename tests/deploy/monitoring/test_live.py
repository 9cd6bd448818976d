"""A real Prometheus with the project's own configuration scrapes a real run: every query of the dashboard answers."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from freeport import free_port
from liverun import LiveRun, end_run
from promql import PROMETHEUS, RATE_INTERVAL, rules, tool
from scriptedlive import start_scripted_run

from chorus.deploy.tools.dashboard import queries

pytestmark = pytest.mark.slow
STEPS = 6
MOST_SERIES = 1200  # of one process
# What a healthy run of an ordinary recipe has no series of: nothing was evaluated, adapted or refused.
SILENT = ("evaluation_ratio", "template_weight", "part_accuracy", "refused_requests")


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
    fields["global"] = {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "2s"}
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(fields))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[LiveRun]:
    tool("prometheus")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHORUS_LEARNER__METRICS_PORT", str(free_port()))
        patch.setenv("CHORUS_GENERATOR__METRICS_PORT", str(free_port()))
        patch.setenv("CHORUS_LOG", "json")
        started = start_scripted_run(tmp_path_factory.mktemp("run"), tiny_model, replicas=1, delay_s=0.1)
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


def test_every_process_is_scraped(prometheus: Prometheus, run: LiveRun) -> None:
    # On a busy machine one scrape may time out: what counts is that they come through.
    run.until(lambda: prometheus.value("sum(up)") == 3, "a scrape of everybody")
    assert {s["metric"]["job"] for s in prometheus.query("up")} == {"learner", "generator", "reward-server"}


def test_every_query_of_the_dashboard_has_an_answer(prometheus: Prometheus) -> None:
    deadline = time.monotonic() + 60
    unanswered = dict(queries())
    while unanswered and time.monotonic() < deadline:
        unanswered = {where: expr for where, expr in unanswered.items() if not answered(prometheus, expr)}
    assert unanswered == {}


def answered(prometheus: Prometheus, expr: str) -> bool:
    found = prometheus.query(expr.replace(RATE_INTERVAL, "30s"))
    return bool(found) or any(name in expr for name in SILENT)


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
    assert prometheus.value("sum(chorus_ledger_generators)") == 1
    assert 4 * STEPS <= prometheus.value("chorus_ledger_trained_groups") <= run.accounts().trained
    trained = prometheus.value("sum(chorus_learner_completion_tokens_sum)")
    assert trained > 0
    generated = "sum(chorus_generator_completion_tokens_sum)"
    run.until(lambda: prometheus.value(generated) >= trained, "as many tokens generated as trained")  # scraped apart
    [info] = prometheus.query("chorus_generator_run_info")
    assert info["metric"]["run"] == run.folder.name


def test_a_healthy_run_fires_no_critical_alert(prometheus: Prometheus) -> None:
    assert prometheus.query('ALERTS{alertstate="firing", severity="critical"}') == []


def test_every_process_of_it_logs_objects_with_role_and_run(prometheus: Prometheus, run: LiveRun) -> None:
    lines = {role: logged(run, name) for role, name in (("learner", "learner"), ("generator", "gen-0"))}
    for role, said in lines.items():
        assert {line["role"] for line in said} == {role}
        assert {line["run"] for line in said} == {run.folder.name}
    assert lines["generator"][-1]["process"].startswith("gen-0-")
    [server] = {line["role"] for line in logged(run, "reward-server")}
    assert server == "reward-server"


def logged(run: LiveRun, name: str) -> list[dict[str, str]]:
    """A service's log; the last line may be half written."""
    whole = (run.folder / "logs" / f"{name}.log").read_text().rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def test_the_run_is_tracked_for_tensorboard(prometheus: Prometheus, run: LiveRun) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    assert [event.step for event in found.Scalars("policy/entropy")][:STEPS] == list(range(1, STEPS + 1))
