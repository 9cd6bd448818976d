"""One group's life across the processes, with times.

From a live run's Redis, from a run's folder, or both: what Redis has forgotten stands in the folder.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import redis

from chorus.cli.inspect.live import own_redis, redis_option
from chorus.protocol.ledger import Keys
from chorus.protocol.ledger.keys import TASK_GROUP, admission_index
from chorus.protocol.messages import MessageError, RolloutGroup, Task
from chorus.protocol.run_folder.checkpoints import read_manifest, whole
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.identity import name_of
from chorus.protocol.run_folder.rollouts import chosen_at, read_step, stored_steps
from chorus.protocol.runtime.command_line import command
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.redis import connect, server_time


@dataclass(frozen=True)
class Event:
    """`at`: unix seconds; None where nobody noted the time."""

    at: float | None
    who: str
    what: str


@command(
    "trace",
    help=__doc__,
    examples=["chorus trace 17 runs/demo-20261121-231924", "chorus trace 17 by-hand --redis redis://127.0.0.1:6379/0"],
)
@click.argument("group", type=int, help="admission index of the group, from 0")
@click.argument("run", help="a run's folder, or with --redis a run id")
@redis_option
def main(group: int, run: str, url: str | None) -> int:
    folder = Path(run)
    events: list[Event] = []
    if folder.is_dir():
        events += from_folder(folder, group)
    elif url is None:
        raise CannotGoOn(f"{folder}: no such folder; give a run's folder, or --redis URL and a run id")
    if client := _client(url, folder):
        known = {event.what for event in events}
        events += [e for e in from_redis(client, name_of(folder), group) if e.what not in known]
    if not events:
        raise CannotGoOn(
            f"run {folder.name}: nobody knows a group {group}; give the index of one that was admitted, counted from 0 "
            "(`chorus status` says how many were)"
        )
    print("\n".join(format_events(events)))
    return os.EX_OK


def _client(url: str | None, folder: Path) -> redis.Redis | None:
    if url is not None:
        return connect(url, patience_s=0.0, named="--redis")
    try:
        return own_redis(folder)
    except CannotGoOn:
        return None  # the run has ended, and its server with it


def format_events(events: list[Event]) -> list[str]:
    """In the order of their times; the second column counts seconds from the first event.

    Redis's clock counts whole milliseconds: within one, events stay in the order of a group's life.
    """
    timed = sorted((e for e in events if e.at is not None), key=lambda e: math.floor(1000 * (e.at or 0.0)))
    start = timed[0].at if timed else None
    lines = []
    for event in [*timed, *(e for e in events if e.at is None)]:
        if event.at is None or start is None:
            clock, offset = "--:--:--.---", " " * 9
        else:
            clock = time.strftime("%H:%M:%S", time.localtime(event.at)) + f".{int(event.at * 1000) % 1000:03d}"
            offset = f"{event.at - start:+8.3f}s"
        lines.append(f"{clock} {offset}  {event.who:20} {event.what}")
    return lines


def _of_task(task: Task) -> Event:
    tokens = len(task.prompt_ids) // 4
    what = f"admitted group {task.index}: problem {task.problem_id}, template {task.template}, {tokens} prompt tokens"
    return Event(task.admitted_at, "learner", what)


def _of_group(group: RolloutGroup, entry_id: str) -> list[Event]:
    who, timing = group.generator_id, group.timing
    versions = sorted({f"{fence}.{step}" for s in group.samples for fence, step, _ in s.versions})
    verdicts: dict[str, int] = {}
    for s in group.samples:
        verdicts[s.grade.verdict] = verdicts.get(s.grade.verdict, 0) + 1
    tokens = sum(s.n_tokens for s in group.samples)
    graded = ", ".join(f"{n} {verdict}" for verdict, n in sorted(verdicts.items()))
    return [
        _of_task(group.task),
        Event(timing.started, who, f"began to sample, attempt {group.attempt}"),
        Event(timing.generated, who, f"sampled {len(group.samples)} x, {tokens} tokens, weights {', '.join(versions)}"),
        Event(timing.graded, "reward server", f"graded: {graded}"),
        Event(_time_of(entry_id), who, f"committed as {entry_id}"),
    ]


def _time_of(entry_id: str) -> float:
    return int(entry_id.partition("-")[0]) / 1000  # Redis stamps an entry with its own clock


def from_folder(run_dir: Path, index: int) -> list[Event]:
    """A group that was trained, from the stored rollouts, the step records and the checkpoints' manifests."""
    for step, path in stored_steps(RunFolder(run_dir)):
        for ready in read_step(path):
            if ready.group.task.index == index:
                events = _of_group(ready.group, ready.entry.id)
                events.append(Event(chosen_at(path), "learner", f"chosen for step {step}"))
                return events + _training_of(run_dir, step, ready.entry.id)
    return []


def _training_of(run_dir: Path, step: int, entry_id: str) -> list[Event]:
    events = [
        Event(r["time"], "learner", f"trained in step {step}")
        for r in RunFolder(run_dir).records()
        if r["step"] == step
    ]
    for checkpoint in whole(RunFolder(run_dir).checkpoints):
        if entry_id in read_manifest(checkpoint).entries.get(step, ()):
            at = (checkpoint / "manifest.json").stat().st_mtime
            events.append(Event(at, "learner", f"durable in checkpoint {checkpoint.name}"))
    return events


def from_redis(client: redis.Redis, run_id: str, index: int) -> list[Event]:
    """A group that is on its way, or was lately."""
    keys = Keys(run_id)
    events: list[Event] = []
    for id, fields in _entries(client, keys.tasks, index):
        try:
            events.append(_of_task(Task.decode(fields[b"d"])))
        except MessageError as error:
            events.append(Event(None, "learner", f"admitted group {index}, unreadable: {error}"))
        events += _lease_of(client, keys, id)
    for id, fields in _entries(client, keys.rollouts, index):
        try:
            events = _of_group(RolloutGroup.decode(fields[b"d"]), id)
        except MessageError as error:
            events.append(Event(_time_of(id), "generator", f"committed as {id}, unreadable: {error}"))
        if step := client.hget(keys.trained, id):
            events.append(Event(None, "learner", f"trained in step {int(step)}, not yet durable"))  # type: ignore[arg-type]
    for id, fields in _entries(client, keys.dead, index):
        reason, detail = (fields.get(k, b"").decode(errors="replace") for k in (b"reason", b"detail"))
        events.append(Event(_time_of(id), "generator", f"buried ({reason}): {detail}"))
    return events


def _lease_of(client: redis.Redis, keys: Keys, id: str) -> list[Event]:
    pending: Any = client.xpending_range(keys.tasks, TASK_GROUP, min=id, max=id, count=1)
    return [
        Event(
            server_time(client) - p["time_since_delivered"] / 1000,
            p["consumer"].decode(),
            f"leased or renewed, delivery {p['times_delivered']}",
        )
        for p in pending
    ]


def _entries(client: redis.Redis, stream: str, index: int) -> list[tuple[str, dict[bytes, bytes]]]:
    entries: Any = client.xrange(stream)
    return [(id.decode(), fields) for id, fields in entries if admission_index(fields) == index]
