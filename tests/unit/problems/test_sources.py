"""Files of problems: what is read, and where the error points when a row cannot be a problem."""

import gzip
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from forge import inputs
from hypothesis import given
from hypothesis import strategies as st

from chorus.problems.sources import load_placed, load_problems


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
        "tests": None,
        "solution": "so",
        "kind": "math",
        "level": 5,
        "domain": "Algebra",
        "source": "MATH",
        "row": None,
        "sub_answers": None,
    }
    assert (second.problem, second.answers) == ("2?", ["2"])
    assert (third.problem, third.answers) == ("3?", ["3", "4"])


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


@pytest.mark.parametrize("name", ["set.jsonl", "set.jsonl.gz"])
def test_a_byte_order_mark_is_passed_over_at_the_head_and_where_files_were_put_together(tmp_path: Path, name: str):
    spec = write(
        tmp_path / name,
        "\ufeff" + json.dumps(GOOD),
        "\ufeff",
        "\ufeff" + json.dumps({"problem": "\ufeffq", "answer": 2}),
    )
    assert [problem.problem for problem in load_problems(spec)] == [GOOD["problem"], "\ufeffq"]


def test_a_file_in_another_encoding_is_refused_with_the_mend(tmp_path: Path):
    (tmp_path / "set.jsonl").write_text(json.dumps(GOOD) + "\n", encoding="utf-16")
    with pytest.raises(ValueError, match=r"set\.jsonl: can't be read after line 0 .*; save the file as UTF-8"):
        load_problems(str(tmp_path / "set.jsonl"))


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (r'{"problem": "1 \ud83d", "answer": "1"}', r"problem holds \\ud83d, half of a surrogate pair"),
        (r'{"problem": "p", "answer": "\udc00"}', r"answers holds \\udc00"),
        (r'{"problem": "p", "answers": ["1", "\ud83d!"]}', r"answers holds"),
        (r'{"problem": "p", "answer": "1", "solution": "\ude00\ud83d"}', r"solution holds \\ude00"),
        (r'{"problem": "p", "answer": "1", "id": "\ud83d"}', r"id holds"),
        (r'{"problem": "p", "answer": "1", "subject": "\ud83d"}', r"domain holds"),
        (r'{"problem": "p", "kind": "code", "tests": [{"input": "\ud83d", "output": "1"}]}', r"tests holds"),
        (r'{"problem": "p", "kind": "code", "tests": "[{\"input\": \"\\ud83d\", \"output\": \"1\"}]"}', r"tests holds"),
    ],
)
def test_half_of_a_surrogate_pair_is_refused_with_its_file_and_line(tmp_path: Path, row: str, named: str):
    with pytest.raises(
        ValueError, match=rf"set\.jsonl:2: {named}.*; write the whole character, or remove the row"
    ) as error:
        load_problems(write(tmp_path / "set.jsonl", GOOD, row))
    str(error.value).encode()  # can be printed


def test_a_whole_pair_and_half_of_one_in_a_column_that_is_not_used_are_no_harm(tmp_path: Path):
    row = r'{"problem": "\ud83d\ude00", "answer": "1", "note": "\ud83d"}'
    assert load_problems(write(tmp_path / "set.jsonl", row))[0].problem == "😀"


def test_an_id_that_occurs_twice_is_refused_with_both_places(tmp_path: Path):
    spec = write(tmp_path / "set.jsonl", GOOD | {"id": "a"}, GOOD | {"id": "b"}, GOOD | {"id": "a"})
    with pytest.raises(ValueError, match=r"set\.jsonl:3: id 'a' is also at .*set\.jsonl:1"):
        load_problems(spec)


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("nowhere.jsonl", "no such file"),
        ("nowhere.parquet", "no such file"),
        ("problems.xlsx", "unknown kind of source"),
    ],
)
def test_a_source_that_cannot_be_used_is_refused(spec: str, named: str):
    with pytest.raises(ValueError, match=named):
        load_problems(spec)


def test_an_empty_file_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="the source is empty"):
        load_problems(write(tmp_path / "set.jsonl"))


def test_the_hub_without_datasets_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match="pip install datasets"):
        load_problems("hub:some/name:test")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "set.parquet").write_bytes(b"PAR1")
    with pytest.raises(ImportError, match="pip install pyarrow"):
        load_problems(str(tmp_path / "set.parquet"))


def parquet(path: Path, *rows: dict[str, Any]) -> str:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    return str(path)


def test_rows_of_parquet_become_problems(tmp_path: Path):
    rows = [{"id": "a", "problem": "1?", "answers": ["1", "1.0"], "level": 3, "url": "x"}, {"id": "b", "problem": "2?"}]
    rows[1]["answers"] = ["2"]
    first, second = load_problems(parquet(tmp_path / "set.parquet", *rows))
    assert (first.id, first.answers, first.level) == ("a", ["1", "1.0"], 3)
    assert (second.id, second.answers, second.level) == ("b", ["2"], None)


