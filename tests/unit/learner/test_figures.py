"""metrics.jsonl is JSON whatever a step measured."""

from __future__ import annotations

import json
from pathlib import Path

from chorus.protocol.run_folder.folder import RunFolder

RECORD = {
    "step": 1,
    "loss": float("nan"),
    "entropy": 0.5,
    "by_template": {"boxed": {"entropy": float("-inf"), "samples": 2}},
    "accuracy_histogram": [1, float("inf")],
}


def _refuse(word: str) -> None:
    raise AssertionError(f"{word} is not JSON")


def test_a_figure_that_is_no_number_is_written_as_null_and_named(tmp_path: Path) -> None:
    RunFolder(tmp_path).append_record(RECORD)
    written = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=_refuse)
    assert written == {
        "step": 1,
        "loss": None,
        "entropy": 0.5,
        "by_template": {"boxed": {"entropy": None, "samples": 2}},
        "accuracy_histogram": [1, None],
        "not_finite": ["loss", "by_template.boxed.entropy", "accuracy_histogram.1"],
    }


def test_a_record_of_numbers_is_written_as_it_is_and_survives_a_rewind(tmp_path: Path) -> None:
    for step in (1, 2):
        RunFolder(tmp_path).append_record({"step": step, "loss": 0.25})
    RunFolder(tmp_path).rewind_records(1)
    assert RunFolder(tmp_path).records() == [{"step": 1, "loss": 0.25}]
