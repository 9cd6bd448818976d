"""What a person sees of a run, and the picture that it leaves."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from chorus.deploy.curves import draw_learning_curves
from chorus.deploy.progress import Progress, clock, sparkline, step_line, who_waits
from chorus.protocol.run_folder.folder import RunFolder

SUMMARY = {
    "steps": 3,
    "wall_seconds": 83.0,
    "accuracy": {"before": 0.331, "after": 0.712, "problems": 400},
    "greedy": {"before": 0.84, "after": 0.91},
    "format": {"before": 0.7, "after": 0.99},
    "staleness": {"target": 1, "mean": 0.9, "max": 2},
    "weights": {"syncs": 4, "logprob_gap_mean": 2.5e-6},
}


def record(step: int, **more: Any) -> dict[str, Any]:
    return {
        "step": step,
        "steps": 60,
        "reward": 0.4 + step / 10,
        "accuracy": 0.3 + step / 10,
        "format": 0.9,
        "entropy": 0.2,
        "staleness_mean": 1.0,
        "staleness_max": 2,
        "tokens_per_second": 3214.4,
        "learner_wait_ratio": 0.1,
        "generator_wait_ratio": 0.4,
        "seconds": 1.5,
        "response_tokens_mean": 26.0,
        "by_template": {"deepseek-r1": {"accuracy": 0.5, "format": 0.9}},
    } | more


def append(run_dir: Path, *records: dict[str, Any]) -> None:
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(each) + "\n" for each in records)


@pytest.fixture
def screen() -> io.StringIO:
    return io.StringIO()


def progress_on(screen: io.StringIO, run_dir: Path, terminal: bool = False) -> Progress:
    return Progress(RunFolder(run_dir), Console(file=screen, force_terminal=terminal, width=120, highlight=False))


def test_without_a_terminal_each_step_is_one_plain_line(tmp_path: Path, screen: io.StringIO) -> None:
    with progress_on(screen, tmp_path) as progress:
        progress.update()
        append(tmp_path, record(1))
        progress.update()
        progress.update()
        append(tmp_path, record(2), record(3))
        progress.update()
    lines = screen.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["1/60", "2/60", "3/60"]
    assert "\x1b" not in screen.getvalue()


def test_steps_that_a_crash_undid_are_shown_again(tmp_path: Path, screen: io.StringIO) -> None:
    with progress_on(screen, tmp_path) as progress:
        append(tmp_path, record(1), record(2), record(3))
        progress.update()
        rewound = tmp_path / "rewound"
        rewound.write_text(json.dumps(record(1)) + "\n" + json.dumps(record(2, accuracy=0.123)) + "\n")
        rewound.rename(tmp_path / "metrics.jsonl")
        progress.update()
    assert screen.getvalue().count("step 2/60") == 2
    assert "accuracy 0.123" in screen.getvalue()


def test_a_line_that_is_being_written_is_left_for_later(tmp_path: Path, screen: io.StringIO) -> None:
    line = json.dumps(record(1))
    with progress_on(screen, tmp_path) as progress:
        (tmp_path / "metrics.jsonl").write_text(line[:30])
        progress.update()
        assert screen.getvalue() == ""
        (tmp_path / "metrics.jsonl").write_text(line + "\n")
        progress.update()
    assert "step 1/60" in screen.getvalue()


def test_in_a_terminal_the_figures_are_live(tmp_path: Path, screen: io.StringIO) -> None:
    (tmp_path / "status.json").write_text(json.dumps({"phase": "evaluating", "detail": "before"}))
    with progress_on(screen, tmp_path, terminal=True) as progress:
        progress.update()
        assert "evaluating" in screen.getvalue()
        append(tmp_path, record(1), record(2))
        progress.update()
        for text in ("accuracy", "reward", "format", "entropy", "staleness", "3,214", "deepseek-r1", "▁█"):
            assert text in screen.getvalue()
        progress.note("gen-0 was killed by signal 9")
    assert "gen-0 was killed by signal 9" in screen.getvalue()


def test_figures_that_are_not_known_yet_are_dashes() -> None:
    line = step_line({"step": 1, "steps": 2, "accuracy": None})
    assert "accuracy -" in line
    assert "reward -" in line


@pytest.mark.parametrize(
    ("learner", "generator", "words"),
    [
        (0.5, 0.1, "the generators set the pace"),
        (0.0, 0.4, "the learner set the pace"),
        (0.2, 0.25, "balanced"),
    ],
)
def test_it_says_who_waits_for_whom(learner: float, generator: float, words: str) -> None:
    assert who_waits(record(1, learner_wait_ratio=learner, generator_wait_ratio=generator)).endswith(words)


def test_a_sparkline_spans_its_own_range() -> None:
    assert sparkline([0.0, None, 0.5, 1.0]) == "▁▅█"
    assert sparkline([0.3, 0.3]) == "▁▁"
    assert sparkline([]) == ""
    assert len(sparkline(range(100), width=10)) == 10


def test_time_is_written_as_a_clock_shows_it() -> None:
    assert [clock(seconds) for seconds in (0, 61, 3725)] == ["0:00", "1:01", "1:02:05"]


def test_the_end_tells_before_and_after_and_where_things_lie(tmp_path: Path, screen: io.StringIO) -> None:
    append(tmp_path, record(1))
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY))
    progress_on(screen, tmp_path).summary(0)
    for text in (
        "0.331",
        "0.712",
        "0.840",
        "1:23",
        "2.5e-06",
        str(tmp_path),
        "summary.json",
        "metrics.jsonl",
    ):
        assert text in screen.getvalue().replace("\n", "")


def test_the_last_line_of_a_run_that_went_well_opens_its_page(tmp_path: Path, screen: io.StringIO) -> None:
    append(tmp_path, record(1))
    (tmp_path / "rollouts").mkdir()
    progress_on(screen, tmp_path).summary(0)
    assert screen.getvalue().endswith(f"see every answer: chorus view {tmp_path}\n")


def test_a_run_that_was_stopped_says_how_to_go_on(tmp_path: Path, screen: io.StringIO) -> None:
    append(tmp_path, record(7))
    (tmp_path / "run.json").write_text("{}")
    progress_on(screen, tmp_path).summary(130)
    assert "stopped after: step 7/60" in screen.getvalue()
    assert f"chorus run --resume {tmp_path}" in screen.getvalue().replace("\n", "")


def test_the_curves_are_a_picture(tmp_path: Path) -> None:
    append(tmp_path, *(record(step) for step in range(1, 6)), record(6, entropy=None, accuracy=None))
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY))
    path = draw_learning_curves(RunFolder(tmp_path))
    assert path == tmp_path / "learning_curves.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 20_000


def test_curves_can_be_drawn_of_a_run_without_a_summary(tmp_path: Path) -> None:
    append(tmp_path, record(1))
    assert draw_learning_curves(RunFolder(tmp_path)).exists()


def test_a_change_of_the_problems_is_said_once(tmp_path: Path, screen: io.StringIO) -> None:
    changes = RunFolder(tmp_path).problem_changes
    changes.write_text(json.dumps({"step": 0, "problems": 2, "text": "of an earlier start"}) + "\n")
    with progress_on(screen, tmp_path) as progress:
        progress.update()
        with changes.open("a") as file:
            file.write(json.dumps({"step": 5, "problems": 3, "text": "1 came (new)"}) + "\n")
        progress.update()
        progress.update()
    assert screen.getvalue() == "chorus: 1 came (new)\n"
