"""Whoever shows a run names keys that the table of step metrics has."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from strictrecord import strict_record

from chorus.deploy.curves import draw_learning_curves
from chorus.deploy.progress import Progress, step_line
from chorus.evaluation.report import plots
from chorus.evaluation.report.runs import arms_of, read_run
from chorus.evaluation.report.tables import run_tables
from chorus.learner.metrics.alarms import Alarms
from chorus.protocol.config.run import AlarmsSection
from chorus.protocol.metrics.processes import LearnerMetrics
from chorus.protocol.run_folder.folder import RunFolder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run of three steps whose records refuse unknown keys."""
    (tmp_path / "config.json").write_text(json.dumps({"run": {"name": "demo", "seed": 0}}))
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    monkeypatch.setattr(RunFolder, "records", lambda _: [strict_record(step) for step in (1, 2, 3)])
    return RunFolder(tmp_path)


def in_words(run: RunFolder) -> None:
    assert "reward 1.000" in step_line(run.records()[0])


def live(run: RunFolder) -> None:
    screen = io.StringIO()
    with Progress(run, Console(file=screen, force_terminal=True, width=120)) as progress:
        progress.update()
    assert "accuracy" in screen.getvalue()


def curves(run: RunFolder) -> None:
    assert draw_learning_curves(run).exists()


def report(run: RunFolder) -> None:
    arms = arms_of([read_run(run.path)])
    assert "-" not in run_tables(arms)[-1].rows[0][2:], "a mean of each column"
    assert plots.curves(arms)
    assert plots.by_template(arms)


def alarms(run: RunFolder) -> None:
    for record in run.records():
        Alarms(AlarmsSection(), "grpo").look(record)


def prometheus(run: RunFolder) -> None:
    LearnerMetrics().step_done(run.records()[0], [])


@pytest.mark.parametrize("show", [in_words, live, curves, report, alarms, prometheus])
def test_every_key_that_it_names_is_in_the_table(run: RunFolder, show: Callable[[RunFolder], None]) -> None:
    show(run)


def test_fine_tuning_which_rewards_nothing_has_lines_and_panels_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lesson = strict_record(1, reward=None, supervised_loss=0.5, supervised_verdicts=0.25, passes=2.0)
    assert step_line(lesson).startswith("step 1/9  loss 0.5000  verdicts 0.250")
    monkeypatch.setattr(RunFolder, "records", lambda _: [lesson])
    assert draw_learning_curves(RunFolder(tmp_path)).exists()


def test_every_panel_of_the_report_draws_a_line(run: RunFolder) -> None:
    [arm] = arms_of([read_run(run.path)])
    assert [title for title, *path in plots.PANELS if len(plots.smoothed(*path)(arm.runs[0])) != 3] == []


def test_a_key_that_the_table_does_not_have_is_refused(run: RunFolder) -> None:
    with pytest.raises(KeyError, match="acuracy"):
        run.records()[0].get("acuracy")
