"""`chorus check-data`: what was planted is reported with both places, counted, removed, and fails a CI."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from planted import EDITS, PROBLEMS, SAME

from chorus.cli.main import main
from chorus.problems.sources import load_problems
from chorus.protocol.runtime.exits import CANNOT_GO_ON

Row = dict[str, Any]


def write(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(text: str, answer: str, **more: Any) -> Row:
    return {"problem": text, "answer": answer, **more}


@pytest.fixture
def train(tmp_path: Path) -> Path:
    """Lines 2 and 3 are in a benchmark, line 4 is its third problem with other numbers; lines 1 and 5 are free."""
    return write(
        tmp_path / "train.jsonl",
        [
            row(*PROBLEMS[0], id="free/1", note="kept"),
            row(SAME["white space"](PROBLEMS[1][0]), PROBLEMS[1][1]),
            row(EDITS["other verbs"](PROBLEMS[2][0]), PROBLEMS[2][1]),
            row(PROBLEMS[9][0].replace("35 heads and 94 legs", "40 heads and 100 legs"), "20"),
            row(*PROBLEMS[4]),
        ],
    )


@pytest.fixture
def tests(tmp_path: Path) -> list[Path]:
    first = write(tmp_path / "first.jsonl", [row(*PROBLEMS[1]), row(*PROBLEMS[5]), row(*PROBLEMS[9])])
    return [first, write(tmp_path / "second.jsonl", [row(*PROBLEMS[6]), row(*PROBLEMS[2])])]


def chorus(*arguments: object) -> int:
    return main(["check-data", *map(str, arguments)])


def test_exactly_the_planted_overlaps_are_found(train: Path, tests: list[Path], capsys: pytest.CaptureFixture[str]):
    assert chorus(train, "--against", *tests, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert {(p["kind"], p["train"]["where"], p["against"]["where"]) for p in found["pairs"]} == {
        ("exact", f"{train}:2", f"{tests[0]}:1"),
        ("near", f"{train}:3", f"{tests[1]}:2"),
        ("variant", f"{train}:4", f"{tests[0]}:3"),
    }
    assert found["shared"] == {
        str(tests[0]): {"problems": 1, "exact": 1, "near": 0, "variant": 1},
        str(tests[1]): {"problems": 1, "exact": 0, "near": 1, "variant": 0},
    }


def test_people_read_both_places_and_a_line_for_each_benchmark(
    train: Path, tests: list[Path], capsys: pytest.CaptureFixture[str]
):
    chorus(train, "--against", *tests)
    text = capsys.readouterr().out
    assert re.search(rf"exact 1.00\n  {train}:2  {train}#\w+: A train leaves the station", text)
    assert re.search(rf"  {tests[0]}:1  {tests[0]}#\w+: A train leaves the station", text)
    assert [line.split()[1:] for line in text.splitlines() if line.startswith(str(tests[0]))] == [
        ["3", "1", "1", "0", "1"]
    ]


def test_what_is_written_holds_the_rest_with_all_columns_and_the_ids_they_had(
    train: Path, tests: list[Path], tmp_path: Path
):
    before = load_problems(str(train))
    assert chorus(train, "--against", *tests, "--write", tmp_path / "clean.jsonl.gz") == 1
    clean = load_problems(str(tmp_path / "clean.jsonl.gz"))
    assert clean == [before[0], before[3], before[4]]
    assert clean[0].id == "free/1"
    assert json.loads(gzip.decompress((tmp_path / "clean.jsonl.gz").read_bytes()).splitlines()[0])["note"] == "kept"
    assert chorus(tmp_path / "clean.jsonl.gz", "--against", *tests) == 0


def test_variants_count_where_they_are_asked_for(train: Path, tests: list[Path], tmp_path: Path):
    clean = tmp_path / "clean.jsonl"
    assert chorus(train, "--against", *tests, "--variants", "--write", clean) == 1
    assert [p.problem for p in load_problems(str(clean))] == [PROBLEMS[0][0], PROBLEMS[4][0]]
    free = write(tmp_path / "free.jsonl", [json.loads(train.read_text().splitlines()[3])])
    assert chorus(free, "--against", *tests) == 0
    assert chorus(free, "--against", *tests, "--variants") == 1


def test_duplicates_within_and_between_sets_leave_their_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    first = write(tmp_path / "a.jsonl", [row(*PROBLEMS[0]), row(*PROBLEMS[1]), row(*PROBLEMS[0])])
    second = write(tmp_path / "b.jsonl", [row(*PROBLEMS[1]), row(*PROBLEMS[2])])
    assert chorus(first, second, "--json", "--write", tmp_path / "c.jsonl") == 1
    pairs = json.loads(capsys.readouterr().out)["pairs"]
    assert [(p["train"]["where"], p["against"]["where"]) for p in pairs] == [
        (f"{first}:3", f"{first}:1"),
        (f"{second}:1", f"{first}:2"),
    ]
    assert [p.problem for p in load_problems(str(tmp_path / "c.jsonl"))] == [PROBLEMS[k][0] for k in (0, 1, 2)]


def test_generated_problems_are_checked_like_files(tmp_path: Path):
    leaked = write(tmp_path / "leaked.jsonl", [row("What is 3 + 4 - 5?", "2"), row("What is 0 + 1 - 0?", "1")])
    assert chorus(leaked, "--against", "arithmetic:chain?max=2&split=heldout") == 1
    assert chorus("arithmetic:chain?split=train", "--against", "arithmetic:chain?split=heldout") == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nowhere.jsonl"], "nowhere.jsonl: problems 'nowhere.jsonl': no such file"),
        (["train.jsonl", "train.jsonl"], "train.jsonl is named twice"),
        (["train.jsonl", "--least", "0"], "--least 0.0: give a similarity from 0.1 to 1"),
        (["train.jsonl", "--write", "out.csv"], "--write out.csv: give a name that ends in .jsonl or .jsonl.gz"),
        (["train.jsonl", "--write", "train.jsonl"], "--write train.jsonl: it is there already"),
        (["nowhere.jsonl", "--write", "other.jsonl"], "--write other.jsonl: it is there already"),
        (["train.jsonl", "--write", "no/where.jsonl"], "--write no/where.jsonl: No such file or directory"),
        (["train.jsonl", "other.jsonl", "--write", "o.jsonl"], "both have the id 'free/1'; write each set alone"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_3(
    train: Path,
    arguments: list[str],
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(train.parent)
    write(train.parent / "other.jsonl", [row(*PROBLEMS[7], id="free/1")])
    assert chorus(*arguments) == CANNOT_GO_ON
    assert named in capsys.readouterr().err
