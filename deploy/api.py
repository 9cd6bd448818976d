"""`chorus.start`: a whole run from a notebook or a script, as `chorus run` does it, and its steps as they come.

    this interpreter ══ guard ══▶ `chorus run` in a process of its own ──▶ services
           ▲                                                                  │
           └──────────── metrics.jsonl, summary.json, logs/run.log ◀──────────┘

    run = chorus.start("my.toml", ["run.steps=20"])
    for record in run:                  # one dict a step, as in metrics.jsonl
        print(record["step"], record["reward"])
    run.folder                          # checkpoints, rollouts, logs

The run is the guard's (protocol/runtime/processes.py): when this interpreter ends, however, all of it is stopped. What
`chorus run` would print stands in logs/run.log. A step that a crash undid is trained again, and its record comes again.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self, cast, get_args

from chorus.deploy import launcher
from chorus.deploy.preflight import check_inputs
from chorus.protocol.config.load import load_config
from chorus.protocol.config.run import RunConfig
from chorus.protocol.run_folder.files import read_json, write_json
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.identity import Asked
from chorus.protocol.runtime import logs
from chorus.protocol.runtime.exits import CANNOT_GO_ON, CannotGoOn
from chorus.protocol.runtime.processes import Guarded, spawn_guarded

POLL_S = 0.2
STOP_S = 90.0  # beyond the learner's: all other services have their grace periods within it
_WANTED = "wanted.json"  # what is asked of a run that is resumed; its config.json stays until that is accepted
_COMMAND = (sys.executable, "-P", "-m", "chorus.deploy.api")


class RunFailed(RuntimeError):
    """A run ended without its last step. The message is the run's own last word, and names its log."""


class Run:
    """A run in progress. Iterate over it, as often as you like, for the records of its steps from the first one on.

    As a context manager it stops the run where the block is left.
    """

    def __init__(self, folder: Path, process: Guarded, stop_s: float = STOP_S) -> None:
        self.folder = folder
        self._stop_s = stop_s
        self._files = RunFolder(folder)
        self._process = process
        self._stopped = False
        self._pid = os.getpid()
        atexit.register(self._at_exit)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield each step's record as it comes; end with the run. Raises RunFailed for one that failed."""
        given: dict[int, dict[str, Any]] = {}
        while True:
            ended = not self.running  # asked first: what was written before the end is read below
            for record in self._files.records():
                if given.get(record["step"]) != record:
                    given[record["step"]] = record
                    yield record
            if ended:
                self._check()
                return
            time.sleep(POLL_S)

    def wait(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Wait for the end; returns what summary.json says, {} where the run was stopped before it had one.

        Raises RunFailed, and TimeoutError where the run still goes on after `timeout_s`.
        """
        self._process.wait(timeout_s)
        self._check()
        return read_json(self._files.summary)

    def stop(self) -> None:
        """Stop all services, in order, and wait for it; a run that has ended is left as it is. It may be resumed."""
        if self.running:
            self._stopped = True
            self._process.stop(self._stop_s)
        atexit.unregister(self._at_exit)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<chorus run in {self.folder}, {'running' if self.running else 'ended'}>"

    def _check(self) -> None:
        status = self._process.poll()
        if status and not self._stopped:
            raise RunFailed(_last_word(_log(self._files), status))

    def _at_exit(self) -> None:
        if os.getpid() == self._pid:  # a forked child of this interpreter ends without the run
            self.stop()


def start(
    config: RunConfig | str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    resume: str | Path | None = None,
    asked: Asked = "",
) -> Run:
    """Start a run in the background and return at once; iterate over the result for its steps.

    config: a recipe's path, which is read as `chorus run` reads it (`overrides` as for `--set`, such as "run.steps=20";
    then the environment, then the file), or a RunConfig, which says all itself.
    resume: the folder of a run that was cut short, in place of a recipe.
    asked: what to make of a folder that is a copy of a run, or whose ledger is lost: "take-over" or "new-lineage", as
    the options of `chorus run --resume`.

    Raises ConfigError for a recipe that is wrong, and CannotGoOn for what it names and is not there.
    """
    if (config is None) == (resume is None):
        raise CannotGoOn("start: give a recipe or a RunConfig, or resume= with the folder of a run")
    if asked and (resume is None or asked not in get_args(Asked)):
        raise CannotGoOn(f'start: asked={asked!r}: with resume=, it may be "take-over" or "new-lineage"')
    if isinstance(config, RunConfig):
        if overrides:
            raise CannotGoOn("start: overrides belong to a recipe's path; change the RunConfig itself")
        found, recipe = config, "run"
    else:
        source = Path(config) if config is not None else RunFolder(Path(resume or "")).existing().config
        found, recipe = load_config(source, overrides), str(source)
    check_inputs(found, resumed=resume is not None)
    made = Path(resume) if resume is not None else launcher.new_folder(found, recipe)
    run = RunFolder(made.resolve())  # this interpreter may change its working folder
    write_json(run.config if resume is None else run.path / _WANTED, found.model_dump(mode="json"))
    run.logs.mkdir(exist_ok=True)
    arguments = (str(run.path), recipe, *(("--resume", asked) if resume is not None else ()))
    stop_s = found.learner.grace_s + STOP_S
    process = spawn_guarded((*_COMMAND, *arguments), name="chorus-run", log=_log(run), grace_s=stop_s)
    return Run(run.path, process, stop_s)


def _log(run: RunFolder) -> Path:
    return run.logs / "run.log"


def _last_word(log: Path, status: int) -> str:
    """What `chorus run` said before it ended; its summary and the way to go on come after that."""
    lines = [logs.message_of(line) for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    said = [line.removeprefix("chorus run: ") for line in lines if line.startswith("chorus run: ")]
    words = [line.strip() for line in lines if line.strip()]
    return f"{said[-1] if said else words[-1] if words else f'it ended with status {status}'} (log: {log})"


def main(argv: list[str]) -> int:
    """Carry out the run of a folder that `start` has made: FOLDER RECIPE [--resume ASKED]."""
    run, recipe = RunFolder(Path(argv[0])), argv[1]
    logs.set_up("run")
    try:
        # The environment had its say when the recipe was read.
        if "--resume" in argv[2:]:
            config = load_config(run.path / _WANTED, environment={})
            (run.path / _WANTED).unlink()
            return launcher.run(config, recipe, resume=run.path, asked=cast(Asked, argv[3]))
        return launcher.run(load_config(run.config, environment={}), recipe, made=run.path)
    except CannotGoOn as error:
        logs.last_word(f"chorus run: {error}")
        return CANNOT_GO_ON


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
