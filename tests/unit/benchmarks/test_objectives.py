"""The objectives' row: what is no number fails it, whatever the reward did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chorus.benchmarks import objectives
from chorus.benchmarks.bench import Bench
from chorus.benchmarks.report import Row
from chorus.protocol.run_folder.folder import RunFolder

NAN = float("nan")


def row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **of_the_third: Any) -> Row:
    """Of a run that was recorded already, whose reward rises."""
    for step in range(1, 11):
        record = {
            "step": step, "reward": 1.0 + step / 10, "accuracy": 0.5, "entropy": 0.4, "seconds": 1.0, "alarms": [],
            "updates_skipped": 0, "by_template": {"boxed": {"entropy": 0.3}},
        }  # fmt: skip
        RunFolder(tmp_path).append_record(record | (of_the_third if step == 3 else {}))
    monkeypatch.setattr(objectives, "chorus_run", lambda *_: tmp_path)
    bench = Bench(
        folder=tmp_path, cache=tmp_path, repeats=1, steps=10, staleness=1, quick=False, say=lambda _: None,
        objectives=("gmpo",),
    )  # fmt: skip
    (made,) = objectives.measure(bench)
    return made


def test_a_rising_reward_meets_the_goal_and_an_alarm_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = row(tmp_path, monkeypatch, alarms=["entropy fell"])
    assert made.verdict == "met"
    assert made.note.endswith("; entropy fell")


@pytest.mark.parametrize(
    ("figures", "named"),
    [
        ({"loss": NAN}, "loss"),
        ({"by_template": {"boxed": {"entropy": NAN}}}, "by_template.boxed.entropy"),
        ({"by_staleness": {"4+": {"w_max": float("inf")}}}, "by_staleness.4+.w_max"),
        ({"reward": NAN}, "reward"),
        ({"updates_skipped": 1}, "updates_skipped"),
    ],
)
def test_a_figure_that_is_no_number_fails_the_row_wherever_it_stands(
    figures: dict[str, Any], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = row(tmp_path, monkeypatch, **figures)
    assert made.verdict == "not met"
    assert made.note.endswith(f"; {named}")


def test_a_record_of_a_run_that_wrote_nan_itself_is_read_too() -> None:
    record = json.loads('{"updates_skipped": 0, "by_template": {"boxed": {"entropy": NaN}}}')
    assert objectives.not_finite(record) == ["by_template.boxed.entropy"]
