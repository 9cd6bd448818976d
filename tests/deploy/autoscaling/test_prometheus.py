"""The ScaledObject's queries on a real Prometheus: they must give what the decisions were replayed with.

A simulated run's metrics are written into Prometheus' own blocks by promtool, at the moments at which they would have
been scraped; then each query is asked at each of those moments, over HTTP as KEDA asks.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from shutil import which

import pytest
import redis
from autoscaler import Autoscaler, scaled_object, trigger
from mirrored import MirroredFleet, Moment, Scraped, autoscale

from chorus.deploy.simulator.pace import EngineSpeed, Lengths, Pace
from chorus.protocol.config.run import RunConfig

PROMETHEUS, PROMTOOL = which("prometheus"), which("promtool")
pytestmark = pytest.mark.skipif(
    not (PROMETHEUS and PROMTOOL), reason="no prometheus and promtool on this machine; Debian's package has both"
)
HOUR = 3600.0


@pytest.fixture
def history(client: redis.Redis) -> tuple[list[Moment], Scraped]:
    """An hour and a half in which a fleet of one grows."""
    config = RunConfig(
        model={"path": "any"},
        problems={"train": ["any"]},
        templates={"names": ["qwen-math"]},
        sampling={"group_size": 4},
        learner={"groups_per_step": 8},
        generator={"max_num_seqs": 8, "groups_in_flight": 2},
    )  # type: ignore[arg-type]
    speed = EngineSpeed(((1, 1.0), (8, 1.0)))
    pace = Pace(groups=(Lengths(45, 180),), engine=speed, learner=(60.0 / 1440,), grade_s=0.5)
    return autoscale(MirroredFleet(config, pace, client, "run"), Autoscaler(scaled_object(), 1), 1.5 * HOUR, 240.0)


@pytest.fixture
def began_at() -> float:
    return time.time() // 1 - 24 * HOUR


@pytest.fixture
def prometheus(tmp_path: Path, history: tuple[list[Moment], Scraped], began_at: float) -> Iterator[str]:
    """Its address."""
    assert PROMETHEUS
    assert PROMTOOL
    written, blocks, config = tmp_path / "history.om", tmp_path / "blocks", tmp_path / "prometheus.yml"
    written.write_text(open_metrics(history[1], began_at))
    config.write_text("global: {}\n")
    subprocess.run([PROMTOOL, "tsdb", "create-blocks-from", "openmetrics", written, blocks], check=True, timeout=60)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    argv = [PROMETHEUS, f"--config.file={config}", f"--storage.tsdb.path={blocks}", f"--web.listen-address={address}"]
    with (tmp_path / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([*argv, "--storage.tsdb.retention.time=10y"], stdout=log, stderr=log)
    try:
        await_ready(f"http://{address}/-/ready", process, tmp_path / "prometheus.log")
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(30)


def open_metrics(scraped: Scraped, began_at: float) -> str:
    """The series under the names that the run exports."""
    lines = []
    for metric, kind, prefix in (
        ("chorus_learner_wait_ratio", "gauge", "wait_ratio"),
        ("chorus_learner_step", "gauge", "step"),
        ("chorus_generator_busy_seconds", "counter", "busy/"),
    ):
        lines.append(f"# TYPE {metric} {kind}")
        name = f"{metric}_total" if kind == "counter" else metric
        for series, samples in scraped.series.items():
            if series.startswith(prefix):
                label = f'{{instance="{series}"}}' if "/" in series else '{instance="learner"}'
                lines += [f"{name}{label} {value!r} {began_at + at:.3f}" for at, value in samples]
    return "\n".join([*lines, "# EOF\n"])


def await_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(f"Prometheus was not ready within 30 s:\n{log.read_text()}")


def ask(server: str, query: str, at: float) -> float | None:
    """As KEDA's prometheus trigger: one element at most; None where there is none."""
    arguments = urllib.parse.urlencode({"query": query, "time": f"{at:.3f}"})
    with urllib.request.urlopen(f"{server}/api/v1/query?{arguments}", timeout=10) as answer:
        found = json.load(answer)["data"]["result"]
    assert len(found) <= 1, found
    return float(found[0]["value"][1]) if found else None


def test_the_queries_give_what_the_decisions_were_made_with_and_nothing_where_there_is_no_run(
    prometheus: str, history: tuple[list[Moment], Scraped], began_at: float
) -> None:
    moments, _ = history
    assert moments[-1].replicas > 1, "the history tells of a change"
    asked = {name: trigger(scaled_object(), name)["query"] for name in ("waiting", "idle")}
    for moment in moments[::6]:
        waiting = ask(prometheus, asked["waiting"], began_at + moment.at)
        # Prometheus 2 counts the sample at the window's far edge, 3 does not.
        assert (waiting or 0.0) == pytest.approx(moment.values["waiting"], abs=0.01), moment
        if moment.at > 60:
            idle = ask(prometheus, asked["idle"], began_at + moment.at)
            assert idle == pytest.approx(moment.values["idle"], abs=0.03), moment
    # A run that says nothing is no answer, which KEDA reads as 0: ignoreNullValues.
    assert {ask(prometheus, query, began_at - HOUR) for query in asked.values()} == {None}
