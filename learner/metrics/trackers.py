"""Experiment trackers: every step's record to TensorBoard and Weights & Biases, as `[trackers]` of the recipe asks.

    step ─▶ write(record) ─▶ queue ─▶ thread: scalars, texts ─▶ TensorBoard (<run>/tensorboard/), W & B

A step only puts its record into the queue; importing (10 seconds), writing and uploading are the thread's, since any of
them may hang: wandb.init waits for a network, a flush for a disk. A tracker that fails is left out from then on, with
one warning: metrics.jsonl has everything, and no run ends for its tracker's sake.
"""

from __future__ import annotations

import importlib.util
import logging
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from chorus.protocol.config.run import RunConfig
from chorus.protocol.metrics.step import TAGS
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.exits import CannotGoOn

log = logging.getLogger("chorus.learner")
_QUEUE_RECORDS = 1000


class Tracker(Protocol):
    def write(self, step: int, at: float, values: Mapping[str, float]) -> None: ...

    def show(self, step: int, at: float, rows: Sequence[Mapping[str, Any]]) -> None: ...

    def close(self) -> None: ...


class Trackers:
    """Refuses at once, with CannotGoOn, a tracker whose package is not installed."""

    def __init__(self, config: RunConfig, run: RunFolder, run_id: str, first_step: int = 1) -> None:
        wanted = config.trackers
        self._makers: list[tuple[str, Callable[[], Tracker]]] = []
        if wanted.tensorboard:
            _needs("tensorboard", "trackers.tensorboard", "install chorus-rl[learner], or set it to false")
            self._makers.append(("TensorBoard", lambda: TensorBoard(run.tensorboard, first_step)))
        if wanted.wandb:
            check_wandb(wanted.wandb)
            self._makers.append(("Weights & Biases", lambda: WeightsAndBiases(config, run.path, run_id)))
        self._queue: queue.Queue[Mapping[str, Any] | None] = queue.Queue(_QUEUE_RECORDS)
        self._thread = threading.Thread(target=self._work, name="trackers", daemon=True)
        if self._makers:
            self._thread.start()

    def write(self, record: Mapping[str, Any]) -> None:
        """Returns at once. `record` has `step`, and is not changed afterwards; `shown`: samples, as rows of a table."""
        if self._thread.is_alive():
            try:
                self._queue.put_nowait(record)
            except queue.Full:
                log.warning("the trackers are %d records behind; step %d is left out", _QUEUE_RECORDS, record["step"])

    def close(self, deadline_s: float = 60.0) -> None:
        """Write what is queued; give up after `deadline_s`."""
        if not self._thread.is_alive():
            return
        end = time.monotonic() + deadline_s
        with suppress(queue.Full):
            self._queue.put(None, timeout=deadline_s)
        self._thread.join(max(0.0, end - time.monotonic()))
        if self._thread.is_alive():
            log.warning("the trackers had not finished after %g s; their last records may be missing", deadline_s)

    def _work(self) -> None:
        trackers: list[tuple[str, Tracker]] = []
        for name, make in self._makers:
            with _left_out_if_it_fails(name):
                trackers.append((name, make()))
        while (record := self._queue.get()) is not None:
            values, still = dict(scalars(record)), []
            for name, tracker in trackers:
                with _left_out_if_it_fails(name):
                    at = record.get("time", time.time())
                    if rows := record.get("shown"):
                        tracker.show(record["step"], at, rows)
                    else:
                        tracker.write(record["step"], at, values)
                    still.append((name, tracker))
            trackers = still
        for name, tracker in trackers:
            with _left_out_if_it_fails(name):
                tracker.close()


class TensorBoard:
    """Event files. What an earlier start wrote of `first_step` and later was undone by a crash, and is not shown."""

    def __init__(self, folder: Path, first_step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[attr-defined]  # made on import
        from torch.utils.tensorboard import SummaryWriter

        self._summary: Any = Summary
        self._writer: Any = SummaryWriter(str(folder), purge_step=first_step)

    def write(self, step: int, at: float, values: Mapping[str, float]) -> None:
        """All numbers in one event: one each costs ten times as much, which the step's thread would feel."""
        numbers = [self._summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._writer.file_writer.add_summary(self._summary(value=numbers), step, at)
        self._writer.flush()

    def show(self, step: int, at: float, rows: Sequence[Mapping[str, Any]]) -> None:
        """As indented text, which Markdown leaves as it is."""
        for sort, same in groupby(rows, key=lambda row: row["sort"]):
            lines = [line for row in same for line in (*_facts(row), "", *row["text"].splitlines(), "")]
            self._writer.add_text(f"samples/{sort}", "\n".join(f"    {line}" for line in lines), step, at)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """One W & B run a Chorus run; a resumed one goes on with it. WANDB_MODE=offline needs no account."""

    def __init__(self, config: RunConfig, run_dir: Path, run_id: str) -> None:
        import wandb  # type: ignore[import-not-found]  # an extra

        self._table: Any = wandb.Table
        self._last = 0
        self._run = wandb.init(
            project=config.trackers.wandb,
            name=run_id,
            id=re.sub(r"[^A-Za-z0-9_-]", "-", run_id),
            resume="allow",
            dir=str(run_dir),
            config=config.model_dump(mode="json", exclude={"redis"}),  # its URL may hold a password
        )

    def write(self, step: int, at: float, values: Mapping[str, float]) -> None:
        self._log(dict(values), step)

    def show(self, step: int, at: float, rows: Sequence[Mapping[str, Any]]) -> None:
        columns = list(rows[0])
        self._log({"samples": self._table(columns=columns, data=[list(row.values()) for row in rows])}, step)

    def _log(self, values: dict[str, Any], step: int) -> None:
        """What is of an earlier step stands at the last one: W & B drops what goes back. Its own step is among it."""
        self._last = max(self._last, step)
        self._run.log(values, step=self._last)

    def close(self) -> None:
        self._run.finish()


def _facts(row: Mapping[str, Any]) -> list[str]:
    reward = f"reward {row['reward']:.4g}, advantage {row['advantage']:.4g}, {row['tokens']} tokens"
    return [f"{row['problem_id']} under {row['template']}: {row['verdict']}, {reward}"]


def scalars(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The record's numbers under `heading/name`; what was not measured, and what is no number, is left out.

    >>> dict(scalars({"step": 3, "entropy": 0.5, "loss": None, "by_template": {"a": {"reward": 1.0}}}))
    {'policy/entropy': 0.5, 'template/a/reward': 1.0}
    """
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _nested(TAGS.get(key, key), value)
        elif isinstance(value, int | float) and (tag := TAGS.get(key, "other")):
            yield f"{tag}/{key}", float(value)


def _nested(path: str, part: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in part.items():
        if isinstance(value, Mapping):
            yield from _nested(f"{path}/{key}", value)
        elif isinstance(value, int | float):
            yield f"{path}/{key}", float(value)


def check_wandb(project: str) -> None:
    """Raises CannotGoOn where a project is named, and nothing is installed that could write to it."""
    if project:
        _needs("wandb", "trackers.wandb", "install chorus-rl[wandb], or leave it empty")


def _needs(package: str, key: str, mend: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise CannotGoOn(f"{key} is set, but the package {package} is not installed: {mend}")


@contextmanager
def _left_out_if_it_fails(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a tracker may raise whatever it likes; the run goes on
        log.warning("%s fails and is left out from now on: %s: %s", name, type(error).__name__, error)
