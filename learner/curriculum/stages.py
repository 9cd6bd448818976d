"""Stages: which one an admission belongs to, and when the next one begins.

    stage 0, from index 0 ─▶ an end is reached ─▶ stage 1, from index 448, after step 13 ─▶ ... ─▶ the run's end

Which problem an admission draws is a function of the run's seed, its index and the starts so far: (stage, step, index).
They stand in stages.json, on disk before the first task of a stage is admitted, and are never taken back: when a crash
undoes steps, the tasks admitted since are still on the ledger, and the steps come again from them. So a resumed run is
in the stage it was in, and draws what it would have drawn.

An end is decided after a step and holds for the admissions after it. Groups that were admitted before are trained
first: about staleness.target + 1 steps. A plateau and a fall of entropy count only steps that hold no such group.

A stage with `drop_above` starts again after each pass over its problems, without those that have become easy: another
start of the same stage, whose `without` names them. Nothing else ends with it.

A group is sampled, and its cut-off samples are trained or not, as its own stage says. What a step has but once, the
optimizer's rate and the coefficients, is that of its oldest group's stage.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from chorus.learner.curriculum.sampler import Pool
from chorus.learner.curriculum.solved import Solved
from chorus.protocol.config.curriculum import EntropyFall, Plateau, Stage
from chorus.protocol.config.run import RunConfig
from chorus.protocol.config.settings import StepSettings
from chorus.protocol.messages import Problem
from chorus.protocol.run_folder.files import write_json
from chorus.protocol.runtime.exits import CannotGoOn

_WATCHED = ("step", "stage_number", "accuracy", "probe_accuracy", "validation_accuracy", "entropy")


@dataclass(frozen=True)
class Start:
    """Stage `stage` (from 0) holds from admission `index` on; it was decided after step `step`, and `why`. without:
    problems that have become easy since the stage's start before."""

    stage: int
    name: str
    step: int
    index: int
    why: str
    without: tuple[str, ...] = ()


