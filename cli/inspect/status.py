"""The accounts of a run and the state of every member, from its Redis; where that is gone, what its files say."""

from __future__ import annotations

import os

import redis

from chorus.cli.inspect.live import find, format_accounts, from_files, run_options
from chorus.protocol.ledger import Keys
from chorus.protocol.messages import Member, MessageError
from chorus.protocol.runtime.command_line import command
from chorus.protocol.runtime.redis import server_time


@command(
    "status",
    help=__doc__,
    examples=["chorus status runs/demo-20261121-231924", "chorus status --redis redis://127.0.0.1:6379/0"],
)
@run_options
def main(run: str | None, url: str | None) -> int:
    found = find(run, url)
    for live in found.live:
        print(format_accounts(live.run_id, live.accounts))
        print(format_members(live.client, live.run_id))
    if found.folder and not found.live:
        print("\n".join(from_files(found.folder, found.why_not)))
    return os.EX_OK


def format_members(client: redis.Redis, run_id: str) -> str:
    """A line a generator."""
    lines = []
    now = server_time(client)
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
            f"{m.generated_tokens} tokens  busy {busy:.0%}  seen {now - m.last_seen:.1f} s ago"
        )
    return "\n".join(lines) or "  no generator is registered"
