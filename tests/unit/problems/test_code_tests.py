"""Tests of programs: what the reward server could not read is refused by row, plain forms of other sets are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorus.problems.adapters.code_tests import tests_of as read
from chorus.problems.sources import load_problems
from chorus.protocol.rewards.code_tests import MOST_TESTS
from chorus.reward_server.api.schemas import GradeRequest

PAIR = {"input": "1", "output": "2"}
CALL = {"function": "f", "args": [1], "expected": 2}
TEXTS = st.text(max_size=4) | st.integers() | st.floats(allow_nan=False, allow_infinity=False)


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5), st.booleans())
def test_pairs_are_read_from_every_form_as_the_reward_server_takes_them(
    pairs: list[tuple[Any, Any]], in_a_string: bool
) -> None:
    wanted = [{"input": as_text(a), "output": as_text(b)} for a, b in pairs]
    forms: list[Any] = [
        [{"input": a, "output": b} for a, b in pairs],
        [{"input": a, "output": b, "testtype": "stdin"} for a, b in pairs],
        {"inputs": [a for a, _ in pairs], "outputs": [b for _, b in pairs]},
        [{"input": a, "output": b, "function": None, "args": None, "expected": None} for a, b in pairs],  # Parquet
    ]
    for form in forms:
        found = read(json.dumps(form) if in_a_string else form)
        assert found == wanted
        GradeRequest.model_validate({"completion": "", "kind": "code", "tests": found})


def test_calls_stay_as_they_are_and_may_expect_nothing() -> None:
    tests = [CALL, CALL | {"expected": None}, PAIR | {"tolerance": 0.1}]
    assert read(tests) == tests


@pytest.mark.parametrize(
    ("tests", "said"),
    [
        ([PAIR, {"in": "1", "out": "2"}], 'tests: number 2 is {"in": "1", "out": "2"}; give a list of {"input"'),
        ([{"input": "1"}], 'tests: number 1 is {"input": "1"}; give a list of'),
        ([PAIR | {"fn_name": "f"}], "tests: number 1 is"),
        ([PAIR | {"testtype": "functional"}], "tests: number 1 is"),
        ([{"input": True, "output": "1"}], "tests: number 1 is"),
        ([{"input": ["1"], "output": "1"}], "tests: number 1 is"),
        ([CALL | {"args": 1}], "tests: number 1 is"),
        (["assert f() == 1"], 'tests: number 1 is "assert f() == 1"'),
        ({"inputs": ["1"], "outputs": []}, "tests: an object without as many `inputs` as `outputs`"),
        ({"inputs": [[1]], "outputs": [[2]], "fn_name": "f"}, "tests: calls of 'f'"),
        ({"input": "1", "output": "2"}, "tests: an object without as many"),
        ([PAIR] * (MOST_TESTS + 1), "at most 1000 items"),
        ("def check(c): pass", "tests: Expecting value"),
        ("[" * 100_000, "tests: "),
        (7, "tests: 7; give a list of"),
        ([], "kind 'code' is graded by tests; give `tests`"),
    ],
)
def test_any_other_form_is_refused_with_its_row_and_what_is_expected(tmp_path: Path, tests: Any, said: str) -> None:
    rows = [{"problem": "Add", "kind": "code", "tests": each} for each in ([PAIR], tests)]
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=r":2: ") as error:
        load_problems(str(tmp_path / "set.jsonl"))
    (line,) = str(error.value).splitlines()
    assert line.startswith(f"problems {tmp_path / 'set.jsonl'}:2: ")
    assert said in line
