"""A model in as many parts as there are ranks, from its first tensor on: no rank ever holds it whole.

modules on the meta device     no memory
fully_shard                    layer by layer, then the rest
files                          every rank reads of each tensor the rows that are its own, one tensor after another
what no file holds             rotary frequencies, scales: made anew, as transformers makes them
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import safe_open
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers.core_model_loading import convert_and_load_state_dict_in_model

from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.model_folder import tensors_in

Tensors = Mapping[str, Any]


def shard(policy: Any, half: bool, device: torch.device) -> None:
    """Cut a policy's parameters into as many parts as there are ranks."""
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    precision = (
        MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32) if half else MixedPrecisionPolicy()
    )
    for layer in layers_of(policy.hf):
        fully_shard(layer, mesh=mesh, mp_policy=precision)
    fully_shard(policy, mesh=mesh, mp_policy=precision)


def put_parts_back(policy: torch.nn.Module) -> None:
    """A forward pass without a backward leaves what is no layer whole, in the place of the parts that train."""
    if isinstance(policy, FSDPModule):
        policy.reshard()


def layers_of(hf: Any) -> torch.nn.ModuleList:
    return next(module for module in hf.get_decoder().children() if isinstance(module, torch.nn.ModuleList))


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A parameter or a buffer of all ranks. A collective where it is sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def memory_of(tensor: torch.Tensor) -> tuple[int, int]:
    """Where this rank's part of it lies. Of two that are one tensor the same."""
    part = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return part.data_ptr(), part.numel()


def gathered(tensor: torch.Tensor, group: dist.ProcessGroup | None) -> torch.Tensor:
    """A tensor of all ranks, whole on the first one, over a group of one's own and through host memory. A collective;
    the other ranks get one without memory."""
    if not isinstance(tensor, DTensor):
        return tensor
    part, world, rows = tensor.to_local().cpu(), dist.get_world_size(group), tensor.shape[0]
    most = -(-rows // world)  # each rank's, but for the last ones'
    own = part.new_zeros(most, *tensor.shape[1:])
    own[: len(part)] = part
    all_parts = [torch.empty_like(own) for _ in range(world)] if dist.get_rank(group) == 0 else None
    dist.gather(own, all_parts, dst=0, group=group)
    return torch.cat(all_parts)[:rows] if all_parts else torch.empty(tensor.shape, dtype=part.dtype, device="meta")


def load_in_parts(
    kind: Any, config: Any, path: str, device: torch.device, prepare: Callable[[Any], Tensors], **how: Any
) -> None:
    """What `kind.from_pretrained(path, config, **how)` makes, of which each rank keeps its part.

    `prepare` shards the model, still on the meta device, and returns what its parameters hold that stand in no file; a
    parameter that it renames is found by `.base_layer` in its name.
    """

    def load(hf: Any, _: Any, files: list[str], settings: Any, *__: Any) -> tuple[Any, None]:
        if not all(file.endswith(".safetensors") for file in files):
            raise CannotGoOn(f"model.path {path}: several ranks read safetensors alone; save the model so")
        hf.tie_weights()
        added = prepare(hf)
        if any(p.dim() > 2 and not p.to_local().numel() for p in hf.parameters() if isinstance(p, DTensor)):
            raise CannotGoOn(
                f"model.path {path}: its layers have too few experts for {dist.get_world_size()} learner ranks, of "
                "which each keeps some; take fewer ranks"
            )
        renamed = {name.replace(".base_layer.", "."): name for name in hf.state_dict() if ".base_layer." in name}
        stored: dict[str, Any] = {renamed.get(s.name, s.name): s for file in files for s in stored_in(Path(file))}
        os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"  # one tensor after another, not all at once, in threads
        found, _ = convert_and_load_state_dict_in_model(hf, stored | dict(added), settings)
        return found, None

    kind._load_pretrained_model = staticmethod(load)
    try:
        kind.from_pretrained(path, config=config, device_map={"": device}, **how)
    finally:
        del kind._load_pretrained_model  # its own is a parent's


@dataclass(frozen=True)
class Stored:
    """One tensor of a file. Only what is asked for is read, and the file is closed again: no page of it stays."""

    file: Path
    name: str
    shape: list[int]

    def get_shape(self) -> list[int]:
        return self.shape

    def __getitem__(self, index: Any) -> torch.Tensor:
        with safe_open(self.file, framework="pt") as opened:
            return opened.get_slice(self.name)[index].clone()


def stored_in(file: Path) -> list[Stored]:
    return [Stored(file, name, shape) for name, shape in tensors_in(file)]
