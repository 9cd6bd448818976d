"""Frames on a pipe: a big-endian uint32 length, then so many bytes. What the bytes mean is said by those who use them:
JSON between the sandbox and its supervisor, msgpack between the pool and its workers.

Standard library only: the supervisor imports it in a clean interpreter.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

_LENGTH = 4


def frame(body: bytes) -> bytes:
    """One body with its length before it."""
    return len(body).to_bytes(_LENGTH, "big") + body


def write(fd: int, body: bytes) -> None:
    """Write one frame; waits where the pipe is full."""
    data = memoryview(frame(body))
    while data:
        data = data[os.write(fd, data) :]


class Bodies:
    """Bytes in, whole bodies out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def add(self, data: bytes) -> None:
        self._buffer += data

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Add bytes and yield the bodies that are now complete."""
        self.add(data)
        while (body := self.next()) is not None:
            yield body

    @property
    def partial(self) -> bool:
        """Whether bytes are waiting here that `next` has not returned."""
        return bool(self._buffer)

    def next(self) -> bytes | None:
        """The next complete body, or None."""
        if len(self._buffer) < _LENGTH:
            return None
        end = _LENGTH + int.from_bytes(self._buffer[:_LENGTH], "big")
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[_LENGTH:end])
        del self._buffer[:end]
        return body

    def read(self, fd: int) -> bytes | None:
        """The next body from a pipe; waits for it. None where the pipe has ended."""
        while (body := self.next()) is None:
            data = os.read(fd, 1 << 20)
            if not data:
                return None
            self.add(data)
        return body
