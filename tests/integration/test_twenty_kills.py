"""Twenty engines killed under one agent: it starts the next one each time, and holds no more than before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from liverun import LiveRun, end_run
from scriptedlive import start_scripted_run
from tinymodel import save_tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.alone]
KILLS = 20
STARTS_S = 120.0
VLLM = "chorus.generator.vllm_process"
SETTINGS = ("learner.sync_deadline_s=15.0", 'generator.vllm_args=["--enforce-eager"]', "alarms.flat_steps=0")


class Held(NamedTuple):
    rss_mib: float
    threads: int
    descriptors: int

    @classmethod
    def of(cls, process: psutil.Process) -> Held:
        return cls(process.memory_info().rss / 2**20, process.num_threads(), process.num_fds())


@pytest.fixture
def run(tmp_path: Path) -> Iterator[LiveRun]:
    model = save_tiny_model(tmp_path / "model", hidden_size=64, tied=True)
    run = start_scripted_run(tmp_path, model, replicas=1, overrides=SETTINGS, real=1)
    yield run
    end_run(run)


def test_twenty_killed_engines_leave_their_agent_as_it_was(run: LiveRun) -> None:
    run.wait_step(3, STARTS_S)
    (agent,) = run.processes("generator", "gen-0")
    held = [Held.of(agent)]
    for kill in range(1, KILLS + 1):
        (engine,) = [p for p in agent.children(recursive=True) if VLLM in p.cmdline()]
        engine.kill()
        run.until(
            lambda n=kill + 1: any(m.engine == n and m.state == "ready" for m in run.members()),
            f"engine {kill + 1} at work",
            STARTS_S,
        )
        run.wait_step(run.step() + 2, STARTS_S)
        held.append(Held.of(agent))
        print(f"kill {kill}: {held[-1]}", flush=True)
    assert agent.is_running()
    assert psutil.STATUS_ZOMBIE not in {p.status() for p in agent.children(recursive=True)}
    early, late = held[KILLS // 4], held[-1]
    assert late.threads <= early.threads + 1, held
    assert late.descriptors <= early.descriptors + 2, held
    assert late.rss_mib <= early.rss_mib + 4, held
    assert run.accounts().difference == 0
