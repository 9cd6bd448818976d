"""Who waits for whom, since when and until which deadline, from a run's Redis; without that, what its files say.

Of a run's folder also what its newest step was told: why the reference policy was reset, which rewards were not paid.
"""

from __future__ import annotations

import os
from typing import Any

import redis

from chorus.cli.inspect.live import find, from_files, run_options
from chorus.protocol.ledger import Accounts, Keys
from chorus.protocol.ledger.keys import TASK_GROUP
from chorus.protocol.messages import Member, MessageError
from chorus.protocol.metrics.waits import Wait, WaitReport
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.command_line import command
from chorus.protocol.runtime.redis import server_time

SILENT_S = 5.0  # every process tells its waits once a second
_CLOSED = {
    "short": "short answers: accuracy is {accuracy:.3f}, and has been {accuracy_best:.3f}",
    "interleaved": "sub-answers: accuracy, {accuracy:.3f}, had fallen from the step before",
    "cosine": "few tokens: the cosine term is off for now",
}
_SHOWN = 5  # waits of one kind in one process


@command("why", help=__doc__, examples=["chorus why runs/demo-20261121-231924", "chorus why --redis URL"])
@run_options
def main(run: str | None, url: str | None) -> int:
    found = find(run, url)
    for live in found.live:
        print("\n".join(explain(live.client, live.run_id, live.accounts, server_time(live.client))))
    if found.folder and not found.live:
        print("\n".join(from_files(found.folder, found.why_not)))
    if found.folder:
        print("".join(f"  {line}\n" for line in decided(RunFolder(found.folder))), end="")
    return os.EX_OK


def decided(run: RunFolder) -> list[str]:
    """What the newest step was told by the steps before it: resets of the reference, parts of the reward not paid."""
    records = run.records()
    if not records:
        return []
    last, lines = records[-1], []
    if reset := next((r for r in reversed(records) if r.get("reference_reset")), None):
        n, step = last["reference_resets"], reset["step"]
        times = f"{n} time{'s' * (n != 1)}, last before step {step}"
        lines.append(f"the reference policy was reset {times} ({reset['reference_reset']})")
    for gate, why in _CLOSED.items():
        if last.get(f"{gate}_gate") == 0:
            lines.append(f"step {last['step']} paid nothing for {why.format(**last)}")
    return lines


def explain(client: redis.Redis, run_id: str, accounts: Accounts, now: float) -> list[str]:
    """The waits of every process, oldest first, and what on the ledger stands still. One line each."""
    keys = Keys(run_id)
    members = _read(client, keys.members, Member)
    reports = _read(client, keys.waits, WaitReport)
    a = accounts
    lines = [f"run {run_id}: {a.queued} queued, {a.leased} leased, {a.unread} unread, {a.read} read"]
    for name, report in sorted(reports.items()):
        if now - report.at > SILENT_S:
            if not report.waits:
                continue  # it is named below, if it was a member
            lines.append(f"  {name} has been silent for {now - report.at:.0f} s; it then waited for:")
        lines += _waits_of(name, report, now)
    return lines + [f"  {line}" for line in _standing(client, keys, accounts, members, now)]


def _waits_of(name: str, report: WaitReport, now: float) -> list[str]:
    if not report.waits:
        return [f"  {name} waits for nothing"]
    kinds: dict[tuple[str, str], list[Wait]] = {}
    for wait in report.waits:
        kinds.setdefault((wait.what, wait.whom), []).append(wait)
    lines = []
    for (what, whom), waits in kinds.items():
        oldest = waits[0]
        details = [wait.detail for wait in waits if wait.detail]
        of = f" ({', '.join(details[:_SHOWN])}{', ...' if len(details) > _SHOWN else ''})" if details else ""
        lines.append(f"  {name} waits {now - oldest.since:.1f} s for {what} from {whom}, {_until(oldest, now)}{of}")
    return lines


def _until(wait: Wait, now: float) -> str:
    if wait.until is None:
        return "without a deadline"
    left = wait.until - now
    return f"{left:.0f} s left" if left >= 0 else f"OVERDUE by {-left:.0f} s"


def _standing(client: redis.Redis, keys: Keys, accounts: Accounts, members: dict[str, Member], now: float) -> list[str]:
    """What a person would look at next."""
    alive = {name: m for name, m in members.items() if now - m.last_seen <= SILENT_S}
    ready = [name for name, m in alive.items() if m.state == "ready"]
    lines = [f"{name} is {m.state}, so it leases nothing" for name, m in sorted(alive.items()) if m.state != "ready"]
    lines += [
        f"{name} has not been seen for {now - m.last_seen:.0f} s"
        for name, m in sorted(members.items())
        if name not in alive
    ]
    if accounts.queued and not ready:
        lines.append(f"{accounts.queued} groups are queued and no generator is ready: the run waits for one")
    if not accounts.outstanding:
        lines.append("nothing is outstanding: the learner has admitted nothing that is not done")
    for consumer, idle_s, count in _leases(client, keys):
        if consumer not in alive:
            lines.append(f"{count} groups are leased by {consumer}, which is gone; not renewed for {idle_s:.0f} s")
    return lines


def _leases(client: redis.Redis, keys: Keys) -> list[tuple[str, float, int]]:
    """(consumer, seconds since its longest unrenewed lease was renewed, number of leases)."""
    pending: Any = client.xpending_range(keys.tasks, TASK_GROUP, min="-", max="+", count=100_000)
    held: dict[str, list[float]] = {}
    for lease in pending:
        held.setdefault(lease["consumer"].decode(), []).append(lease["time_since_delivered"] / 1000)
    return [(consumer, max(idle), len(idle)) for consumer, idle in sorted(held.items())]


def _read(client: redis.Redis, key: str, kind: type[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    entries: Any = client.hgetall(key)
    for name, data in entries.items():
        try:
            found[name.decode(errors="replace")] = kind.decode(data)
        except MessageError:
            continue  # `chorus status` shows what can't be read
    return found
