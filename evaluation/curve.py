"""A run's checkpoints on one suite: which is the last, which validation selected, which came out best on these very
problems, and how far one seed's figure may be off.

The best of many has the luck of the draw on top of what its policy can do: it is named for comparison with results that
were chosen so, never as the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chorus.evaluation.summary import shown_interval
from chorus.protocol.run_folder.checkpoints import whole
from chorus.protocol.run_folder.files import read_json

LAST, SELECTED, START = "last", "selected on validation", "start"
OPTIMISTIC = "best of {} on these very problems: optimistic, not a result"
FEW = 100  # problems: below it one seed's figure says little

Summary = Mapping[str, Any]


def roles(step: int, last: int, selected: int | None) -> list[str]:
    """What a checkpoint is, whatever it was measured at."""
    return [LAST] * (step == last) + [SELECTED] * (step == selected) + [START] * (step == 0)


def best(summaries: Sequence[Summary]) -> Summary:
    """The highest micro average, the first of equals."""
    return max(summaries, key=lambda s: s["micro"]["accuracy"])


def what_one_seed_can_say(summary: Summary) -> list[str]:
    """A sentence for each benchmark of few problems."""
    return [
        f"{b['title']} has {b['problems']} problems: one is {100 / b['problems']:.1f} points, and other problems of "
        f"the kind could have given from {100 * b['interval'][0]:.1f} to {100 * b['interval'][1]:.1f} (95 %). "
        "Checkpoints and methods within that are not told apart by one seed."
        for b in summary["benchmarks"].values()
        if b["problems"] < FEW
    ]


def curve_table(run: Path, summaries: Sequence[Summary]) -> str:
    """A row a checkpoint, in Markdown."""
    steps = [int(path.name.removeprefix("step-")) for path in whole(run / "checkpoints")]
    selected = read_json(run / "selected.json").get("step")
    benchmarks = summaries[0]["benchmarks"]
    header = ["step", *(b["title"] for b in benchmarks.values()), "macro", "micro (95 %)", ""]
    lines = [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    for summary in summaries:
        step = summary["spec"]["step"]
        told = roles(step, max(steps, default=step), selected)
        told += [OPTIMISTIC.format(len(summaries))] if len(summaries) > 1 and summary is best(summaries) else []
        cells = [f"{summary['benchmarks'][name]['accuracy']:.3f}" for name in benchmarks]
        micro = shown_interval(summary["micro"]["accuracy"], summary["micro"]["interval"])
        lines.append(
            f"| {step} | {' | '.join(cells)} | {summary['macro']['accuracy']:.3f} | {micro} | {', '.join(told)} |"
        )
    return "\n".join([*lines, "", *what_one_seed_can_say(summaries[-1])])
