"""The report's tables of runs, as plain text cells; pages.py escapes them for HTML and for Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from chorus.evaluation.report.runs import Arm, Run, differences, dig, shown_value, templates_of
from chorus.protocol.config.presets import in_words
from chorus.protocol.metrics.step import mean


@dataclass(frozen=True)
class Table:
    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)


def run_tables(arms: Sequence[Arm]) -> list[Table]:
    """All that the runs have something for."""
    found = [_runs(arms)] if arms else []
    if any(arm.recipe.get("objective.loss") for arm in arms):
        found.append(_trained(arms))
    if len(arms) > 1:
        found.append(_differences(arms))
    if templates_of(arms):
        found.append(_templates(arms))
    return found


def _runs(arms: Sequence[Arm]) -> Table:
    header = ["run", "recipe", "seed", "steps", "hours", "accuracy", "entropy", "tokens/s"]
    header += ["held out, sampled", "held out, greedy", "validation, last", "validation, selected", "alarms"]
    rows = [[run.name, arm.label, *_run(run)] for arm in arms for run in arm.runs]
    notes = [
        "Accuracy (of the training samples), entropy and tokens/s: means over the last tenth of the steps. Held out: "
        "before → after the run. Selected: the checkpoint with the best validation accuracy; held-out and test "
        "problems had no say in it."
    ]
    return Table("Runs", header, rows, notes)


def _run(run: Run) -> list[str]:
    by_step = {v["step"]: v["accuracy"] for v in run.validations}
    hours = dig(run.summary, ("wall_seconds",))
    seconds = sum(dig(r, ("seconds",)) or 0.0 for r in run.records)
    chosen = "-" if run.selected not in by_step else f"{by_step[run.selected]:.3f} (step {run.selected})"
    return [
        shown_value(run.config.get("run.seed")),
        str(run.last),
        f"{(seconds if hours is None else hours) / 3600:.2f}",
        *(
            _shown(_tail(run, key), digits)
            for key, digits in (("accuracy", 3), ("entropy", 3), ("tokens_per_second", 0))
        ),
        *(_change(run, key) for key in ("accuracy", "greedy")),
        f"{run.validations[-1]['accuracy']:.3f} (step {run.validations[-1]['step']})" if by_step else "-",
        chosen,
        str(sum(len(r.get("alarms") or ()) for r in run.records)),
    ]


def _change(run: Run, key: str) -> str:
    before, after = dig(run.summary, (key, "before")), dig(run.summary, (key, "after"))
    return "-" if before is None or after is None else f"{before:.3f} → {after:.3f}"


def _trained(arms: Sequence[Arm]) -> Table:
    """The objectives by their numbers: a name may stand beside another one's."""
    rows = [[arm.label, shown_value(arm.recipe.get("objective.name")), _in_words(arm)] for arm in arms]
    return Table("What was trained", ["recipe", "objective", "its numbers"], rows)


def _in_words(arm: Arm) -> str:
    return in_words(lambda key: arm.recipe.get(f"objective.{key}")) if arm.recipe.get("objective.loss") else "-"


def _differences(arms: Sequence[Arm]) -> Table:
    rows = [[key, *(shown_value(arm.recipe.get(key)) for arm in arms)] for key in differences(arms)]
    return Table("Where the recipes differ", ["key", *(arm.label for arm in arms)], rows)


def _templates(arms: Sequence[Arm]) -> Table:
    header = ["template", "recipe", "accuracy", "format", "entropy", "tokens", "truncated"]
    keys = [("accuracy", 3), ("format", 3), ("entropy", 3), ("response_tokens_mean", 1), ("truncated", 3)]
    rows = []
    for name in templates_of(arms):
        for arm in arms:
            values = [[_tail(run, "by_template", name, key) for run in arm.runs] for key, _ in keys]
            rows.append([name, arm.label, *(_spread(v, digits) for v, (_, digits) in zip(values, keys, strict=True))])
    note = "Means over the last tenth of the steps; with several runs, their mean and in brackets their range."
    return Table("By template", header, rows, [note])


def _tail(run: Run, *path: str) -> float | None:
    return mean(dig(record, path) for record in run.records[-max(1, len(run.records) // 10) :])


def _shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _spread(values: Iterable[float | None], digits: int) -> str:
    known = [v for v in values if v is not None]
    if len(known) < 2:
        return _shown(known[0] if known else None, digits)
    return f"{fmean(known):.{digits}f} ({min(known):.{digits}f}-{max(known):.{digits}f})"
