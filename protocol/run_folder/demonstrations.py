"""What supervised updates were trained on, kept beside the rollouts: `supervised/step-000012.msgpack.gz`.

A list of [problem id, template, prompt's token ids, target's token ids, verdict], in the order of training. It is on
the disk before the update, so that a step that comes again after a crash, and `chorus replay`, train the same batch at
its place, whatever recipe and problems say by then.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgpack

from chorus.protocol.messages import pack_ids, unpack_ids
from chorus.protocol.run_folder.files import read_json, write_whole
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.exits import CannotGoOn


@dataclass(frozen=True)
class Demonstration:
    """One example: the token ids of a prompt under `template`, and those to answer it with, their end included.

    `verdict`: so many of the target's tokens, the last before its end, say whether a candidate is right; 0: none do.
    """

    problem_id: str
    template: str
    prompt: list[int]
    target: list[int]
    verdict: int = 0


def write_batch(run: RunFolder, step: int, batch: Sequence[Demonstration]) -> None:
    """On the disk before it returns."""
    run.supervised.mkdir(exist_ok=True)
    rows = [[d.problem_id, d.template, pack_ids(d.prompt), pack_ids(d.target), d.verdict] for d in batch]
    write_whole(batch_file(run, step), gzip.compress(msgpack.packb(rows) or b"", compresslevel=1), durable=True)


def read_batch(run: RunFolder, step: int) -> list[Demonstration]:
    """Empty where the step had none. Raises CannotGoOn for a file that is no such list."""
    path = batch_file(run, step)
    if not path.is_file():
        return []
    try:
        rows = msgpack.unpackb(gzip.decompress(path.read_bytes()))
        return [Demonstration(i, name, unpack_ids(p).tolist(), unpack_ids(t).tolist(), v) for i, name, p, t, v in rows]
    except (OSError, EOFError, ValueError, TypeError, zlib.error) as error:
        raise CannotGoOn(f"{path}: can't be read ({error}); put it back from a copy of the run") from None


def recorded_steps(run: RunFolder) -> list[int]:
    """The steps after whose own update a supervised one was trained, in order."""
    return sorted(int(path.name.split("-")[1].split(".")[0]) for path in run.supervised.glob("step-*.msgpack.gz"))


def step_of(run: RunFolder, version: int) -> int:
    """The step after which the weights are of this version, which counts steps and supervised updates.

    With updates after the steps 2 and 3, the versions 0, 1, 3, 5, 6 are those after the steps 0 to 4.
    """
    step = version
    if not read_json(run.config).get("finetune", {}).get("data"):  # there the update is the step
        for supervised in recorded_steps(run):
            step -= supervised < step
    return step


def keep_batches(run: RunFolder, done: int, again: Collection[int]) -> None:
    """Forget those of steps after `done` that do not come `again` as they were recorded."""
    for step in recorded_steps(run):
        if step > done and step not in again:
            batch_file(run, step).unlink()


def batch_file(run: RunFolder, step: int) -> Path:
    return run.supervised / f"step-{step:06d}.msgpack.gz"
