"""Checkpoints: written whole or not at all.

    <run>/checkpoints/step-000040/
        state/           model and optimizer, torch.distributed.checkpoint (any number of ranks can load it)
        huggingface/     the policy as a Hugging Face folder
        manifest.json    written last; a folder without it is no checkpoint

The manifest names the rollout entries trained since the checkpoint before. Only after it is on disk are
they acknowledged on the ledger; a crash between the two is mended at resume, since that is idempotent.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from transformers import AutoTokenizer

from chorus.learner.training.policy import Policy

_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """`entries`: rollout entry ids trained since the checkpoint before, by step and in order.

    `rolled_back_to`: the policy had collapsed at `step`, and the checkpoint holds the state of that earlier one.
    """

    step: int
    fence: int
    entries: dict[int, list[str]]
    rolled_back_to: int | None = None

    @property
    def all_entries(self) -> list[str]:
        return [id for step in sorted(self.entries) for id in self.entries[step]]


def save(folder: Path, policy: Policy, optimizer: torch.optim.Optimizer, manifest: Manifest) -> Path:
    """Write a checkpoint; a collective, all ranks call it. Returns its folder."""
    path = folder / f"step-{manifest.step:06d}"
    rank = dist.get_rank() if dist.is_initialized() else 0
    if rank == 0:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
    if dist.is_initialized():
        dist.barrier()
    model_state, optimizer_state = get_state_dict(policy, optimizer)
    try:
        state_dict_saver.save({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=str(path / "state"))
    except CheckpointException as error:  # a BaseException, which nobody expects
        rank, (cause, _) = next(iter(error.failures.items()))
        raise RuntimeError(f"{path}: rank {rank} can't write it: {cause}") from cause
    full = get_state_dict(policy, [], options=StateDictOptions(full_state_dict=True, cpu_offload=True))[0]
    if rank == 0:
        _export(policy, full, path / "huggingface")
        _write_last(path / _MANIFEST, manifest)
    return path


def _export(policy: Policy, full: Mapping[str, Any], path: Path) -> None:
    weights = {name.removeprefix("hf."): tensor for name, tensor in full.items()}
    policy.hf.save_pretrained(path, state_dict=weights, safe_serialization=True)
    source = Path(policy.hf.config.name_or_path)
    if source.is_dir():
        for file in source.glob("*token*"):  # as they are: loading could force another class on them
            shutil.copy(file, path / file.name)
    else:
        AutoTokenizer.from_pretrained(policy.hf.config.name_or_path).save_pretrained(path)


def _write_last(path: Path, manifest: Manifest) -> None:
    text = json.dumps(asdict(manifest))
    partial = path.with_suffix(".partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def read_manifest(path: Path) -> Manifest:
    fields = json.loads((path / _MANIFEST).read_text())
    entries = {int(k): v for k, v in fields["entries"].items()}
    return Manifest(fields["step"], fields["fence"], entries, fields.get("rolled_back_to"))


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint."""
    return max(_whole(folder), default=None)


def oldest(folder: Path) -> Path | None:
    """The oldest whole checkpoint that pruning has left its state."""
    return min((path for path in _whole(folder) if (path / "state").is_dir()), default=None)


def rollbacks(folder: Path) -> list[int]:
    """The steps at which the run went back to an earlier checkpoint."""
    manifests = map(read_manifest, _whole(folder))
    return [m.step for m in manifests if m.rolled_back_to is not None]


def _whole(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if (path / _MANIFEST).is_file())


def load(path: Path, policy: Policy, optimizer: torch.optim.Optimizer) -> Manifest:
    """Restore policy and optimizer in place; a collective."""
    model_state, optimizer_state = get_state_dict(policy, optimizer)
    state = {"model": model_state, "optimizer": optimizer_state}
    state_dict_loader.load(state, checkpoint_id=str(path / "state"))
    set_state_dict(policy, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    return read_manifest(path)


def prune(folder: Path, keep: int, selected: int | None = None) -> None:
    """Keep the newest `keep` checkpoints, that of the selected step, and every manifest: the audit of a finished run
    reads them."""
    for path in _whole(folder)[:-keep]:
        if path.name == f"step-{selected or 0:06d}":
            continue
        for part in ("state", "huggingface"):
            shutil.rmtree(path / part, ignore_errors=True)
