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


def write_step(run_dir: Path, step: int, groups: list[Rollout]) -> Path:
    """Store one step's groups, before it trains; a rewound step writes the same file again."""
    path = run_dir / "rollouts" / f"step-{step:06d}.msgpack.gz"
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".partial")
    with gzip.open(partial, "wb", compresslevel=1) as file:
        file.write(msgpack.packb([[r.entry.id, r.entry.payload] for r in groups]) or b"")
    partial.rename(path)
    return path


def read_step(path: Path) -> list[Rollout]:
    """Raises OSError, EOFError, zlib.error or ValueError for a file that is no such list."""
    with gzip.open(path, "rb") as file:
        rows = msgpack.unpackb(file.read())
    if not isinstance(rows, list) or not all(isinstance(r, list) and [*map(type, r)] == [str, bytes] for r in rows):
        raise ValueError("not a list of [entry id, encoded group]")
    groups = [(id, payload, RolloutGroup.decode(payload)) for id, payload in rows]
    return [Rollout(Entry(id, group.task.index, payload), group) for id, payload, group in groups]


def stored_steps(run_dir: Path) -> Iterator[tuple[int, Path]]:
    """(step, file) in order."""
    for path in sorted((run_dir / "rollouts").glob("step-*.msgpack.gz")):
        yield int(path.name.split("-")[1].split(".")[0]), path
