"""Stream replies of redis-py as one plain shape, whatever protocol version the connection speaks."""

from __future__ import annotations

from typing import Any

Entries = list[tuple[bytes, dict[bytes, bytes]]]


def entries_of(reply: Any) -> Entries:
    """The entries of a reply to XREAD or XREADGROUP on one stream; [] where it timed out."""
    if not reply:
        return []
    if isinstance(reply, dict):  # RESP3: {stream: [entries]}
        return next(iter(reply.values()))[0]
    return reply[0][1]  # RESP2: [[stream, entries]]


def admission_index(fields: dict[bytes, bytes]) -> int | None:
    """An entry's place in the admission order; None for an entry that the ledger did not write."""
    index = fields.get(b"i", b"")
    return int(index) if index.isdigit() and len(index) < 16 else None
