"""JSON that Python does not read is refused with its place; bytes are the text that they spell."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from chorus.problems.sources import Refused, load_problems

GOOD = '{"problem": "What is 1 + 1?", "answer": "2"}'


@pytest.mark.parametrize("depth", [950, 990, 100_000])
@pytest.mark.parametrize("name", ["set.jsonl", "set.json"])
def test_what_is_nested_too_deeply_is_refused_or_left_out(tmp_path: Path, name: str, depth: int) -> None:
    row = '{"problem": "p", "answer": ' + "[" * depth + "]" * depth + "}"
    (tmp_path / name).write_text(f"{GOOD}\n{row}\n" if name.endswith("l") else f"[{GOOD}, {row}]")
    with pytest.raises(ValueError, match=rf"problems .*{name}\b.*(nested too deeply|rows can't be used)") as error:
        load_problems(str(tmp_path / name))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["set.jsonl", "set.json"])
def test_a_number_of_thousands_of_digits_is_refused_with_its_place(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"problem": "p", "answer": ' + "9" * 5000 + "}\n")
    with pytest.raises(ValueError, match=rf"{name}(:1)?: a number of thousands of digits .*; write it as a text"):
        load_problems(str(tmp_path / name))
    (tmp_path / name).write_text('{"problem": "p", "answer": ' + json.dumps("9" * 5000) + "}\n")
    assert load_problems(str(tmp_path / name))[0].answers == ["9" * 5000]


def test_bytes_of_parquet_are_the_text_that_they_spell(tmp_path: Path) -> None:
    columns = {"problem": ["Größe?".encode()], "answers": [[b"7", b"8"]], "info": [{"level": b"3"}], "raw": [b"\xff"]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "set.parquet")
    [problem] = load_problems(f"{tmp_path}/set.parquet?level=info.level")
    assert (problem.problem, problem.answers, problem.level) == ("Größe?", ["7", "8"], 3)
    with pytest.raises(Refused, match="bytes that are no text"):
        load_problems(f"{tmp_path}/set.parquet?answer=raw")
