"""Frames between an agent and its engine's process, over one Unix socket: four bytes of length, one msgpack map.

    agent ─▶ engine   {"call": 7, "do": "generate", ...}      {"call": 7, "do": "abort"}
    engine ─▶ agent   {"call": 7, "ok": {...}}     or     {"call": 7, "error": "its words"}

Call 0 is the engine's own first word: it has started. Arrays travel as bytes (protocol/messages.py), and of a group
nothing before its last token.
"""

from __future__ import annotations

import struct
from typing import Any

import msgpack

HELLO = 0
_LENGTH = struct.Struct("<I")


def frame(message: dict[str, Any]) -> bytes:
    body: bytes = msgpack.packb(message)  # type: ignore[assignment]
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Messages out of a stream of bytes, however it is cut."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """All messages that are whole with `data`."""
        self._buffer += data
        messages, begin = [], 0
        while len(self._buffer) >= begin + _LENGTH.size:
            end = begin + _LENGTH.size + _LENGTH.unpack_from(self._buffer, begin)[0]
            if len(self._buffer) < end:
                break
            messages.append(msgpack.unpackb(bytes(self._buffer[begin + _LENGTH.size : end])))
            begin = end
        del self._buffer[:begin]
        return messages
