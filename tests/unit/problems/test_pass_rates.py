"""Files of pass rates: what was written is read, and what is wrong is named with its line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chorus.problems.pass_rates import Measured, read_measured

LINE = {"id": "math/7", "model": "small", "hint_ratio": 0.5, "samples": 8, "correct": 3}


def test_a_line_is_read_as_it_was_written(tmp_path: Path):
    measured = Measured.model_validate(LINE)
    assert json.loads(measured.line) == LINE
    (tmp_path / "rates.jsonl").write_text(measured.line + "\n" + measured.line)
    assert read_measured(tmp_path / "rates.jsonl") == [measured, measured]


def test_without_a_hint_ratio_there_was_no_hint_and_other_keys_are_passed_over(tmp_path: Path):
    (tmp_path / "rates.jsonl").write_text('{"id": "a", "model": "m", "samples": 1, "correct": 1, "note": "x"}')
    assert read_measured(tmp_path / "rates.jsonl")[0].hint_ratio == 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"correct": 9}, r"rates\.jsonl:2: .*9 correct of 8 samples"),
        ({"correct": -1}, r"rates\.jsonl:2: correct: "),
        ({"samples": 0, "correct": 0}, r"rates\.jsonl:2: samples: "),
        ({"hint_ratio": 1}, r"rates\.jsonl:2: hint_ratio: "),
        ({"id": 7}, r"rates\.jsonl:2: id: "),
    ],
)
def test_a_line_that_is_no_pass_rate_is_refused_with_its_place(tmp_path: Path, change: dict[str, object], named: str):
    (tmp_path / "rates.jsonl").write_text(f"{json.dumps(LINE)}\n{json.dumps(LINE | change)}\n")
    with pytest.raises(ValueError, match=named):
        read_measured(tmp_path / "rates.jsonl")


def test_a_torn_line_and_a_missing_file_are_refused(tmp_path: Path):
    (tmp_path / "rates.jsonl").write_text('{"id": "a", ')
    with pytest.raises(ValueError, match=r"rates\.jsonl:1: "):
        read_measured(tmp_path / "rates.jsonl")
    with pytest.raises(ValueError, match=r"nowhere\.jsonl: can't be read"):
        read_measured(tmp_path / "nowhere.jsonl")
