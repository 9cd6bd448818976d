"""A plugin for pytest (`-p outcomes`): writes which tests passed and which failed to $CHORUS_TEST_OUTCOMES, as JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

_outcomes: dict[str, str] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A test passed if its call did, and neither set-up nor tear-down failed."""
    if report.failed or (report.when == "call" and _outcomes.get(report.nodeid) != "failed"):
        _outcomes[report.nodeid] = report.outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    where: Any = os.environ.get("CHORUS_TEST_OUTCOMES")
    if where and not hasattr(session.config, "workerinput"):
        Path(where).write_text(json.dumps(_outcomes))