def test_a_row_of_parquet_is_refused_with_its_number(tmp_path: Path):
    spec = parquet(tmp_path / "set.parquet", GOOD, GOOD | {"answer": None})
    with pytest.raises(ValueError, match=r"set\.parquet:row 2: the row has no answer"):
        load_problems(spec)


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path):
    (tmp_path / "set.parquet").write_bytes(b"PAR1 and then something else")
    with pytest.raises(ValueError, match=r"set\.parquet: can't be read as parquet after row 0"):
        load_problems(str(tmp_path / "set.parquet"))


class ScriptedHub:
    """Stands for `datasets`; tests/unit/problems/test_hub.py has the real one."""

    def __init__(self, *rows: dict[str, Any]) -> None:
        self.rows = rows
        self.asked: list[tuple[Any, ...]] = []

    def load_dataset(self, name: str, config: str | None, *, split: str, revision: str | None) -> Any:
        self.asked.append((name, config, split, revision))
        if name == "unknown":
            raise RuntimeError("no such data set\nand much more")
        return self.rows


def test_a_data_set_of_the_hub_is_asked_for_by_name_split_config_and_revision(monkeypatch: pytest.MonkeyPatch):
    hub = ScriptedHub({"question": "1 + 1?", "final": "2"})
    monkeypatch.setitem(sys.modules, "datasets", hub)
    [problem] = load_problems("hub:some/set:test?config=main&revision=abc&problem=question&answer=final")
    assert problem.id.startswith("hub:some/set:test#")
    assert (problem.problem, problem.answers) == ("1 + 1?", ["2"])
    assert hub.asked == [("some/set", "main", "test", "abc")]
    load_problems("hub:some/set?problem=question&answer=final")
    assert hub.asked[1] == ("some/set", None, "train", None)


def test_a_hub_that_fails_is_one_line_with_the_mend(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "datasets", ScriptedHub())
    with pytest.raises(
        ValueError, match=r"can't load it \(RuntimeError: no such data set\); is the name right"
    ) as caught:
        load_problems("hub:unknown")
    assert "\n" not in str(caught.value)


def test_a_row_of_the_hub_is_refused_with_its_number(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "datasets", ScriptedHub(GOOD, {"problem": "p"}))
    with pytest.raises(ValueError, match=r"hub:some/set:test row 2: the row has no answer"):
        load_problems("hub:some/set:test")


def test_columns_of_other_names_are_named_in_the_spec(tmp_path: Path):
    row = {"question": "1 + 1?", "final answer": 2, "answers": ["not meant"], "key": 0}
    spec = write(tmp_path / "set.jsonl", row) + "?problem=question&answer=final+answer&id=key"
    [placed] = load_placed(spec)
    assert (placed.problem.id, placed.problem.problem, placed.problem.answers) == ("0", "1 + 1?", ["2"])
    assert placed.row == row
    assert placed.where == f"{tmp_path}/set.jsonl:1"


@pytest.mark.parametrize(
    ("query", "named"),
    [
        (
            "?problem=question",
            r"set\.jsonl:1: there is no column 'question', which the spec names; the row has",
        ),
        ("?question=problem", r"question is not understood after the '\?'; use one of problem, answer"),
        ("?config=main", r"config is not understood"),
    ],
)
def test_a_column_that_is_not_there_and_an_option_that_is_none_are_refused(tmp_path: Path, query: str, named: str):
    spec = write(tmp_path / "set.jsonl", GOOD) + query
    with pytest.raises(ValueError, match=named):
        load_problems(spec)


def test_arithmetic_is_a_source():
    assert load_problems("arithmetic:one-digit?split=heldout")[0].domain == "arithmetic"


GIVEN = [0, 7, -1, 0.5, True, None, "", "7", r"\boxed{7}", "#### 7", "A", "\0", "$7$", "[1, 2]", "['7']", " 7 "]
VALUES = st.recursive(
    st.sampled_from(GIVEN),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["text", "a"]), inner)),
    max_leaves=3,
)
COLUMNS = [
    "answer",
    "answers",
    "kind",
    "id",
    "tests",
    "choices",
    "options",
    "level",
    "answerKey",
    "reward_model",
    "gold",
]
ROWS = st.builds(
    lambda problem, rest: rest | {"problem": problem},
    st.sampled_from(["x", "Why?"]),
    st.dictionaries(st.sampled_from(COLUMNS), VALUES, max_size=4),
)
SPECS = ["", "?kind=choice", "?kind=text", "?kind=code", "?answer=gold", "?preset=gsm8k", "?preset=mmlu", "?preset=arc"]


@inputs(200)
@given(st.lists(ROWS, min_size=1, max_size=3), st.sampled_from(SPECS))
def test_whatever_rows_hold_they_are_problems_or_refused(tmp_path: Path, rows: list[dict[str, Any]], spec: str):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with suppress(ValueError):
        assert all(problem.problem for problem in load_problems(f"{path}{spec}"))


def test_an_empty_column_of_answers_leaves_the_list_beside_it_a_list(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"problem": "x", "answers": "", "answer": ["1", "2"]}))
    with pytest.raises(ValueError, match="is a list: is each right, are all needed, or only the first"):
        load_problems(str(path))
