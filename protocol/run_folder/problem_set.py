"""Which problems a run trains on, kept in its folder, so that a resume over changed data says what came and went.

problems.msgpack.gz    id -> digest of the content, in the order of the sources
problems.jsonl         a line when the run begins, and one for every resume that found another set
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Mapping

import msgpack

from chorus.protocol.run_folder.files import append_line, write_whole
from chorus.protocol.run_folder.folder import RunFolder

NAMED = 3  # problems of each kind that are named

Digests = Mapping[str, str]


def fingerprint(problems: Digests) -> str:
    """The same for the same problems in the same order."""
    lines = "".join(f"{digest} {id}\n" for id, digest in problems.items())
    return hashlib.blake2b(lines.encode(), digest_size=8).hexdigest()


def note_problems(run: RunFolder, problems: Digests, step: int, trained_on: str = "") -> str:
    """Write them down; returns what has changed since the run's last start, in one line, or "".

    trained_on: the fingerprint that the checkpoint of `step` names.
    """
    before, now = _read(run), fingerprint(problems)
    known = fingerprint(before) if before is not None else trained_on
    if known == now:
        return ""
    line = {"step": step, "problems": len(problems), "fingerprint": now}
    text = ""
    if before is not None:
        changes = _changes(before, problems)
        text = f"problems.train is not what it was up to step {step}: {_said(changes, len(problems))}"
        line |= {kind: len(ids) for kind, ids in changes.items()} | {"text": text}
    elif trained_on:
        text = (
            f"problems.train is not what it was up to step {step} (fingerprint {trained_on}, now {now}); which "
            "ones changed can't be said: problems.msgpack.gz is not there"
        )
        line |= {"text": text}
    packed = msgpack.packb(dict(problems)) or b""
    write_whole(run.problem_digests, gzip.compress(packed, compresslevel=1), durable=True)
    append_line(run.problem_changes, line)
    return text


def _read(run: RunFolder) -> dict[str, str] | None:
    try:
        found = msgpack.unpackb(gzip.decompress(run.problem_digests.read_bytes()))
    except (OSError, EOFError, ValueError, zlib.error, msgpack.UnpackException):
        return None
    return found if isinstance(found, dict) else None


def _changes(before: Digests, now: Digests) -> dict[str, list[str]]:
    return {
        "came": [id for id in now if id not in before],
        "went": [id for id in before if id not in now],
        "changed": [id for id in now if id in before and before[id] != now[id]],
    }


def _said(changes: Mapping[str, list[str]], total: int) -> str:
    parts = [f"{len(ids)} {kind} ({_named(ids)})" for kind, ids in changes.items() if ids]
    if not parts:
        return "the same problems in another order, so this pass over them repeats some and leaves others out"
    return f"{', '.join(parts)}; {total} now. This pass over them may repeat some and leave others out"


def _named(ids: list[str]) -> str:
    return ", ".join(ids[:NAMED]) + (", ..." if len(ids) > NAMED else "")
