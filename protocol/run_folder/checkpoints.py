"""Checkpoints as folders: which are whole, what their manifests say, which may go. Nothing here needs torch.

    <run>/checkpoints/step-000040/
        state/           model, optimizer and, where it is reset, the reference policy: torch.distributed.checkpoint
                         (any number of ranks can load it)
        huggingface/     the policy as a Hugging Face folder; of a run that trains an adapter, merged
        adapter/         the adapter, in peft's format, where one is trained
        manifest.json    written last; a folder without it is no checkpoint

The manifest names the rollout entries trained since the checkpoint before. Only after it is on disk are they
acknowledged on the ledger; a crash between the two is mended at resume, since that is idempotent.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chorus.protocol.run_folder.files import write_json

_MANIFEST = "manifest.json"
# Not in the manifests of every version.
_LATER = ("rolled_back_to", "lineage", "trained", "admitted", "problems", "at", "methods")
STATE, EXPORT, ADAPTER = "state", "huggingface", "adapter"


@dataclass(frozen=True)
class Manifest:
    """`entries`: rollout entry ids trained since the checkpoint before, by step and in order.

    `rolled_back_to`: the policy had collapsed at `step`, and the checkpoint holds the state of that earlier one.
    `lineage`: of its ledger; `trained`: groups in it so far; `admitted`: the index of the group that came next (None:
    an older version wrote it). `problems`: fingerprint of what it was trained on. `at`: unix seconds. `methods`: what
    methods keep beside the weights, by name, as JSON.
    """

    step: int
    fence: int
    entries: dict[int, list[str]]
    rolled_back_to: int | None = None
    lineage: int = 1
    trained: int = 0
    admitted: int | None = None
    problems: str = ""
    at: float = 0.0
    methods: dict[str, Any] = field(default_factory=dict)

    @property
    def all_entries(self) -> list[str]:
        return [id for step in sorted(self.entries) for id in self.entries[step]]


def folder_of(checkpoints: Path, step: int) -> Path:
    return checkpoints / f"step-{step:06d}"


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Make a checkpoint of the folder `path`: on the disk before it returns."""
    write_json(path / _MANIFEST, asdict(manifest), durable=True)


def read_manifest(path: Path) -> Manifest:
    fields = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
    entries = {int(k): v for k, v in fields["entries"].items()}
    known = {name: fields[name] for name in _LATER if name in fields}
    return Manifest(fields["step"], fields["fence"], entries, **known)


def whole(checkpoints: Path) -> list[Path]:
    """All checkpoints in the order of their steps, also those whose state was pruned."""
    return sorted(path for path in checkpoints.glob("step-*") if (path / _MANIFEST).is_file())


def loadable(checkpoints: Path) -> list[Path]:
    """Those that pruning has left their state."""
    return [path for path in whole(checkpoints) if (path / STATE).is_dir()]


def latest(checkpoints: Path) -> Path | None:
    """The newest whole checkpoint."""
    return max(whole(checkpoints), default=None)


def trained_in(checkpoints: Path, lineage: int, since: float = 0.0) -> int:
    """Groups that the checkpoints of a lineage hold, of those written at `since` or later."""
    manifests = map(read_manifest, whole(checkpoints))
    return sum(len(m.all_entries) for m in manifests if m.lineage == lineage and m.at >= since)


def oldest(checkpoints: Path, keep: int) -> Path | None:
    """Of the newest `keep` checkpoints that can be loaded. What pruning spares beside them may be of long ago."""
    return min(loadable(checkpoints)[-keep:], default=None)


def rollbacks(checkpoints: Path) -> list[int]:
    """The steps at which the run went back to an earlier checkpoint."""
    manifests = map(read_manifest, whole(checkpoints))
    return [m.step for m in manifests if m.rolled_back_to is not None]


def undone_before(checkpoints: Path, lineage: int) -> int:
    """The fence since the newest way back: weights of earlier ones are undone. 0: there was none in this lineage."""
    manifests = map(read_manifest, whole(checkpoints))
    return max((m.fence for m in manifests if m.rolled_back_to is not None and m.lineage == lineage), default=0)


def before(checkpoints: Path, alarms: Sequence[int]) -> list[int]:
    """The steps of the last checkpoints from before the first and from before the newest of these steps.

    A warning is often seen late; by then the newest checkpoints are those of a broken policy.
    """
    steps = [read_manifest(path).step for path in loadable(checkpoints)] if alarms else []
    last = [max((step for step in steps if step < alarm), default=None) for alarm in {*alarms[:1], *alarms[-1:]}]
    return [step for step in last if step is not None]


def prune(
    checkpoints: Path, keep: int, steps: Iterable[int | None] = (), thin: Callable[[Path], None] | None = None
) -> None:
    """Keep the newest `keep` checkpoints, those of these `steps`, and every manifest: the audit of a finished run
    reads them. `thin`: keep the exports of the others too, made smaller by it."""
    kept = {folder_of(checkpoints, step) for step in steps if step is not None}
    for path in whole(checkpoints)[:-keep]:
        if path in kept:
            continue
        if thin is None:
            shutil.rmtree(path / EXPORT, ignore_errors=True)
            shutil.rmtree(path / ADAPTER, ignore_errors=True)
        elif (path / STATE).is_dir():  # its state goes last: what a crash left half done is done again
            thin(path / EXPORT)
        shutil.rmtree(path / STATE, ignore_errors=True)
