"""Frames on a grader's pipes: a little-endian uint32 length, then msgpack.

To the grader, `{"items": [...]}` gives work and `{"drop": true}` takes back what it has not begun. From it
come `{"ready": ...}` once, one result an item in order, and one `{"dropped": true}` a drop. Strings may hold
lone surrogates (models write them), hence `surrogatepass`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, cast

import msgpack

_HEADER = struct.Struct("<I")


def pack(message: dict[str, Any]) -> bytes:
    """One message as a frame."""
    body = cast(bytes, msgpack.packb(message, unicode_errors="surrogatepass"))
    return _HEADER.pack(len(body)) + body


class Frames:
    """Bytes in, whole messages out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Add bytes and yield the messages that are now complete."""
        self._buffer += data
        while (message := self.next()) is not None:
            yield message

    def add(self, data: bytes) -> None:
        """Add bytes without reading messages."""
        self._buffer += data

    @property
    def partial(self) -> bool:
        """Whether bytes are waiting here that `next` has not returned."""
        return bool(self._buffer)

    def next(self) -> dict[str, Any] | None:
        """The next complete message, or None."""
        if len(self._buffer) < _HEADER.size:
            return None
        end = _HEADER.size + _HEADER.unpack_from(self._buffer)[0]
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[_HEADER.size : end])
        del self._buffer[:end]
        return msgpack.unpackb(body, unicode_errors="surrogatepass")
