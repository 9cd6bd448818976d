"""docs/python.md says what is so: its examples run, all but the one of `start`, which test_start.py runs."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from chorus.cli import init

PAGE = Path(__file__).parents[3] / "docs" / "python.md"


def test_every_example_of_the_page_gives_what_stands_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert init.main(["my.toml"]) == 0
    result = doctest.testfile(str(PAGE), module_relative=False)
    assert result.failed == 0
    assert result.attempted > 10
