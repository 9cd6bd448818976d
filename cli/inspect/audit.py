"""`chorus audit`: are the books in balance? From Redis alone, or from a finished run's folder."""

from __future__ import annotations

import argparse
import json
import os
import zlib
from collections import Counter
from pathlib import Path

from chorus.cli.inspect.live import live_books
from chorus.protocol.ledger import Books
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.exits import CannotGoOn

UNBALANCED = 1


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="chorus audit", description=__doc__)
    parser.add_argument("run", nargs="?", help="a run's folder; or, with --redis, a run id (default: all runs there)")
    parser.add_argument("--redis", metavar="URL", help="read the live books from this server")
    args = parser.parse_args(argv)
    if args.redis:
        return _live(args.redis, args.run)
    if not args.run:
        raise CannotGoOn("give a run's folder, or --redis URL for a live run")
    return audit_folder(Path(args.run))


def _live(url: str, run: str | None) -> int:
    status = os.EX_OK
    for _, run_id, books in live_books(url, run):
        print(format_books(run_id, books))
        status = UNBALANCED if books.difference else status
    return status


def format_books(run_id: str, books: Books) -> str:
    """The books as a person reads them."""
    dropped = ", ".join(f"{n} {reason}" for reason, n in sorted(books.dropped.items())) or "0"
    verdict = "balanced" if books.difference == 0 else f"OUT OF BALANCE BY {books.difference}"
    return (
        f"run {run_id}: {verdict}\n"
        f"  admitted    {books.admitted}\n"
        f"  trained     {books.trained}  ({books.durable} durable)\n"
        f"  dropped     {dropped}\n"
        f"  outstanding {books.outstanding}  ({books.queued} queued, {books.leased} leased, "
        f"{books.unread} unread, {books.read} read)\n"
        f"  foreign     {books.foreign}  (entries nobody admitted, refused)"
    )


def audit_folder(run_dir: Path) -> int:
    """Check a finished run's own files: every group trained once, and as many as its books say."""
    from chorus.protocol.run_folder.checkpoints import read_manifest
    from chorus.protocol.run_folder.rollouts import read_step, stored_steps

    summary_file = run_dir / "summary.json"
    if not summary_file.is_file():
        raise CannotGoOn(f"{run_dir}: no summary.json; give the folder of a run that has ended")
    try:
        ledger = json.loads(summary_file.read_text())["ledger"]
    except (ValueError, KeyError) as error:
        raise CannotGoOn(f"{summary_file}: not the summary of a run ({error}); give the folder of a run") from None
    faults: list[str] = []
    seen: Counter[int] = Counter()
    entries: list[str] = []
    for step, path in stored_steps(RunFolder(run_dir)):
        try:
            rows = read_step(path)
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise CannotGoOn(f"{path}: can't be read ({error}); without it there is no audit") from None
        seen.update(r.group.task.index for r in rows)
        entries += [r.entry.id for r in rows]
        if not rows:
            faults.append(f"step {step} trained on nothing")
    if doubled := [index for index, n in seen.items() if n > 1]:
        faults.append(f"{len(doubled)} groups were trained more than once, index {doubled[0]} among them")
    manifests = [read_manifest(p.parent) for p in sorted((run_dir / "checkpoints").glob("step-*/manifest.json"))]
    durable = [id for m in manifests for id in m.all_entries]
    if durable != entries:
        faults.append(f"manifests list {len(durable)} entries, the stored rollouts {len(entries)}, not the same ones")
    if ledger["trained"] != len(entries):
        faults.append(f"the ledger counted {ledger['trained']} trained, the stored rollouts are {len(entries)}")
    difference = ledger["admitted"] - ledger["trained"] - sum(ledger["dropped"].values()) - ledger["outstanding"]
    if difference:
        faults.append(f"admitted - trained - dropped - outstanding = {difference}")
    for fault in faults:
        print(f"{run_dir}: {fault}")
    verdict = "OUT OF BALANCE" if faults else "balanced"
    print(
        f"{run_dir}: {verdict}: {ledger['admitted']} admitted = {ledger['trained']} trained "
        f"+ {sum(ledger['dropped'].values())} dropped + {ledger['outstanding']} outstanding"
    )
    return UNBALANCED if faults else os.EX_OK
