"""The loop beside TRL: what is read of TRL's output, and the line that a script reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chorus.benchmarks.peer import GOAL, last_line, read_result
from chorus.benchmarks.report import Row

TOLD = {"samples_per_s": 58.0, "steps": 10, "tokens": 25.0, "generating": 0.38, "trl": "1.16.0", "torch": "2.13.0"}


def log(**changed: Any) -> str:
    return f"Loading weights: 100%\n{{'loss': 0.1}}\nRESULT {json.dumps(TOLD | changed)}\nbye\n"


def test_the_result_is_found_among_all_that_trl_says() -> None:
    assert read_result(log()).samples_per_s == 58.0
    assert read_result(log() + log(samples_per_s=60.0)).samples_per_s == 60.0, "the newest one"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("Traceback: no module named trl", "without a result.*no module named trl"),
        (log(steps=0), "measured no step"),
        (log(samples_per_s=float("nan")), "measured no step"),
        (log(more=1), "another result"),
    ],
)
def test_an_output_without_a_measurement_is_no_result(said: str, why: str) -> None:
    with pytest.raises(RuntimeError, match=why):
        read_result(said)


def test_the_last_line_is_the_ratio_pair_by_pair_and_its_range() -> None:
    row = Row("loop / TRL", "samples/s", [90.0, 60.0, 87.0], [60.0, 50.0, 58.0], GOAL)
    assert row.ratio
    assert last_line(row.ratio) == "loop / TRL: 1.50 (1.20 .. 1.50)"
    assert row.verdict == "met"
