"""The rollouts a run has trained on, kept beside its checkpoints, since Redis is trimmed.

One gzip file a step, `rollouts/step-000012.msgpack.gz`: a list of [entry id, encoded RolloutGroup] in the
order in which they were trained. Replay, regrade and the audit of a finished run read them.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import msgpack

from chorus.protocol.ledger import Entry, Rollout
from chorus.protocol.messages import RolloutGroup
from chorus.protocol.run_folder.files import write_whole
from chorus.protocol.run_folder.folder import RunFolder


def step_file(run: RunFolder, step: int) -> Path:
    return run.rollouts / f"step-{step:06d}.msgpack.gz"


def write_step(run: RunFolder, step: int, groups: list[Rollout]) -> Path:
    """Store one step's groups, before it trains; a rewound step writes the same file again."""
    path = step_file(run, step)
    path.parent.mkdir(exist_ok=True)
    rows = msgpack.packb([[r.entry.id, r.entry.payload] for r in groups]) or b""
    write_whole(path, gzip.compress(rows, compresslevel=1))
    return path


def read_step(path: Path) -> list[Rollout]:
    """Raises OSError, EOFError, zlib.error or ValueError for a file that is no such list."""
    with gzip.open(path, "rb") as file:
        rows = msgpack.unpackb(file.read())
    if not isinstance(rows, list) or not all(isinstance(r, list) and [*map(type, r)] == [str, bytes] for r in rows):
        raise ValueError("not a list of [entry id, encoded group]")
    groups = [(id, payload, RolloutGroup.decode(payload)) for id, payload in rows]
    return [Rollout(Entry(id, group.task.index, payload), group) for id, payload, group in groups]


def stored_steps(run: RunFolder) -> Iterator[tuple[int, Path]]:
    """(step, file) in order."""
    for path in sorted(run.rollouts.glob("step-*.msgpack.gz")):
        yield int(path.name.split("-")[1].split(".")[0]), path
