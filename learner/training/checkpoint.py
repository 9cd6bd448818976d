"""Checkpoints written and loaded: collectives of all ranks. Their layout is protocol/run_folder/checkpoints.py's.

    save ─▶ a copy of all that it holds, in host memory ─▶ a thread of each rank writes it, while training goes on

`optimizers`: by the name under which the checkpoint has them. One that has never stepped is not in it, and one that is
not in it begins anew.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_state_dict,
)
from torch.utils._pytree import tree_map_only

from chorus.learner.training.export import Export, check_export
from chorus.learner.training.lora import is_adapter, write_adapter
from chorus.learner.training.policy import Policy
from chorus.learner.training.sharding import gathered, memory_of
from chorus.protocol.run_folder.checkpoints import (
    ADAPTER,
    EXPORT,
    STATE,
    Manifest,
    folder_of,
    read_manifest,
    write_manifest,
)
from chorus.protocol.runtime.exits import CannotGoOn, first_line

Optimizers = Mapping[str, torch.optim.Optimizer]
_REFERENCE = "reference"
WRITE_DEADLINE_S = 3600.0  # for the disk, and for a rank that writes its part


class Saving:
    """A checkpoint on its way to the disk, in a thread of its own, which a process that ends does not wait for."""

    def __init__(self, path: Path, work: Callable[[], None]) -> None:
        self._path = path
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._carry_out, args=(work,), name="checkpoint", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Written, or failed: `wait` returns at once."""
        return not self._thread.is_alive()

    def wait(self) -> Path:
        """Its folder, once it is a checkpoint. Raises what writing it has raised, and CannotGoOn after the deadline."""
        self._thread.join(WRITE_DEADLINE_S)
        if not self.done:
            raise CannotGoOn(f"{self._path}: it was not written after {WRITE_DEADLINE_S:g} s; does its disk answer?")
        if self._error is not None:
            raise self._error
        return self._path

    def _carry_out(self, work: Callable[[], None]) -> None:
        try:
            work()
        except CheckpointException as error:  # a BaseException, which nobody expects
            failed, (cause, _) = next(iter(error.failures.items()))
            self._error = RuntimeError(f"{self._path}: rank {failed} can't write it: {cause}")
            self._error.__cause__ = cause
        except Exception as error:
            self._error = error


def save(
    folder: Path,
    policy: Policy,
    optimizers: Optimizers,
    manifest: Manifest,
    check: bool = False,
    reference: Policy | None = None,
    beside: dist.ProcessGroup | None = None,
) -> Saving:
    """Begin a checkpoint; a collective, all ranks call it. It holds all as it is now, whatever trains meanwhile.

    `check`: look at its export, too, and return once all is written. `reference`: where it must be in it, since it is
    not the policy that the run began with. `beside`: of all ranks, over which nobody else speaks until it is written.
    """
    path = folder_of(folder, manifest.step)
    first = not dist.is_initialized() or dist.get_rank() == 0
    if first:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
    if dist.is_initialized():
        dist.barrier()
    export = Export(policy, path / EXPORT)
    if policy.lora:
        write_adapter(policy.hf, policy.lora, path / ADAPTER, write=first)
    stepped = {name: optimizer for name, optimizer in optimizers.items() if optimizer.state}
    live = _state_of(policy, stepped, reference)
    state = tree_map_only(torch.Tensor, _copied, live)
    copies = {memory_of(tensor): state["model"][name] for name, tensor in live["model"].items()}

    def as_it_was(tensor: torch.Tensor) -> torch.Tensor:
        copy = copies.get(memory_of(tensor))
        assert copy is not None or not tensor.requires_grad, "what trains is in the state"
        return gathered(tensor if copy is None else copy, beside)

    def write() -> None:
        state_dict_saver.save(state, checkpoint_id=str(path / STATE), process_group=beside)
        export.write(as_it_was, first)
        if first:
            if check:
                check_export(policy, path / EXPORT)
            write_manifest(path, manifest)

    saving = Saving(path, write)
    if check:
        saving.wait()
    return saving


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    """In host memory, with memory of its own. torch's own stager knows no moments of 8 bits."""
    return tensor.detach().clone() if tensor.device.type == "cpu" else tensor.detach().to("cpu")


def has_reference(path: Path) -> bool:
    """Whether the checkpoint holds a reference policy."""
    return any(name.startswith(f"{_REFERENCE}.") for name in _stored(path))


def _stored(path: Path) -> Iterable[str]:
    """The names of all that the checkpoint holds."""
    return FileSystemReader(path / STATE).read_metadata().state_dict_metadata


def load(path: Path, policy: Policy, optimizers: Optimizers, reference: Policy | None = None) -> Manifest:
    """Restore policy, optimizers and, where it is given, the reference in place; a collective. The optimizers' settings
    stay those of the configuration.

    Raises CannotGoOn for the state of a model of other shapes.
    """
    stored = _stored(path)
    known = {name: o for name, o in optimizers.items() if any(key.startswith(f"{name}.") for key in stored)}
    for name, optimizer in optimizers.items():
        optimizer.zero_grad(set_to_none=True)
        if name not in known:
            optimizer.state.clear()
    state = _state_of(policy, known, reference)
    try:
        state_dict_loader.load(state, checkpoint_id=str(path / STATE))
    except CheckpointException as error:
        cause, _ = next(iter(error.failures.values()))
        if "exp_avg" in str(cause) and "issing key" in str(cause):
            raise CannotGoOn(
                f"{path}: its optimizer is another than learner.optimizer ({first_line(cause)}); resume with the one "
                "that the run began with"
            ) from None
        raise CannotGoOn(
            f"{path}: it can't be loaded into the model of model.path ({first_line(cause)}); resume with the model "
            "that the run began with"
        ) from None
    for name, optimizer in known.items():
        settings = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
        # Beside adapters the model's own weights are those of its folder, and no checkpoint holds them.
        how = StateDictOptions(strict=not getattr(policy, "lora", None))
        set_state_dict(policy, optimizer, model_state_dict=state["model"], optim_state_dict=state[name], options=how)
        for group, wanted in zip(optimizer.param_groups, settings, strict=True):
            group.update(wanted)
    if reference is not None:
        set_model_state_dict(reference, state[_REFERENCE])
    return read_manifest(path)


def _state_of(policy: Policy, optimizers: Optimizers, reference: Policy | None) -> dict[str, Any]:
    """What torch.distributed.checkpoint writes, and reads into."""
    model = get_model_state_dict(policy)
    if getattr(policy, "lora", None):
        model = {name: value for name, value in model.items() if is_adapter(name)}
    state: dict[str, Any] = {"model": model}
    if reference is not None:
        state[_REFERENCE] = get_model_state_dict(reference)
    return state | {name: get_optimizer_state_dict(policy, optimizer) for name, optimizer in optimizers.items()}
