"""Every objective by its name, on the demo: 30 steps, nothing that is no number, and a reward that rises.

A row is the mean reward of the last five steps against that of the first five of the same run. The objective is its
name alone.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from typing import Any

from chorus.benchmarks.bench import Bench
from chorus.benchmarks.report import Row, at_least
from chorus.benchmarks.runs import chorus_run
from chorus.protocol.config.presets import PRESETS
from chorus.protocol.run_folder import folder
from chorus.protocol.run_folder.folder import RunFolder

GOAL = at_least(1.02)
_STEPS = 30
_EDGE = 5  # steps at either end
_QUICK = ("gmpo", "dapo")


def measure(bench: Bench) -> Iterator[Row]:
    names = bench.objectives or (_QUICK if bench.quick else tuple(PRESETS))
    for name in names:
        steps = bench.steps if bench.quick else _STEPS
        run_dir = chorus_run(bench, f"objective-{name}", f"objective.name={name}", f"run.steps={steps}")
        records = RunFolder(run_dir).records()
        edge = min(_EDGE, len(records) // 2)
        start, end = (
            statistics.fmean(_number(r, "reward") for r in part) for part in (records[:edge], records[-edge:])
        )
        broken = sorted({key for r in records for key in not_finite(r)})
        alarms = sorted({text for r in records for text in r["alarms"]})
        seconds = sum(r["seconds"] for r in records)
        note = (
            f"accuracy {_number(records[0], 'accuracy'):.3f} -> {_number(records[-1], 'accuracy'):.3f}, "
            f"entropy {_number(records[0], 'entropy'):.3f} -> {_number(records[-1], 'entropy'):.3f}, {seconds:.0f} s"
        )
        if broken or alarms:
            note += f"; {', '.join(broken + alarms)}"
        bench.say(f"{name}: reward {start:.3f} -> {end:.3f}; {note}")
        yield Row(f"objective {name}: reward, end / start", "reward", [end], [start], GOAL, note, broken=bool(broken))


def _number(record: dict[str, Any], key: str) -> float:
    return math.nan if record[key] is None else record[key]


def not_finite(record: dict[str, Any]) -> list[str]:
    """The keys of a record's figures, its parts' too, that are no finite numbers, and `updates_skipped`.

    What a run writes has null in their place and names them itself.
    """
    bad = [*folder.not_finite(record), *(record.get("not_finite") or ())]
    return bad + (["updates_skipped"] if record["updates_skipped"] else [])
