"""Run folders and evaluations as a report needs them: what they were asked for, what they measured, who belongs
together.

Runs of one recipe are one *arm*, whatever their seed: their curves become one line with a band.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chorus.protocol.run_folder.files import read_json, read_lines
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.exits import CannotGoOn

# What tells two runs of one recipe apart: names, addresses, places.
_OF_ONE_RUN = {
    *("run.seed", "run.name", "run.dir", "redis.url", "reward.url"),
    *("learner.host", "learner.store_port", "learner.metrics_port", "generator.metrics_port"),
}
_LABEL_KEYS = 2


@dataclass(frozen=True)
class Run:
    """`evaluations`: the summaries of `chorus eval` on its checkpoints. `selected`: on validation."""

    folder: Path
    config: Mapping[str, Any]  # dotted key -> value
    records: Sequence[Mapping[str, Any]]
    validations: Sequence[Mapping[str, Any]]
    summary: Mapping[str, Any]
    selected: int | None
    evaluations: Sequence[Mapping[str, Any]]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def last(self) -> int:
        return self.records[-1]["step"] if self.records else 0

    @property
    def recipe(self) -> dict[str, Any]:
        """Its configuration without what is of this run alone."""
        return {
            key: value
            for key, value in self.config.items()
            if key not in _OF_ONE_RUN and not key.startswith("placement.")
        }


@dataclass
class Arm:
    """Runs of one recipe."""

    runs: list[Run]
    label: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)


def read_run(folder: Path) -> Run:
    """Raises CannotGoOn for a folder without a run, or one that has trained no step."""
    run = RunFolder(folder)
    config = read_json(run.config)
    if not config:
        raise CannotGoOn(f"{folder}: there is no config.json of a run in it; give the folders of runs")
    if not (records := run.records()):
        raise CannotGoOn(f"{folder}: its metrics.jsonl has no step yet; leave this run out")
    return Run(
        folder=folder,
        config=_flat(config),
        records=records,
        validations=read_lines(run.validations),
        summary=read_json(run.summary),
        selected=read_json(run.selected).get("step"),
        evaluations=[s for path in sorted(run.evaluations.glob("*/summary.json")) if (s := read_json(path))],
    )


def read_evaluation(folder: Path) -> dict[str, Any]:
    """The summary of an evaluation. Raises CannotGoOn."""
    if not (summary := read_json(folder / "summary.json")) or "spec" not in summary:
        raise CannotGoOn(
            f"--eval {folder}: there is no summary.json of `chorus eval` in it; give a folder that it has written"
        )
    return summary


def arms_of(runs: Sequence[Run]) -> list[Arm]:
    """Grouped by recipe, in the order of their first run, each with a label of its own."""
    arms: dict[str, Arm] = {}
    for run in runs:
        key = json.dumps(run.recipe, sort_keys=True)
        arms.setdefault(key, Arm([], recipe=run.recipe)).runs.append(run)
    found = list(arms.values())
    names = [str(arm.runs[0].config.get("run.name") or arm.runs[0].name) for arm in found]
    for number, (arm, name) in enumerate(zip(found, names, strict=True), 1):
        arm.label = name
        if names.count(name) > 1:
            namesakes = [other for other, theirs in zip(found, names, strict=True) if theirs == name]
            told = [k for k in differences(namesakes) if all(other.recipe.get(k) is not None for other in namesakes)]
            shown = ", ".join(f"{key} {shown_value(arm.recipe[key], 20)}" for key in told[:_LABEL_KEYS])
            arm.label = f"{name} {number}" + (f" ({shown})" if shown else "")
    return found


def differences(arms: Sequence[Arm]) -> list[str]:
    """Keys in which the recipes differ, sorted."""
    keys = {key for arm in arms for key in arm.recipe}
    return sorted(k for k in keys if len({json.dumps(arm.recipe.get(k), sort_keys=True) for arm in arms}) > 1)


def shown_value(value: Any, longest: int = 60) -> str:
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def dig(record: Mapping[str, Any], path: Sequence[str]) -> float | None:
    """A number of a record, below nested keys; None where there is none."""
    value: Any = record
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, int | float) else None


def templates_of(arms: Sequence[Arm]) -> list[str]:
    """All that were drawn in any run, sorted."""
    return sorted(
        {name for arm in arms for run in arm.runs for r in run.records for name in r.get("by_template") or ()}
    )


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, part in value.items():
        flat |= _flat(part, f"{prefix}{key}.") if isinstance(part, Mapping) else {f"{prefix}{key}": part}
    return flat