class Schedule:
    """Which stage an admission belongs to, and what a step of such groups trains with.

    trained: the latest stage of any trained step's oldest group, from 0; None: none was trained. A straggler of the
    stage before may come after it, and begins nothing anew.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.stages = config.curriculum.all_stages
        self.starts = [Start(0, self.stages[0].name, 0, 0, "the run began")]
        self.trained: int | None = None

    def open(self, file: Path) -> None:
        """Take up the starts that an earlier learner of this run has written to `file`. Raises CannotGoOn."""
        if not file.is_file():
            return
        try:
            read = json.loads(file.read_text(encoding="utf-8"))
            starts = [Start(**{**fields, "without": tuple(fields.get("without", ()))}) for fields in read]
            names = [name for name, _ in groupby(s.name for s in starts)]
            known = names == [s.name for s in self.stages][: len(names)]
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise CannotGoOn(f"{file}: can't be read ({error}); restore it, or start a new run") from None
        if not known:
            raise CannotGoOn(
                f"{file}: its stages are {', '.join(names)}, not those of the recipe; resume "
                "with the recipe that the run was started with"
            )
        for start in starts[1:]:
            self.begin(start)

    def begin(self, start: Start) -> None:
        self.starts.append(start)

    def number(self, index: int) -> int:
        """The stage of an admission index, counted from 0."""
        return next(s.stage for s in reversed(self.starts) if index >= s.index)

    def of(self, index: int) -> Stage:
        return self.stages[self.number(index)]

    def group_size(self, index: int) -> int:
        return self.of(index).group_size or self.config.sampling.group_size

    def filters_overlong(self, index: int) -> bool:
        """Whether the cut-off samples of this group stay out of the loss."""
        own = self.of(index).overlong_filter
        return self.config.objective.overlong_filter if own is None else own

    def settings(self, indices: Iterable[int], coefficients: tuple[float, float] | None = None) -> StepSettings:
        """Of a step with these groups. coefficients: of KL and entropy, where the stage has none of its own."""
        number = self.number(min(indices))
        stage, usual = self.stages[number], StepSettings.of(self.config, coefficients)
        own = {key: getattr(stage, key) for key in ("lr", "entropy_coefficient", "kl_coefficient")}
        begins = self.trained is not None and number > self.trained
        given = {key: value for key, value in own.items() if value is not None}
        return replace(usual, reset_optimizer=begins and stage.reset_optimizer, **given)


class Stages(Schedule):
    """`pools[k]` are the problems of `stages[k]`. `open` it on the run's stages.json before the run admits anything."""

    def __init__(self, config: RunConfig, pools: Sequence[Pool]) -> None:
        super().__init__(config)
        self.pools = pools
        self.solved = Solved()
        self._drawn = [pools[0]]  # of each start
        self._epochs = [0]  # of each start: passes begun before it
        self._file: Path | None = None
        self._records: list[dict[str, Any]] = []

    def open(self, file: Path) -> None:
        self._file = file
        super().open(file)

    def at(self, index: int) -> tuple[int, Problem]:
        """(epoch, problem) of an admission index. Epochs count on over the stages."""
        k = self._start(index)
        return self._drawn[k].at(index - self.starts[k].index, self._epochs[k])

    def ratio(self, index: int) -> float | None:
        """The hint's of an admission index, in a stage that mixes several."""
        k = self._start(index)
        return self._drawn[k].ratio(index - self.starts[k].index, self._epochs[k])

    def _start(self, index: int) -> int:
        return max(k for k, start in enumerate(self.starts) if index >= start.index)

    def observe(self, index: int, problem_id: str, accuracy: float) -> None:
        """A graded group came back, whether it will be trained or not."""
        if self.of(index).drop_above is not None:
            self.solved.observe(index, problem_id, accuracy)

    def take(self, record: dict[str, Any]) -> None:
        """A step's record, in the order of steps; its `stage_number` is that of its oldest group."""
        self._records.append({key: record.get(key) for key in _WATCHED})
        self.trained = latest(self.trained, record["stage_number"])

    def take_validation(self, step: int, accuracy: float) -> None:
        """A validation at the weights of `step`: it belongs to the stage that was in force before that step's end."""
        now = max((s for s in self.starts if s.step < step), key=lambda s: s.step, default=self.starts[0])
        known = {"step": step, "stage_number": now.stage, "validation_accuracy": accuracy}
        self._records.append({key: known.get(key) for key in _WATCHED})

    def advance(self, step: int, next_index: int) -> Start | None:
        """After `step`: begin the next stage with admission `next_index`, where the one in force has come to an end, or
        the next pass over its problems without those that have become easy."""
        now = self.starts[-1]
        if step <= now.step:
            return None
        start = self._next_stage(now, step, next_index) or self._next_pass(now, step, next_index)
        if start is None:
            return None
        self._write([*self.starts, start])
        if start.stage != now.stage:
            self._records.clear()
        self.begin(start)
        return start

    def _next_stage(self, now: Start, step: int, next_index: int) -> Start | None:
        if now.stage + 1 == len(self.stages):
            return None
        began = next(s.step for s in self.starts if s.stage == now.stage)
        mine = [r for r in self._records if r["stage_number"] == now.stage and r["step"] > began]
        why = ended(self.stages[now.stage], step - began, mine)
        return None if why is None else Start(now.stage + 1, self.stages[now.stage + 1].name, step, next_index, why)

    def _next_pass(self, now: Start, step: int, next_index: int) -> Start | None:
        pool, bound = self._drawn[-1], self.stages[now.stage].drop_above
        if bound is None or next_index - now.index < len(pool.chosen.problems):
            return None
        easy = self.solved.easy(now.index, lambda accuracy: accuracy > bound)
        if not easy or pool.without(easy) is None:
            return None
        left = len(pool.chosen.problems) - len(easy)
        why = f"a pass over its problems is done: {len(easy)} are easy by now, {left} are left"
        return Start(now.stage, now.name, step, next_index, why, tuple(easy))

    def begin(self, start: Start) -> None:
        last, drawn = self.starts[-1], self._drawn[-1]
        self._epochs.append(self._epochs[-1] + drawn.epochs(start.index - last.index))
        again = drawn.without(start.without) if start.stage == last.stage else None
        self._drawn.append(again or self.pools[start.stage])
        super().begin(start)

    def _write(self, starts: list[Start]) -> None:
        """On the disk before it returns: a task of the new stage is admitted next."""
        if self._file is not None:
            write_json(self._file, [asdict(s) for s in starts], durable=True)


def latest(before: int | None, stage: int | None) -> int | None:
    """The later one of two stages, either of which may be none."""
    return max((s for s in (before, stage) if s is not None), default=None)


def ended(stage: Stage, steps: int, records: Sequence[dict[str, Any]]) -> str | None:
    """Why a stage is over after so many steps, of which `records` hold its own groups alone; None: it is not."""
    if stage.steps is not None and steps >= stage.steps:
        return f"its {stage.steps} steps are done"
    if stage.plateau and (text := _plateau(stage.plateau, _values(records, stage.plateau.figure))):
        return text
    return _entropy_fall(stage.entropy_fall, _values(records, "entropy")) if stage.entropy_fall else None


def _values(records: Sequence[dict[str, Any]], figure: str) -> list[float]:
    return [float(r[figure]) for r in records if r[figure] is not None]


def _plateau(asked: Plateau, values: Sequence[float]) -> str | None:
    n = asked.window
    if len(values) < 2 * n:
        return None
    before, now = fmean(values[-2 * n : -n]), fmean(values[-n:])
    if now - before > asked.gain:
        return None
    return f"{asked.figure} over {n} steps is {now:.3f}, over the {n} before {before:.3f}"


def _entropy_fall(asked: EntropyFall, values: Sequence[float]) -> str | None:
    n = asked.window
    if len(values) <= n:
        return None
    means = [fmean(values[k : k + n]) for k in range(len(values) - n + 1)]
    if means[-1] >= (1 - asked.share) * max(means):
        return None
    return f"entropy over {n} steps is {means[-1]:.3f}, it has been {max(means):.3f}"
