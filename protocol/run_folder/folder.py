"""A run's folder: every path in it, and what its records say.

<run>/config.json       resolved configuration             stages.json, hints.jsonl,    the curriculum's decisions
                                                           solved.jsonl
      configs/          that of each learner's start
      identity.json     which run it is (identity.py)      problems.jsonl               the problems, and their changes
      run.json          how and when it was started        rollouts/                    what was trained (rollouts.py)
      status.json       what the learner does just now     checkpoints/                 (checkpoints.py)
      metrics.jsonl     one record a step                  supervised/                  beside it (demonstrations.py)
                                                           evals/, tensorboard/, logs/, redis/
      evaluation-before.json, evaluation-after.json        learning_curves.png
      evaluated/              the answers behind them and behind each validation
      validation.jsonl, selected.json                      hub/                         for the hub
                                                           summary.json                 last: the run is over
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chorus.protocol.run_folder.files import append_line, keep_lines, read_json, read_lines, write_json
from chorus.protocol.run_folder.identity import name_of
from chorus.protocol.runtime.exits import CannotGoOn


@dataclass(frozen=True)
class RunFolder:
    path: Path

    @property
    def name(self) -> str:
        """What the folder is called; a person may have renamed it."""
        return self.path.name

    @property
    def run_id(self) -> str:
        """The run's namespace on Redis, which stays."""
        return name_of(self.path)

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def note(self) -> Path:
        """The recipe's path, when the run was started, which services are `chorus run`'s own."""
        return self.path / "run.json"

    @property
    def status(self) -> Path:
        """{phase, detail}: for a person who watches."""
        return self.path / "status.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def validations(self) -> Path:
        return self.path / "validation.jsonl"

    @property
    def selected(self) -> Path:
        """The step whose checkpoint validation has chosen."""
        return self.path / "selected.json"

    @property
    def stages(self) -> Path:
        return self.path / "stages.json"

    @property
    def solved(self) -> Path:
        """Of stages that leave out what has become easy."""
        return self.path / "solved.jsonl"

    @property
    def hints(self) -> Path:
        return self.path / "hints.jsonl"

    @property
    def problem_changes(self) -> Path:
        return self.path / "problems.jsonl"

    @property
    def problem_digests(self) -> Path:
        return self.path / "problems.msgpack.gz"

    @property
    def curves(self) -> Path:
        return self.path / "learning_curves.png"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def rollouts(self) -> Path:
        return self.path / "rollouts"

    @property
    def supervised(self) -> Path:
        """What supervised updates were trained on (demonstrations.py)."""
        return self.path / "supervised"

    @property
    def evaluations(self) -> Path:
        """Of `chorus eval`, a folder each."""
        return self.path / "evals"

    @property
    def hub(self) -> Path:
        """What `chorus push` has made for the hub, a folder a repository."""
        return self.path / "hub"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def redis(self) -> Path:
        """The embedded Valkey's append-only file."""
        return self.path / "redis"

    def evaluation(self, name: str) -> Path:
        """`before` or `after`."""
        return self.path / f"evaluation-{name}.json"

    def evaluated(self, name: str) -> Path:
        """The answers behind an evaluation, in the columns of rollouts: `before`, `after`, or a validation's step."""
        return self.path / "evaluated" / f"{name}.parquet"

    def existing(self) -> RunFolder:
        """Itself. Raises CannotGoOn where there is no run in it."""
        if not self.config.is_file():
            raise CannotGoOn(f"{self.path}: there is no config.json in it; give the folder of a run")
        return self

    def config_of(self, step: int) -> Path:
        """The configuration that a step was trained with; a resume may have brought another one since."""
        return max((p for p in self._configs() if _after(p) < step), default=self.config, key=_after)

    def note_config(self, done: int, config: dict[str, Any]) -> None:
        """Steps after `done` are trained with it; those that a crash undid, too."""
        for path in self._configs():
            if _after(path) > done:
                path.unlink(missing_ok=True)
        folder = self.path / "configs"
        folder.mkdir(exist_ok=True)
        write_json(folder / f"after-{done:06d}.json", config)

    def _configs(self) -> list[Path]:
        return [*self.path.glob("configs/after-*.json")]

    def records(self) -> list[dict[str, Any]]:
        """metrics.jsonl, one record a step in order; the last one counts where a step was trained again."""
        by_step = {row["step"]: row for row in read_lines(self.metrics) if isinstance(row.get("step"), int)}
        return [by_step[step] for step in sorted(by_step)]

    def append_record(self, record: dict[str, Any]) -> None:
        """A number that is not finite becomes null, since JSON has no word for it, and `not_finite` names it."""
        if bad := not_finite(record):
            record = {**_nulled(record), "not_finite": bad}
        append_line(self.metrics, record)

    def rewind_records(self, step: int) -> None:
        """Forget the steps that a crash undid; they will be trained and recorded again."""
        keep_lines(self.metrics, lambda record: record["step"] <= step)

    def finished_steps(self) -> int:
        """Steps of a run that has come to its end, or 0."""
        return read_json(self.summary).get("steps", 0)


def _after(config: Path) -> int:
    return int(config.stem.removeprefix("after-"))


def not_finite(value: Any, name: str = "") -> list[str]:
    """Where a record holds NaN or an infinity, as `by_template.boxed.entropy`."""
    if isinstance(value, float):
        return [] if math.isfinite(value) else [name]
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    return [found for key, part in parts for found in not_finite(part, f"{name}.{key}" if name else str(key))]


def _nulled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nulled(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_nulled(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
