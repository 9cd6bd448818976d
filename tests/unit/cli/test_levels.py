"""`chorus levels`: from measurements to a level file, byte for byte the same, and to the problems with their level."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chorus.cli.main import main
from chorus.problems.pass_rates import Measured
from chorus.problems.sources import load_problems
from chorus.protocol.runtime.exits import CANNOT_GO_ON

COUNTS = {  # of 8 samples: small, medium, large
    "easy": (8, 8, 8),
    "middle": (4, 8, 8),
    "hard": (0, 4, 8),
    "harder": (0, 0, 0),
    "unknown": (0, None, None),
}


def rates(path: Path, column: int, model: str = "m", hint_ratio: float = 0.0, turned: bool = False) -> Path:
    lines = [
        Measured(id=name, model=model, hint_ratio=hint_ratio, samples=8, correct=counts[column]).line
        for name, counts in COUNTS.items()
        if counts[column] is not None
    ]
    path.write_text("".join(reversed(lines) if turned else lines))
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[object]:
    names = ("small", "medium", "large")
    return [part for k, name in enumerate(names) for part in (f"--{name}", rates(tmp_path / f"{name}.jsonl", k))]


def chorus(*arguments: object) -> int:
    return main(["levels", *map(str, arguments)])


def test_every_problem_gets_a_line_with_its_level_and_the_reason(
    files: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert chorus(*files, "--out", tmp_path / "levels.jsonl") == 0
    lines = {line["id"]: line for line in map(json.loads, (tmp_path / "levels.jsonl").read_text().splitlines())}
    assert {name: line["level"] for name, line in lines.items()} == {
        "easy": None,
        "middle": "L1",
        "hard": "L2",
        "harder": "L3",
        "unknown": None,
    }
    assert lines["hard"]["medium"] == {"samples": 8, "correct": 4}
    assert "medium" not in lines["unknown"]
    assert "1  L2        medium solves it, small never" in capsys.readouterr().out


def test_the_file_does_not_depend_on_the_order_of_the_measurements(files: list[object], tmp_path: Path):
    chorus(*files, "--out", tmp_path / "first.jsonl")
    turned = rates(tmp_path / "turned.jsonl", 0, turned=True)
    chorus("--small", turned, *files[2:], "--out", tmp_path / "second.jsonl")
    assert (tmp_path / "first.jsonl").read_bytes() == (tmp_path / "second.jsonl").read_bytes()


def test_the_problems_are_written_with_their_level_as_curricula_read_it(files: list[object], tmp_path: Path):
    source = tmp_path / "set.jsonl"
    rows = [{"id": name, "problem": f"Solve the {name} one.", "answer": "1", "note": name} for name in COUNTS]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    levelled = tmp_path / "levelled.jsonl"
    assert chorus(*files, "--out", tmp_path / "l.jsonl", "--problems", source, "--write", levelled) == 0
    assert {p.id: p.level for p in load_problems(str(levelled))} == {"middle": 1, "hard": 2, "harder": 3}
    assert json.loads(levelled.read_text().splitlines()[0])["note"] == "middle"


def test_what_the_strongest_never_solves_has_no_level(files: list[object], tmp_path: Path):
    strongest = tmp_path / "strongest.jsonl"
    lines = [Measured(id=name, model="r1", samples=4, correct=name != "harder").line for name in COUNTS]
    strongest.write_text("".join(lines))
    assert chorus(*files, "--strongest", strongest, "--out", tmp_path / "levels.jsonl") == 0
    found = {line["id"]: line for line in map(json.loads, (tmp_path / "levels.jsonl").read_text().splitlines())}
    assert found["harder"]["level"] is None
    assert found["harder"]["reason"] == "the strongest never solves it"
    assert found["hard"]["strongest"] == {"samples": 4, "correct": 1}


def test_measurements_of_several_models_or_hints_are_no_level(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    first, other = rates(tmp_path / "a.jsonl", 0), rates(tmp_path / "b.jsonl", 0, hint_ratio=0.5)
    assert chorus("--small", first, other, "--out", tmp_path / "l.jsonl") == CANNOT_GO_ON
    assert "'m' at hint ratio 0, 'm' at hint ratio 0.5; give files of one model and one hint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("further", "named"),
    [
        (["--write", "x.jsonl"], "--write needs the source of the problems that it writes"),
        (["--write", "x.jsonl", "--problems", "arithmetic:one-digit"], "none of its problems has a level"),
        (["--write", "x.jsonl", "--problems", "nowhere.jsonl"], "no such file"),
        (["--write", "there.jsonl", "--problems", "nowhere.jsonl"], "--write there.jsonl: it is there already"),
        (["--medium", "levels.jsonl"], "--out levels.jsonl: it is one of the files that are read"),
        (["--medium", "nowhere.jsonl"], "nowhere.jsonl: can't be read"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_3(
    files: list[object],
    tmp_path: Path,
    further: list[str],
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.jsonl").write_text("mine")
    assert chorus(*files[:2], "--out", "levels.jsonl", *further) == CANNOT_GO_ON
    assert named in capsys.readouterr().err
