"""What the pool and its workers say to each other: one msgpack array a frame, its first item the message's number.

To a worker, `Work` gives tasks and `Drop` takes back what it has not begun. From it come `Started` and `Ready` once (or
`Unusable`, and it ends), one reply a task in order, one `Dropped` a drop, and `Ended`. Strings may hold lone surrogates
(models write them), hence `surrogatepass`. What is no such message raises ValueError: who sent it is done with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import msgpack

from chorus.reward_server.graders.task import Clusters, Extracted, GradeResult, GradeTask, Program, Reply
from chorus.reward_server.sandbox.frames import Bodies, frame


@dataclass(frozen=True, slots=True)
class Work:
    tasks: tuple[GradeTask, ...]


@dataclass(frozen=True, slots=True)
class Drop:
    """Leave the rest of the work to others."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """The rest was left."""


@dataclass(frozen=True, slots=True)
class Started:
    """The process lives, and may still have something to import."""

    pid: int


@dataclass(frozen=True, slots=True)
class Ready:
    """Warm, limits set."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The last word, from the process that it was forked from."""

    exit_code: int  # negative: the signal


@dataclass(frozen=True, slots=True)
class Unusable:
    """The worker can never grade: trying again would not help."""

    reason: str


Message = Work | Drop | Dropped | Started | Ready | Ended | Unusable | Reply
# A message's number is its place here.
_TYPES = (Work, Drop, Dropped, Started, Ready, Ended, Unusable, GradeResult, Extracted, Clusters)
_NUMBERS = {kind: number for number, kind in enumerate(_TYPES)}
_NAMES = {kind: tuple(f.name for f in fields(kind)) for kind in (*_TYPES, GradeTask, Program)}


def pack(message: Message) -> bytes:
    """One message as a frame."""
    body = [_NUMBERS[type(message)], *_fields(message)]
    return frame(cast(bytes, msgpack.packb(body, default=_fields, unicode_errors="surrogatepass")))


def unpack(body: bytes) -> Message:
    """A frame's message. Raises ValueError."""
    number, *values = _array(msgpack.unpackb(body, unicode_errors="surrogatepass", use_list=False))
    try:
        kind = _TYPES[number]
        return Work(tuple(map(_task, *values))) if kind is Work else kind(*values)
    except (TypeError, IndexError) as error:
        raise ValueError(f"no message: {error}") from None


class Frames:
    """Bytes in, whole messages out."""

    def __init__(self) -> None:
        self._bodies = Bodies()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Add bytes and yield the messages that are now complete."""
        return map(unpack, self._bodies.feed(data))

    @property
    def partial(self) -> bool:
        """Whether bytes are waiting here that no message was made of."""
        return self._bodies.partial

    def read(self, fd: int) -> Message | None:
        """The next message from a pipe; waits for it. None where the pipe has ended."""
        body = self._bodies.read(fd)
        return None if body is None else unpack(body)


def _fields(value: Any) -> list[Any]:
    return [getattr(value, name) for name in _NAMES[type(value)]]


def _array(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, tuple) or not value:
        raise ValueError("no message: not an array")
    return value


def _task(values: Any) -> GradeTask:
    task = GradeTask(*values)
    program: Any = task.program
    if program is None:
        return task
    return replace(task, program=Program(*program))
