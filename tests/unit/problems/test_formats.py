"""The same rows in every format and layout are the same problems."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from chorus.problems.sources import load_placed, load_problems

ROWS = [
    {"question": 'Is "2, 3"\na list?', "reward": {"gold": "1"}, "level": "Level 2"},
    {"question": "é + ü?", "reward": {"gold": "2"}, "level": "Level 3"},
]
OPTIONS = "?problem=question&answer=reward.gold"
SEEN = [('Is "2, 3"\na list?', ["1"], 2), ("é + ü?", ["2"], 3)]


def as_jsonl(path: Path, rows: list[Any] = ROWS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def as_csv(path: Path, delimiter: str = ",") -> None:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(ROWS[0])
        writer.writerows([row["question"], json.dumps(row["reward"]), row["level"]] for row in ROWS)


def as_parquet(path: Path, rows: list[Any] = ROWS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def as_arrow(path: Path, rows: list[Any] = ROWS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.Table.from_pylist(rows)
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def as_feather(path: Path) -> None:
    table = pyarrow.Table.from_pylist(ROWS)
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


FILES = {
    "set.jsonl": as_jsonl,
    "set.ndjson": as_jsonl,
    "set.parquet": as_parquet,
    "set.arrow": as_arrow,
    "set.feather": as_feather,
    "set.csv": as_csv,
    "set.tsv": lambda path: as_csv(path, "\t"),
    "semicolons.csv": lambda path: as_csv(path, ";"),
    "tabs.csv": lambda path: as_csv(path, "\t"),
    "keyed.json": lambda path: path.write_text(json.dumps({f"p-{k}": row for k, row in enumerate(ROWS)})),
    "list.json": lambda path: path.write_text(json.dumps(ROWS, indent=1)),
    "lines.json": as_jsonl,
    "named.json": lambda path: path.write_text(json.dumps({"version": 1, "data": ROWS})),
    "marked.json": lambda path: path.write_text("\ufeff" + json.dumps(ROWS), encoding="utf-8"),
}


def seen(spec: str) -> list[tuple[str, list[str], int | None]]:
    return [(problem.problem, problem.answers, problem.level) for problem in load_problems(spec)]


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_problems(name: str, tmp_path: Path) -> None:
    FILES[name](tmp_path / name)
    assert seen(f"{tmp_path}/{name}{OPTIONS}") == SEEN
    if not name.endswith(("parquet", "arrow", "feather")):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
        assert seen(f"{tmp_path}/{name}.gz{OPTIONS}") == SEEN


def test_a_key_is_its_row_s_id_and_a_row_s_own_id_goes_before_it(tmp_path: Path) -> None:
    rows = {"x": {"problem": "1+1", "answer": "2"}, "y": {"problem": "1+2", "answer": "3"}}
    (tmp_path / "a.json").write_text(json.dumps(rows))
    assert [problem.id for problem in load_problems(f"{tmp_path}/a.json")] == ["x", "y"]
    (tmp_path / "b.json").write_text(json.dumps({key: row | {"id": key * 2} for key, row in rows.items()}))
    assert [problem.id for problem in load_problems(f"{tmp_path}/b.json")] == ["xx", "yy"]


def test_only_a_line_s_end_ends_a_record(tmp_path: Path) -> None:
    problem = "1\u2028+\x0c1\x85?"
    (tmp_path / "a.csv").write_text(f"problem,answer\n{problem},2\n", encoding="utf-8")
    assert [p.problem for p in load_problems(f"{tmp_path}/a.csv")] == [problem]


def test_one_object_is_one_row(tmp_path: Path) -> None:
    (tmp_path / "1.json").write_text(json.dumps(ROWS[0]))
    assert seen(f"{tmp_path}/1.json{OPTIONS}") == SEEN[:1]


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("a.csv", "problem,answer\n1,2,3\n", r"a\.csv:row 1: 3 fields where the header has 2; put texts"),
        ("a.csv", "problem,problem\n1,2\n", r"two columns have the same name"),
        ("a.csv", 'problem,answer\n"1,2\n', r"can't be read as CSV \(unexpected end of data\)"),
        ("a.json", '[{"problem": ', r"a\.json: not valid JSON: Expecting value \(line 1, column 14\)"),
        ("a.json", '{"problem": {"0": "p"}, "answer": {"0": "1"}}', r"holds columns \(problem, answer\), not rows"),
        ("a.json", '{"problem": ["p", "q"], "answer": ["1", "2"]}', r"holds columns \(problem, answer\), not rows"),
        ("a.json", '{"train": [{"problem": "p"}], "test": [{"problem": "p"}]}', r"several lists \(train, test\)"),
        ("a.json", "7", r"holds 7, where a list of rows was expected"),
        ("a.json", "[7]", r"a\.json:row 1: a row must be an object"),
        ("a.arrow", "no arrow", r"a\.arrow: can't be read as arrow after row 0"),
    ],
)
def test_a_file_that_is_broken_is_refused_with_its_place(name: str, text: str, named: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=named):
        load_problems(f"{tmp_path}/{name}")


def row(n: int) -> list[dict[str, str]]:
    return [{"problem": f"p{n}", "answer": str(n)}]


def answers(spec: str) -> list[str]:
    return [problem.answers[0] for problem in load_problems(spec)]


@pytest.fixture
def downloaded(tmp_path: Path) -> Path:
    """A set of two configurations, as the hub's client puts it into a folder."""
    folder = tmp_path / "set"
    for number, name in enumerate(
        ("main/train-00000-of-00002", "main/train-00001-of-00002", "main/test-00000-of-00001")
    ):
        as_parquet(folder / f"{name}.parquet", row(number))
    as_parquet(folder / "other" / "train-00000-of-00001.parquet", row(3))
    (folder / "README.md").write_text("a card")
    as_jsonl(folder / ".cache" / "train.jsonl", row(4))
    return folder


