"""`chorus status`: the books and every member of a live run, from Redis alone."""

from __future__ import annotations

import os
import time

import redis

from chorus.cli.inspect.audit import format_books
from chorus.cli.inspect.live import live_books, parse_live
from chorus.protocol.ledger import Keys
from chorus.protocol.messages import Member, MessageError


def main(argv: list[str]) -> int:
    args = parse_live("chorus status", __doc__, argv)
    for client, run_id, books in live_books(args.redis, args.run):
        print(format_books(run_id, books))
        print(_format_members(client, run_id))
    return os.EX_OK


def _format_members(client: redis.Redis, run_id: str) -> str:
    lines = []
    members: dict[bytes, bytes] = client.hgetall(Keys(run_id).members)  # type: ignore[assignment]
    for name, data in sorted(members.items()):
        try:
            m = Member.decode(data)
        except MessageError as error:
            lines.append(f"  {name.decode(errors='replace'):20} unreadable: {error}")
            continue
        busy = m.busy_seconds / m.uptime_seconds if m.uptime_seconds else 0.0
        lines.append(
            f"  {m.generator_id:20} {m.state:12} version {m.version or '-':8} {m.in_flight:4} in flight  "
            f"{m.generated_tokens} tokens  busy {busy:.0%}  seen {time.time() - m.last_seen:.1f} s ago"
        )
    return "\n".join(lines) or "  no generator is registered"
