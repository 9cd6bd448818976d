"""Are the accounts in balance? From the Redis of a run that is going on, or from the folder of one that has ended."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

from chorus.cli.inspect.live import find, format_accounts, format_totals, run_options
from chorus.cli.inspect.standing import is_run
from chorus.protocol.run_folder.checkpoints import read_manifest, whole
from chorus.protocol.run_folder.files import read_json
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.hold import is_held
from chorus.protocol.run_folder.rollouts import UNREADABLE, read_step, stored_steps
from chorus.protocol.runtime.command_line import command
from chorus.protocol.runtime.exits import CannotGoOn

UNBALANCED = 1


@command(
    "audit",
    help=__doc__,
    examples=["chorus audit runs/demo-20261121-231924", "chorus audit --redis redis://127.0.0.1:6379/0"],
)
@run_options
def main(run: str | None, url: str | None) -> int:
    folder = Path(run) if run is not None and url is None else None
    if folder and folder.is_dir() and (_has_ended(folder) or not is_run(RunFolder(folder))):
        return audit_folder(folder)
    found = find(run, url)
    for live in found.live:
        print(format_accounts(live.run_id, live.accounts))
    if found.folder and not found.live:
        return audit_folder(found.folder)
    return UNBALANCED if any(live.accounts.difference for live in found.live) else os.EX_OK


def _has_ended(folder: Path) -> bool:
    return (folder / "summary.json").is_file() and not is_held(folder)


def audit_folder(run_dir: Path) -> int:
    """Check a finished run's own files: every group trained once, and as many as its accounts say."""
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
        except UNREADABLE as error:
            raise CannotGoOn(
                f"{path}: can't be read ({error}); put it back from a copy, since without it there is no audit"
            ) from None
        seen.update(r.group.task.index for r in rows)
        entries += [r.entry.id for r in rows]
        if not rows:
            faults.append(f"step {step} trained on nothing")
    if doubled := [index for index, n in seen.items() if n > 1]:
        faults.append(f"{len(doubled)} groups were trained more than once, index {doubled[0]} among them")
    manifests = [read_manifest(path) for path in whole(RunFolder(run_dir).checkpoints)]
    durable = [id for manifest in manifests for id in manifest.all_entries]
    # A ledger knows of its own lineage alone.
    before = sum(len(m.all_entries) for m in manifests if m.lineage < manifests[-1].lineage)
    if durable != entries:
        faults.append(f"manifests list {len(durable)} entries, the stored rollouts {len(entries)}, not the same ones")
    if ledger["trained"] != len(entries) - before:
        faults.append(
            f"the ledger counted {ledger['trained']} trained, the stored rollouts are {len(entries) - before}"
        )
    difference = ledger["admitted"] - ledger["trained"] - sum(ledger["dropped"].values()) - ledger["outstanding"]
    if difference:
        faults.append(f"admitted - trained - dropped - outstanding = {difference}")
    for fault in faults:
        print(f"{run_dir}: {fault}")
    verdict = "OUT OF BALANCE" if faults else "balanced"
    print(f"{run_dir}: {verdict}: {format_totals(ledger)}")
    for begun in read_json(summary_file).get("lineages", ()):
        print(
            f"{run_dir}: lineage {begun['lineage']} began at step {begun['step']} with index {begun['first_index']}; "
            f"{begun['untrained']} indices before it were never trained"
        )
    return UNBALANCED if faults else os.EX_OK
