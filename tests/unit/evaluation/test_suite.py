"""Suites as data files, and where their benchmarks' problems come from."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from chorus.evaluation.suite import load_suite, read_problems
from chorus.protocol.runtime.exits import CannotGoOn

DATA = Path(__file__).parents[4] / "shared" / "data"
SUITES = [load_suite("math"), load_suite("competitions25")]


@pytest.mark.parametrize("benchmark", SUITES[0].benchmark, ids=lambda b: b.name)
def test_the_files_of_the_paper_hold_as_many_problems_as_it_counts(benchmark: Any) -> None:
    if not (DATA / benchmark.file).is_file():
        pytest.skip(f"{benchmark.file} is not in ../shared/data, which is optional")
    problems = read_problems(benchmark.source(DATA), benchmark.kind)
    assert len(problems) == benchmark.problems
    assert {p.kind for p in problems} == {"math"}


def test_the_suites_are_those_of_the_paper_and_of_2025() -> None:
    assert sum(b.problems for b in SUITES[0].benchmark) == 1560
    assert [b.title for b in SUITES[1].benchmark] == ["AIME25", "HMMT25", "BRUMO25"]


@pytest.mark.parametrize("benchmark", [b for suite in SUITES for b in suite.benchmark], ids=lambda b: b.name)
def test_every_benchmark_is_asked_of_the_hub_by_its_name_and_split(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def load_dataset(name: str, *_: Any, split: str = "", **__: Any) -> list[dict[str, Any]]:
        asked.append((name, split))
        column = "question" if "?problem=question" in benchmark.hub else "problem"
        return [{column: "What is 1 + 1?", "answer": 2.0, "url": "elsewhere"}]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    (problem,) = read_problems(benchmark.source(None), benchmark.kind)
    assert (problem.problem, problem.answers) == ("What is 1 + 1?", ["2"])
    name, split = benchmark.hub.removeprefix("hub:").partition("?")[0].rsplit(":", 1)
    assert asked == [(name, split)]


def test_a_missing_file_names_the_benchmark_and_the_ways_out(tmp_path: Path) -> None:
    with pytest.raises(
        CannotGoOn, match=r"benchmark amc has no eval_amc.jsonl.gz there; give the command `chorus fetch math"
    ):
        SUITES[0].benchmark[1].source(tmp_path)


def test_benchmarks_can_be_chosen_and_unknown_ones_are_refused() -> None:
    assert [b.name for b in SUITES[0].only(["minerva", "amc"]).benchmark] == ["minerva", "amc"]
    with pytest.raises(CannotGoOn, match=r"gsm9k: not in this suite; it has aime24, amc, math500"):
        SUITES[0].only(["amc", "gsm9k"])


def test_a_suite_of_ones_own_is_a_toml_file(tmp_path: Path) -> None:
    (tmp_path / "sums.jsonl").write_text(json.dumps({"problem": "1 + 1", "answer": "2"}) + "\n")
    path = tmp_path / "mine.toml"
    path.write_text('title = "Sums"\n[[benchmark]]\nname = "sums"\ntitle = "Sums"\nfile = "sums.jsonl"\n')
    (benchmark,) = load_suite(str(path)).benchmark
    assert len(read_problems(benchmark.source(tmp_path), benchmark.kind)) == 1
    with pytest.raises(CannotGoOn, match="has no hub name; give the folder of its file with --data"):
        benchmark.source(None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('title = "x"\n[[benchmark]]\nname = "a"\ntitle = "A"\nsize = 3\n', r"benchmark.0.size: Extra inputs"),
        ('title = "x"\n' + '[[benchmark]]\nname = "a"\ntitle = "A"\n' * 2, r"suite: benchmark a is listed twice"),
        ("title = ", r"suite .*mine.toml: Invalid value"),
    ],
)
def test_a_suite_that_can_not_be_read_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(CannotGoOn, match=message):
        load_suite(str(path))


def test_an_unknown_suite_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(CannotGoOn, match=r"--suite maths: there is no such suite; known: competitions25, math"):
        load_suite("maths")
