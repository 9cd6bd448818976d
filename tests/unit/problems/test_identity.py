"""Which problems are one: by their content and their whole source, never by a file's name alone."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from chorus.problems.identity import gather
from chorus.problems.sources import load_problems


def write(path: Path, *rows: dict[str, Any]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def loaded(*specs: str) -> list[tuple[str, Any]]:
    return [(spec, load_problems(spec)) for spec in specs]


def sums(first: int, count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"problem": f"{k} + 1?", "answer": k + 1} | more for k in range(first, first + count)]


def test_two_files_of_one_name_without_ids_give_all_their_problems(tmp_path: Path) -> None:
    one = write(tmp_path / "a" / "train.jsonl", *sums(0, 40))
    other = write(tmp_path / "b" / "train.jsonl", *sums(40, 40))
    found = gather(loaded(one, other))
    assert [p.problem for p in found] == [f"{k} + 1?" for k in range(80)]
    assert len({p.id for p in found}) == 80


def test_an_id_says_where_a_row_was_read_and_stays_when_a_row_is_put_before_it(tmp_path: Path) -> None:
    spec = write(tmp_path / "train.jsonl", *sums(0, 2))
    before = {p.problem: p.id for p in load_problems(spec)}
    assert all(id.startswith(f"{spec}#") for id in before.values())
    write(tmp_path / "train.jsonl", *sums(9, 1), *sums(0, 2))
    assert before.items() <= {p.problem: p.id for p in load_problems(spec)}.items()


def test_equal_rows_are_one_problem_and_their_number_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = write(tmp_path / "train.jsonl", *sums(0, 3), *sums(0, 2))
    with caplog.at_level(logging.WARNING):
        assert [p.problem for p in load_problems(spec)] == ["0 + 1?", "1 + 1?", "2 + 1?"]
    assert f"{spec}: 2 of 5 rows repeat another one and are left out" in caplog.text


@pytest.mark.parametrize("difference", [{"answer": "-1"}, {"solution": "so"}, {"note": "for a grader"}])
def test_rows_that_differ_in_anything_are_two_problems(tmp_path: Path, difference: dict[str, Any]) -> None:
    [row] = sums(0, 1)
    assert len(load_problems(write(tmp_path / "train.jsonl", row, row | difference))) == 2


def numbered(first: int) -> list[dict[str, Any]]:
    return [row | {"id": k} for k, row in enumerate(sums(first, 3))]


def test_ids_that_two_sources_give_to_different_problems_name_the_later_ones_by_their_source(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = write(tmp_path / "a.jsonl", *numbered(0)), write(tmp_path / "b.jsonl", *numbered(3))
    with caplog.at_level(logging.WARNING):
        found = gather(loaded(one, other))
    assert [(p.id, p.problem) for p in found] == [
        *((str(k), f"{k} + 1?") for k in range(3)),
        *((f"{other}:{k}", f"{k + 3} + 1?") for k in range(3)),
    ]
    assert f"{other}: 3 of its ids name other problems in an earlier source" in caplog.text


def test_such_ids_are_refused_where_pass_rates_go_by_them(tmp_path: Path) -> None:
    one, other = write(tmp_path / "a.jsonl", *numbered(0)), write(tmp_path / "b.jsonl", *numbered(3))
    with pytest.raises(ValueError, match=r"b\.jsonl: id '0' names another problem in an earlier source.*unique"):
        gather(loaded(one, other), by_id=True)


def test_one_problem_in_two_sources_under_one_id_is_merged_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = write(tmp_path / "a.jsonl", *numbered(0))
    with caplog.at_level(logging.WARNING):
        assert len(gather(loaded(one, one))) == 3
        assert len(gather(loaded("arithmetic:one-digit", "arithmetic:one-digit?max=5"))) == len(
            load_problems("arithmetic:one-digit")
        )
    assert f"{one}: 3 of its problems stand in an earlier source too and are left out" in caplog.text
