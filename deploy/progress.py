"""What a person sees of a run: live numbers in a terminal, one plain line a step anywhere else.

Everything shown is read from the files that the learner writes: metrics.jsonl, status.json, summary.json.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from chorus.protocol.run_folder.files import read_json, read_lines
from chorus.protocol.run_folder.folder import RunFolder

BARS = "▁▂▃▄▅▆▇█"
SPARKLINE_WIDTH = 48


class Progress:
    """A context manager; call `update` a few times a second and `note` for what should stay on the screen."""

    def __init__(self, run: RunFolder, console: Console | None = None) -> None:
        self._run = run
        self._console = console or Console(highlight=False)
        self._live: Live | None = None
        self._records: list[dict[str, Any]] = []
        self._seen: tuple[int, int] = (0, 0)
        self._changes = len(read_lines(run.problem_changes))
        self._said = ""
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the live picture away; what was noted stays."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def note(self, text: str) -> None:
        """A line that stays."""
        self._console.print(f"chorus: {text}", markup=False, soft_wrap=True)

    def update(self) -> None:
        """Read what is new and show it."""
        fresh = self._read_records()
        for text in (text for record in fresh for text in record.get("alarms", ())):
            self.note(f"alarm: {text}")
        changes = read_lines(self._run.problem_changes)
        for line in changes[self._changes :]:
            if text := line.get("text"):
                self.note(str(text))
        self._changes = len(changes)
        for text in (text for record in fresh for text in record.get("findings") or ()):
            self.note(f"doctor: {text}")
        status = read_json(self._run.status)
        if self._live is not None:
            self._live.update(self._picture(status), refresh=True)
            return
        for record in fresh:
            self._console.print(step_line(record), markup=False, soft_wrap=True)
        phase = status.get("phase", "")
        if phase and phase != self._said and phase != "training":
            self.note(f"{phase} {status.get('detail', '')}".strip())
        self._said = phase

    def summary(self, exit_status: int) -> None:
        """The last word: what the run came to, and where it lies."""
        self.close()
        self._read_records()
        summary = read_json(self._run.summary) if exit_status == 0 else {}
        if summary:
            self._console.print(_summary_table(summary))
            self._console.print(_summary_line(summary), markup=False, soft_wrap=True)
        elif self._records:
            self._console.print(f"stopped after: {step_line(self._records[-1])}", markup=False, soft_wrap=True)
        names = ("summary.json", "learning_curves.png", "metrics.jsonl", "checkpoints", "rollouts", "logs")
        there = [name for name in names if (self._run.path / name).exists()]
        self._console.print(f"{self._run.path}/  {'  '.join(there)}", markup=False, soft_wrap=True)
        if self._run.rollouts.is_dir():
            self._console.print(f"see every answer: {_command()} view {self._run.path}", markup=False, soft_wrap=True)
        if exit_status != 0 and self._run.note.exists():
            self._console.print(f"go on with: chorus run --resume {self._run.path}", markup=False, soft_wrap=True)

    def _read_records(self) -> list[dict[str, Any]]:
        """Read metrics.jsonl again if it changed; returns the records that are new.

        A resumed learner replaces the file by one without the steps that the crash undid.
        """
        path = self._run.metrics
        try:
            stat = path.stat()
        except FileNotFoundError:
            return []
        if (stat.st_ino, stat.st_size) == self._seen:
            return []
        self._seen = (stat.st_ino, stat.st_size)
        known = self._records[-1]["step"] if self._records else 0
        self._records = self._run.records()
        last = self._records[-1]["step"] if self._records else 0
        return [record for record in self._records if record["step"] > min(known, last - 1)]

    def _picture(self, status: dict[str, Any]) -> RenderableType:
        phase = Text(f"{status.get('phase', 'starting')}  {status.get('detail', '')}".strip(), style="dim")
        title = f"[bold]chorus[/bold]  {self._run.name}"
        elapsed = time.monotonic() - self._started
        if not self._records:
            waiting = Text(f"the services are starting; {elapsed:.0f} s so far", style="italic")
            return Panel(Group(waiting, phase), title=title, title_align="left")
        record = self._records[-1]
        head = Table.grid(padding=(0, 2))
        left = sum(r["seconds"] for r in self._records[-10:]) / len(self._records[-10:])
        left *= record["steps"] - record["step"]
        head.add_row(
            f"[bold]step {record['step']}[/bold] of {record['steps']}",
            ProgressBar(total=record["steps"], completed=record["step"], width=40),
            f"{clock(elapsed)} gone, {clock(left)} to go",
        )
        body = [head, _metrics(record, self._records), Text(who_waits(record)), _templates(record), phase]
        return Panel(Group(*body), title=title, title_align="left")


def _command() -> str:
    """`chorus` as this process was called, so that a line can be copied from the terminal."""
    called = Path(sys.argv[0])
    return str(called) if called.name == "chorus" and shutil.which("chorus") != str(called.absolute()) else "chorus"


def step_line(record: dict[str, Any]) -> str:
    """A step in one plain line."""
    if _is_lesson(record):
        return _lesson_line(record)
    return (
        f"step {record['step']}/{record['steps']}  reward {_show(record, 'reward', '.3f')}"
        f"  accuracy {_show(record, 'accuracy', '.3f')}  format {_show(record, 'format', '.3f')}"
        f"  entropy {_show(record, 'entropy', '.3f')}  staleness {_show(record, 'staleness_mean', '.2f')}"
        f" (max {_show(record, 'staleness_max', '.0f')})"
        f"  {_show(record, 'tokens_per_second', ',.0f')} tokens/s  {_show(record, 'seconds', '.1f')} s"
        f"  {who_waits(record)}"
    )


def _is_lesson(record: dict[str, Any]) -> bool:
    """Whether it is a step of fine-tuning, which has no rollouts to reward."""
    return record.get("passes") is not None and record.get("reward") is None


def _lesson_line(record: dict[str, Any]) -> str:
    return (
        f"step {record['step']}/{record['steps']}  loss {_show(record, 'supervised_loss', '.4f')}"
        f"  verdicts {_show(record, 'supervised_verdicts', '.3f')}"
        f"  gradient {_show(record, 'supervised_grad_norm', '.3f')}"
        f"  lr {_show(record, 'supervised_lr', '.2e')}  {_show(record, 'passes', '.2f')} passes"
        f"  {_show(record, 'tokens_per_second', ',.0f')} tokens/s  {_show(record, 'seconds', '.1f')} s"
    )


def who_waits(record: dict[str, Any]) -> str:
    """Which half holds up the other, in words."""
    learner, generator = record.get("learner_wait_ratio"), record.get("generator_wait_ratio")
    if learner is None or generator is None:
        return f"learner waits {_show(record, 'learner_wait_ratio', '.0%')} of its time"
    both = f"learner waits {learner:.0%} of its time, generators {generator:.0%}"
    if abs(learner - generator) < 0.1:
        return f"{both}: balanced"
    return f"{both}: {'the generators' if learner > generator else 'the learner'} set the pace"


def sparkline(values: Iterable[float | None], width: int = SPARKLINE_WIDTH) -> str:
    """The last `width` values as bars between their own least and greatest."""
    known = [value for value in values if value is not None][-width:]
    if not known:
        return ""
    low, high = min(known), max(known)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in known)


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _metrics(record: dict[str, Any], records: list[dict[str, Any]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    if _is_lesson(record):
        for label, key in (("loss", "supervised_loss"), ("verdicts", "supervised_verdicts")):
            grid.add_row(label, f"[bold green]{_show(record, key, '.3f')}[/]", _curve(records, key))
        return grid
    grid.add_row("accuracy", f"[bold green]{_show(record, 'accuracy', '.3f')}[/]", _curve(records, "accuracy"))
    grid.add_row("reward", _show(record, "reward", ".3f"), _curve(records, "reward"))
    grid.add_row("format", _show(record, "format", ".3f"), _curve(records, "format"))
    grid.add_row("entropy", _show(record, "entropy", ".3f"), _curve(records, "entropy"))
    grid.add_row(
        "staleness",
        _show(record, "staleness_mean", ".2f"),
        f"steps (max {_show(record, 'staleness_max', '.0f')}); answers of "
        f"{_show(record, 'response_tokens_mean', '.1f')} tokens",
    )
    grid.add_row(
        "speed",
        _show(record, "tokens_per_second", ",.0f"),
        f"tokens/s trained; {_show(record, 'seconds', '.1f')} s a step",
    )
    return grid


def _curve(records: list[dict[str, Any]], key: str) -> str:
    return f"[cyan]{sparkline(record.get(key) for record in records)}[/]"


def _templates(record: dict[str, Any], at_most: int = 8) -> Table:
    grid = Table.grid(padding=(0, 2))
    parts = record.get("by_template") or {}
    for name, part in list(parts.items())[:at_most]:
        accuracy, form = _show(part, "accuracy", ".3f"), _show(part, "format", ".3f")
        grid.add_row(f"[dim]{name}[/]", f"[dim]accuracy {accuracy}  format {form}[/]")
    if len(parts) > at_most:
        grid.add_row(f"[dim]and {len(parts) - at_most} more templates[/]")
    return grid


def _summary_table(summary: dict[str, Any]) -> Table:
    table = Table("held out", "before", "after", title_justify="left", title="[bold]what the run came to[/]")
    for key, label in (
        ("accuracy", "accuracy, sampled"),
        ("greedy", "accuracy, greedy"),
        ("format", "format"),
    ):
        part = summary.get(key) or {}
        table.add_row(label, _show(part, "before", ".3f"), f"[bold]{_show(part, 'after', '.3f')}[/]")
    return table


def _summary_line(summary: dict[str, Any]) -> str:
    staleness, weights = summary.get("staleness") or {}, summary.get("weights") or {}
    return (
        f"{summary.get('steps')} steps in {clock(summary.get('wall_seconds') or 0)}; staleness "
        f"{_show(staleness, 'mean', '.2f')} (max {_show(staleness, 'max', '.0f')}); {weights.get('syncs')} "
        f"weight syncs, log-probability gap {_show(weights, 'logprob_gap_mean', '.1e')}; MFU of a step "
        f"{_show(summary, 'mfu', '.2f')}"
    )


def _show(values: dict[str, Any], key: str, form: str) -> str:
    value = values.get(key)
    return "-" if value is None else format(value, form)
