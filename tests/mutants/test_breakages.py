"""The list of breakages fits the tree: each text stands where it says, and the tests that it names are there."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from breakages import Breakage, Unusable, covered, read_breakages

ROOT = Path(__file__).parents[2]
ALL = read_breakages()


@cache
def ids_in(file: str) -> list[str]:
    """Node ids, without parameters."""
    tree = ast.parse((ROOT / file).read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert functions, f"{file} holds no tests"
    return [f"{file}::{f.name}" for f in functions if f.name.startswith("test_")]


@pytest.mark.parametrize("breakage", ALL, ids=lambda b: b.name)
def test_its_text_stands_there_once_and_its_tests_exist(breakage: Breakage) -> None:
    source = (ROOT / breakage.file).read_text()
    assert breakage.applied(source) != source
    assert breakage.fails, "it names no test"
    for named in breakage.fails:
        assert covered(named, ids_in(named.partition("::")[0])), f"{named} is not there"


def test_there_are_many_and_each_has_a_name_of_its_own() -> None:
    assert len(ALL) >= 60
    assert [name for name, n in Counter(b.name for b in ALL).items() if n > 1] == []


# What this suite was built to catch; a name begins with its word.
WORDS = [
    *("the head's re-pack", "lease renewal", "commit", "twin", "rewind", "token count", "the weight check's verdict"),
    *("quarantine", "staleness bound", "masked verifier failures", "the draw's seed", "fencing token", "tied heads"),
    *("clip bounds", "zero-variance groups", "the guard that ends orphans", "bind_tree"),
]


@pytest.mark.parametrize("word", WORDS)
def test_each_fault_that_the_suite_was_built_for_is_made_in_two_ways(word: str) -> None:
    assert sum(b.name.startswith(f"{word}:") for b in ALL) >= 2


def test_a_text_that_stands_twice_or_nowhere_is_refused() -> None:
    breakage = Breakage("x", "f.py", "a = 1", "a = 2", [])
    assert breakage.applied("a = 1\n") == "a = 2\n"
    for source in ("", "a = 1\na = 1\n"):
        with pytest.raises(Unusable, match="not once"):
            breakage.applied(source)
