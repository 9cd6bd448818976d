"""`chorus status`: the books and every member of a live run, from Redis alone."""

from __future__ import annotations

import argparse
import os
import time

import redis

from cli.audit import format_books, run_ids
from protocol.connect import connect
from protocol.exits import CannotGoOn
from protocol.ledger import Keys, LedgerLostError, read_books
from protocol.messages import Member, MessageError


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="chorus status", description=__doc__)
    parser.add_argument("run", nargs="?", help="run id (default: all runs on the server)")
    parser.add_argument("--redis", metavar="URL", required=True)
    args = parser.parse_args(argv)
    client = connect(args.redis, patience_s=0.0, named="--redis")
    runs = [args.run] if args.run else run_ids(client)
    if not runs:
        raise CannotGoOn(f"no run has a ledger on {args.redis}")
    for run_id in runs:
        try:
            print(format_books(run_id, read_books(client, Keys(run_id))))
        except LedgerLostError as error:
            raise CannotGoOn(str(error)) from None
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
