"""A plugin for pytest (`-p outcomes`), told by two variables of the environment.

CHORUS_TEST_IMPORTS: modules that must import, from the tree where pytest runs. CHORUS_TEST_OUTCOMES: a file that gets
node id -> `passed`, `failed` or `skipped`, as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path

import pytest

_outcomes: dict[str, str] = {}


def pytest_configure(config: pytest.Config) -> None:
    """End with status 4 where a module does not import, or the package is another tree's."""
    for name in ["chorus", *os.environ.get("CHORUS_TEST_IMPORTS", "").split()]:
        try:
            module = importlib.import_module(name)
        except Exception as error:
            raise pytest.UsageError(f"{name} does not import: {type(error).__name__}: {error}") from error
        if not Path(str(module.__file__)).resolve().is_relative_to(config.rootpath.resolve()):
            raise pytest.UsageError(f"{name} is {module.__file__}, which is not in {config.rootpath}")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A test passed if its call did, and neither set-up nor tear-down failed."""
    if report.failed or (report.when == "call" and _outcomes.get(report.nodeid) != "failed"):
        _outcomes[report.nodeid] = report.outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    where = os.environ.get("CHORUS_TEST_OUTCOMES")
    if where and not hasattr(session.config, "workerinput"):
        Path(where).write_text(json.dumps(_outcomes))
