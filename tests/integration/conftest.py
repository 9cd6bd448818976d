"""Real runs for the integration tests: a quickly built policy, and `chorus run` as a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from liverun import DEMO, QUICK, LiveRun, end_run, start_run
from otherhost import OtherHost, another_host

from chorus.protocol.config.load import load_config


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A starter policy after one step of training: it need not be right, only run."""
    from chorus.starter.build import build_starter

    names = load_config(DEMO).templates.names
    return build_starter(tmp_path_factory.mktemp("starter"), names, 0, steps=1, log=lambda _: None)


@pytest.fixture(scope="session")
def other_host() -> Iterator[OtherHost]:
    """Stands for a machine beside this one."""
    with another_host() as host:
        yield host


@pytest.fixture
def running(tmp_path: Path, policy: Path) -> Iterator[Callable[..., LiveRun]]:
    """Start runs that end with the test."""
    started: list[LiveRun] = []

    def start(*overrides: str, **more: Any) -> LiveRun:
        runs = tmp_path / f"runs{len(started)}"
        started.append(start_run(runs, f"model.path={policy}", *QUICK, *overrides, **more))
        return started[-1]

    yield start
    for run in started:
        end_run(run)
