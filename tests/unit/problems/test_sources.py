"""Files of problems: what is read, and where the error points when a row cannot be a problem."""

import gzip
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from problems.sources import load_problems


def write(path: Path, *rows: Any) -> str:
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", ["set.jsonl", "set.jsonl.gz"])
def test_rows_become_problems_in_order(tmp_path: Path, name: str):
    full = {
        "id": "math/1",
        "problem": "Find $x$.",
        "answer": "é",
        "solution": "so",
        "level": 5,
        "subject": "Algebra",
        "source": "MATH",
        "extra": 1,
    }
    spec = write(tmp_path / name, full, "", {"problem": "2?", "answer": 2}, {"problem": "3?", "answers": ["3", "4"]})
    first, second, third = load_problems(spec)
    assert first.model_dump() == {
        "id": "math/1",
        "problem": "Find $x$.",
        "answers": ["é"],
        "solution": "so",
        "kind": "math",
        "level": 5,
        "domain": "Algebra",
        "source": "MATH",
    }
    assert (second.id, second.answers) == ("set/1", ["2"])
    assert (third.id, third.answers) == ("set/2", ["3", "4"])


def test_all_accepted_answers_win_over_the_first_one(tmp_path: Path):
    spec = write(tmp_path / "set.jsonl", {"problem": "p", "answer": "1", "answers": ["1", "1.0"]})
    assert load_problems(spec)[0].answers == ["1", "1.0"]


GOOD = {"problem": "p", "answer": "1"}


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"problem": "p"}, r"set\.jsonl:2: the row has no answer; give `answer` or `answers`"),
        ({"problem": "p", "answer": " "}, r"set\.jsonl:2: the row has no answer"),
        ({"problem": "p", "answers": []}, r"set\.jsonl:2: the row has no answer"),
        ({"problem": "p", "answers": ["1", None]}, r"set\.jsonl:2: the row has no answer"),
        ({"answer": "1"}, r"set\.jsonl:2: the row has no problem"),
        ({"problem": "p", "answer": "1", "level": "hard"}, r"set\.jsonl:2: level: "),
        ({"problem": "p", "answer": "1", "kind": "essay"}, r"set\.jsonl:2: kind: "),
        ('{"problem": ', r"set\.jsonl:2: not valid JSON"),
        ("[1]", r"set\.jsonl:2: a row must be an object"),
    ],
)
def test_a_bad_row_is_refused_with_its_file_and_line(tmp_path: Path, row: Any, named: str):
    with pytest.raises(ValueError, match=named):
        load_problems(write(tmp_path / "set.jsonl", GOOD, row))


def test_an_id_that_occurs_twice_is_refused_with_both_places(tmp_path: Path):
    spec = write(tmp_path / "set.jsonl", GOOD | {"id": "a"}, GOOD | {"id": "b"}, GOOD | {"id": "a"})
    with pytest.raises(ValueError, match=r"set\.jsonl:3: id 'a' is also at .*set\.jsonl:1"):
        load_problems(spec)


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("nowhere.jsonl", "no such file"),
        ("nowhere.parquet", "no such file"),
        ("problems.csv", "unknown kind of source"),
    ],
)
def test_a_source_that_cannot_be_used_is_refused(spec: str, named: str):
    with pytest.raises(ValueError, match=named):
        load_problems(spec)


def test_an_empty_file_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="the source is empty"):
        load_problems(write(tmp_path / "set.jsonl"))


@pytest.mark.skipif(importlib.util.find_spec("datasets") is not None, reason="datasets is installed")
def test_the_hub_without_datasets_says_what_to_install():
    with pytest.raises(ImportError, match="pip install datasets"):
        load_problems("hub:some/name:test")


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is not None, reason="pyarrow is installed")
def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path):
    (tmp_path / "set.parquet").write_bytes(b"PAR1")
    with pytest.raises(ImportError, match="pip install pyarrow"):
        load_problems(str(tmp_path / "set.parquet"))


def test_arithmetic_is_a_source():
    assert load_problems("arithmetic:one-digit?split=heldout")[0].domain == "arithmetic"
