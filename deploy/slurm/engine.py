"""Slurm's own commands, and what they say."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chorus.protocol.runtime.exits import CannotGoOn

DEADLINE_S = 60.0
_FIELDS = "%i|%T|%N|%M|%r"


@dataclass(frozen=True)
class Job:
    """As squeue shows it: `id` is 12, or 12_3 for an element of an array."""

    id: str
    state: str
    nodes: str
    elapsed: str
    reason: str

    @property
    def array(self) -> str:
        return self.id.partition("_")[0]

    @property
    def is_running(self) -> bool:
        return self.state == "RUNNING"


def submit(script: Path, *options: str) -> str:
    """The number of the new job. Raises CannotGoOn in Slurm's words."""
    told = _call(["sbatch", "--parsable", *options, str(script)])
    return told.strip().splitlines()[-1].partition(";")[0]


def queued(jobs: Sequence[str]) -> list[Job]:
    """What the queue holds of these jobs, an element of an array a line."""
    if not jobs:
        return []
    found = [Job(*line.split("|")) for line in _call(["squeue", "--noheader", "-r", "-o", _FIELDS]).splitlines()]
    return [job for job in found if job.array in jobs]


def cancel(job: str) -> None:
    """Out of the queue, or killed. Nobody minds one that has ended."""
    _call(["scancel", "--quiet", job], may_fail=True)


def ask(job: str) -> None:
    """SIGTERM to the job's script, which drains."""
    _call(["scancel", "--quiet", "--batch", "--signal=TERM", job], may_fail=True)


def _call(argv: list[str], may_fail: bool = False) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    except FileNotFoundError:
        raise CannotGoOn(
            f"{argv[0]}: there is no such command here; run this where Slurm's commands are, or see the scripts with "
            "`chorus slurm submit --print`"
        ) from None
    except subprocess.TimeoutExpired:
        raise CannotGoOn(f"{argv[0]}: no answer within {DEADLINE_S:g} s; is slurmctld running? try again") from None
    if done.returncode != 0 and not may_fail:
        words = re.sub(rf"^{argv[0]}: (error: )*", "", (done.stderr.strip().splitlines() or ["no words"])[-1])
        raise CannotGoOn(f"{argv[0]}: Slurm refuses: {words}; change what it names and try again")
    return done.stdout
