"""`chorus data` with CrossThink's filters, open questions and shuffled options: what is shown, and what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chorus.cli.main import main
from chorus.problems.sources import load_problems
from chorus.protocol.runtime.exits import CANNOT_GO_ON

ROWS: list[dict[str, Any]] = [
    {"id": "open", "question": "How many legs has a spider?", "options": ["6", "8", "10"], "answer": "B"},
    {"id": "words", "question": "Which gas do plants take up?", "options": ["oxygen", "carbon dioxide"], "answer": "B"},
    {"id": "refers", "question": "Which of these is a prime?", "options": ["4", "7"], "answer": "B"},
    {"id": "none", "question": "How much is it?", "options": ["1", "2"], "answer": "3 of them"},
    {"id": "empty", "question": "How much is it then?", "options": ["1", "2"], "answer": ""},
]


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return f"{path}?problem=question&choices=options"


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["data", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_filter_tells_how_many_it_left_out(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    facts = told(capsys, source, "--filter", "all")
    assert facts["filtered"] == {"gold-in-options": 1, "needs-options": 1, "short-answer": 0, "answered": 1}
    assert facts["left"] == 2
    assert main(["data", source, "--filter", "all"]) == 0
    assert "        1  left out by needs-options" in capsys.readouterr().out


def test_without_filters_a_source_of_which_much_can_not_be_used_is_refused(source: str) -> None:
    assert main(["data", source]) == CANNOT_GO_ON


def test_open_questions_are_written_so_that_a_recipe_reads_them(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "open.jsonl"
    facts = told(capsys, source, "--filter", "gold-in-options", "answered", "--open", "--write", str(out))
    assert (facts["left"], facts["opened"]) == (3, 2)
    read = {p.id: p for p in load_problems(str(out))}
    assert (read["open"].kind, read["open"].answers, read["open"].problem) == ("math", ["8"], ROWS[0]["question"])
    assert (read["words"].kind, read["words"].answers) == ("text", ["carbon dioxide"])
    assert (read["refers"].kind, read["refers"].answers) == ("choice", ["B"]), "it stays a choice"
    assert "(A) 4\n(B) 7" in read["refers"].problem


def test_shuffled_options_are_written_with_their_permutation(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outs = [tmp_path / f"{name}.jsonl" for name in ("one", "two", "one_again")]
    for seed, out in zip((1, 2, 1), outs, strict=True):
        told(capsys, source, "--filter", "all", "--shuffle", str(seed), "--write", str(out))
    assert outs[0].read_bytes() == outs[2].read_bytes() != outs[1].read_bytes()
    row = json.loads(outs[0].read_text().splitlines()[0])
    options = ROWS[0]["options"]
    assert row["problem"].split("\n\n")[1] == "\n".join(
        f"({'ABC'[k]}) {options[at]}" for k, at in enumerate(row["permutation"])
    )
    assert options[row["permutation"]["ABC".index(row["answers"][0])]] == "8"
    assert load_problems(str(outs[0]))[0].answers == row["answers"]


@pytest.mark.parametrize(
    ("further", "said"),
    [
        (["--filter", "long"], "--filter long: there is no such filter; give gold-in-options, needs-options"),
        (["--filter", "all", "--write", "x.csv"], "--write x.csv: give a name that ends in .jsonl"),
        (["--write", "set.jsonl"], "--write set.jsonl: it is there already, and is not written over; give another"),
    ],
)
def test_what_can_not_be_done_is_one_line(
    source: str,
    further: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = (tmp_path / "set.jsonl").read_bytes()
    assert main(["data", source, *further]) == CANNOT_GO_ON
    assert said in capsys.readouterr().err
    assert (tmp_path / "set.jsonl").read_bytes() == before
