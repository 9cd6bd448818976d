"""Files of pass rates: lines add up, and what can't be used is refused with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chorus.learner.curriculum.sampler import PassRates
from chorus.protocol.config.curriculum import PassRate
from chorus.protocol.runtime.exits import CannotGoOn


def line(id: str, samples: int, correct: int, model: str = "m", hint_ratio: float = 0.0) -> dict[str, Any]:
    return {"id": id, "model": model, "hint_ratio": hint_ratio, "samples": samples, "correct": correct}


def rates(folder: Path, *lines: dict[str, Any] | str) -> PassRates:
    path = folder / "rates.jsonl"
    path.write_text("".join((text if isinstance(text, str) else json.dumps(text)) + "\n" for text in lines))
    return PassRates([str(path)])


def test_samples_of_one_problem_add_up_over_lines_and_files(tmp_path: Path) -> None:
    path = tmp_path / "more.jsonl"
    path.write_text(json.dumps(line("a", 4, 0)) + "\n\n")
    found = rates(tmp_path, line("a", 8, 3), line("b", 16, 0))
    both = PassRates([str(tmp_path / "rates.jsonl"), str(path)])
    assert found.rates(PassRate(), 0.0) == {"a": 3 / 8, "b": 0.0}
    assert both.rates(PassRate(), 0.0)["a"] == 3 / 12


def test_a_stage_reads_what_was_measured_with_its_own_hint_unless_it_says_otherwise(tmp_path: Path) -> None:
    found = rates(tmp_path, line("a", 8, 1), line("a", 8, 7, hint_ratio=0.5))
    assert found.rates(PassRate(), 0.5) == {"a": 7 / 8}
    assert found.rates(PassRate(hint_ratio=0.0), 0.5) == {"a": 1 / 8}


def test_several_models_want_a_name(tmp_path: Path) -> None:
    found = rates(tmp_path, line("a", 8, 1), line("a", 8, 7, model="big"))
    assert found.rates(PassRate(model="big"), 0.0) == {"a": 7 / 8}
    with pytest.raises(CannotGoOn, match=r"one model at hint ratio 0 is asked for, .*'big' at hint ratio 0, 'm' at"):
        found.rates(PassRate(), 0.0)
    with pytest.raises(CannotGoOn, match=r"model 'huge' at hint ratio 0 is asked for.*set the stage's pass_rate.model"):
        found.rates(PassRate(model="huge"), 0.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", r"rates.jsonl:2: the line: Invalid JSON.*mend this line"),
        ("[]", r"rates.jsonl:2: the line: "),
        ('{"id": "a", "model": "m", "samples": 0, "correct": 0}', r"rates.jsonl:2: samples: "),
        ('{"id": "a", "model": "m", "samples": 8, "correct": 9}', r"rates.jsonl:2: .*9 correct of 8 samples"),
    ],
)
def test_a_line_that_can_not_be_used_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(CannotGoOn, match=said):
        rates(tmp_path, line("a", 8, 1), text)


def test_a_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(CannotGoOn, match=r"nowhere.jsonl: can't be read"):
        PassRates(["nowhere.jsonl"])