def test_a_downloaded_folder_is_read_by_configuration_and_split(downloaded: Path) -> None:
    assert answers(f"{downloaded}?config=main") == ["0", "1"]
    assert answers(f"{downloaded}?config=main&split=test") == ["2"]
    assert answers(f"{downloaded}?config=*") == ["0", "1", "3"]
    assert answers(f"{downloaded}?split=test") == ["2"]
    assert answers(f"{downloaded}/main/train-*.parquet") == ["0", "1"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("", r"it has several configurations; name one of main, other with `config=`, or all with `config=\*`"),
        ("?config=third", r"there is no configuration 'third'; name one of main, other"),
        ("?split=dev", r"no file of split 'dev'; it has test, train: name one with `split=`"),
        ("?config=main&splt=dev", r"splt is not understood after the '\?'; use one of .*split, config"),
    ],
)
def test_a_folder_where_it_is_not_clear_what_is_meant_is_refused(downloaded: Path, options: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        load_problems(f"{downloaded}{options}")


def test_a_folder_of_one_file_a_problem_is_read_in_order(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        path = tmp_path / "MATH" / "train" / "algebra" / f"{number}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(row(number)[0]))
    assert answers(f"{tmp_path}/MATH") == ["1", "2", "10"]


def test_a_folder_without_splits_is_one_set_and_the_same_rows_in_two_formats_are_refused(tmp_path: Path) -> None:
    as_jsonl(tmp_path / "set" / "problems.jsonl", row(1))
    assert answers(f"{tmp_path}/set") == ["1"]
    as_parquet(tmp_path / "set" / "problems.parquet", row(1))
    with pytest.raises(ValueError, match=r"of several kinds \(.jsonl, .parquet\); name one file"):
        load_problems(f"{tmp_path}/set")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no file of problems"):
        load_problems(f"{tmp_path}/empty")


def test_a_set_that_datasets_saved_is_read_without_it(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    for number, split in enumerate(("train", "test")):
        as_arrow(saved / split / "data-00000-of-00002.arrow", row(number))
        as_arrow(saved / split / "data-00001-of-00002.arrow", row(number + 2))
        as_arrow(saved / split / "cache-0f3a.arrow", row(9))
        files = [{"filename": f"data-0000{k}-of-00002.arrow"} for k in range(2)]
        (saved / split / "state.json").write_text(json.dumps({"_data_files": files, "_split": split}))
        (saved / split / "dataset_info.json").write_text("{}")
    assert answers(f"{saved}/test") == ["1", "3"]
    (saved / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    assert answers(str(saved)) == ["0", "2"]
    assert answers(f"{saved}?split=test") == ["1", "3"]
    assert answers(f"hub:{saved}:test") == ["1", "3"]
    with pytest.raises(ValueError, match=r"there is no split 'dev'; name one of train, test with `split=`"):
        load_problems(f"{saved}?split=dev")


def test_a_row_says_where_it_stands_in_every_format(tmp_path: Path) -> None:
    places = {
        "set.jsonl": ":2",
        "set.parquet": ":row 2",
        "set.arrow": ":row 2",
        "set.csv": ":row 2",
        "list.json": ":row 2",
    }
    for name, place in places.items():
        FILES[name](tmp_path / name)
        assert load_placed(f"{tmp_path}/{name}{OPTIONS}")[1].where == f"{tmp_path}/{name}{place}"


@pytest.mark.parametrize("name", ["set.jsonl", "set.json", "set.csv", "set.parquet", "set.arrow"])
def test_what_a_failed_download_leaves_is_called_by_its_name(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1234\n")
    with pytest.raises(ValueError, match=r"a pointer of Git LFS, and not the file: `git lfs pull` fetches it"):
        load_problems(str(file))
    file.write_text("\n<!DOCTYPE html>\n<html><body>404</body></html>\n")
    with pytest.raises(ValueError, match=r"a web page, and not the file: download it anew"):
        load_problems(str(file))
