"""Examples say what is so: those of docs/python.md (all but the one of `start`, which test_start.py runs) and of every
docstring."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

from chorus.cli import init

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "python.md"
SOURCES = [
    path for room in (ROOT / "src" / "chorus").iterdir() if room.is_dir() for path in room.resolve().rglob("*.py")
]
TELLING = sorted(str(path.relative_to(ROOT)) for path in SOURCES if ">>> " in path.read_text(encoding="utf-8"))


def test_every_example_of_the_page_gives_what_stands_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert init.main(["my.toml"]) == 0
    result = doctest.testfile(str(PAGE), module_relative=False)
    assert result.failed == 0
    assert result.attempted > 10


@pytest.mark.parametrize("file", TELLING)
def test_every_example_in_a_docstring_gives_what_stands_there(file: str) -> None:
    name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    result = doctest.testmod(import_module(f"chorus.{name}"))
    assert (result.failed, result.attempted > 0) == (0, True)
