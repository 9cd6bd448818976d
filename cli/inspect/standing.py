"""How far a run is, by its folder alone."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from chorus.deploy.progress import step_line
from chorus.protocol.run_folder.files import read_json
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.hold import is_held
from chorus.protocol.runtime.exits import CannotGoOn


@dataclass(frozen=True)
class Standing:
    """`at`: unix seconds of the newest step, or of the start; `doing`: its learner's word; `last`: its record."""

    run: RunFolder
    state: str  # running, finished, stopped
    step: int
    steps: int
    at: float
    doing: str
    last: dict[str, Any]

    @property
    def when(self) -> str:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(self.at))

    @property
    def lines(self) -> list[str]:
        """For a person who has asked about this run."""
        lines = [f"run {self.run.name}: {self.state} at step {self.step} of {self.steps}, {self.when}"]
        if self.last:
            lines.append(f"  {step_line(self.last)}")
        if self.doing and self.state != "finished":
            lines.append(f"  its learner {'says' if self.state == 'running' else 'last said'}: {self.doing}")
        if self.state == "stopped" and self.run.note.is_file():
            lines.append(f"  go on with: chorus run --resume {self.run.path}")
        return lines


def is_run(run: RunFolder) -> bool:
    return any(file.is_file() for file in (run.config, run.note, run.metrics))


def standing(run: RunFolder) -> Standing:
    """What the files say. Raises CannotGoOn where they are none of a run."""
    if not is_run(run):
        raise CannotGoOn(f"{run.path}: there is no config.json in it; give the folder of a run")
    last = (run.records() or [{}])[-1]
    steps = (read_json(run.config).get("run") or {}).get("steps") or last.get("steps", 0)
    trained, status = run.finished_steps(), read_json(run.status)
    state = "running" if is_held(run.path) else "finished" if trained and trained >= steps else "stopped"
    at = last.get("time") or read_json(run.note).get("started_at") or run.path.stat().st_mtime
    doing = f"{status.get('phase', '')} {status.get('detail', '')}".strip()
    return Standing(run, state, last.get("step", 0), steps, at, doing, last)
