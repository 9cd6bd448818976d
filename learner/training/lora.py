"""Adapters that train in the weights' place, by the library peft: put in, switched off, sent, and merged.

W stays as the model's folder has it       on the learner, and on every generator
A and B, in float32                        train, travel, and stand in a checkpoint beside the merged model
W + alpha / rank x B A                     what a generator samples with, merged there (generator/adapter.py)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from chorus.learner.training.sharding import whole
from chorus.protocol.config.lora import LoraSection
from chorus.protocol.runtime.adapters import DOWN, UP, Adapter, Moved, checksum
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.model_folder import model_folder, tensors_of

_NAME = "default"
_SHOWN = 3


def add_adapters(hf: Any, section: LoraSection, dtype: torch.dtype) -> None:
    """Put an adapter beside every target, on the meta device; nothing else trains any more. Raises CannotGoOn."""
    from peft import LoraConfig, inject_adapter_in_model

    found = _targets(hf, section)
    stored = {name for name, _ in tensors_of(model_folder(hf.config.name_or_path))}
    if absent := sorted(name for name in found if f"{name}.weight" not in stored):
        raise CannotGoOn(
            f"model.lora.targets: {absent[0]}.weight stands in none of the model's files, so no "
            "generator could merge into it; name other layers, or save the model with the installed transformers"
        )
    hf.requires_grad_(False)
    config = LoraConfig(r=section.rank, lora_alpha=section.alpha, target_modules=_names(found), lora_dropout=0.0)  # type: ignore[arg-type]
    with torch.device("meta"):
        inject_adapter_in_model(config, hf, low_cpu_mem_usage=True)
    for _, layer in adapted(hf):
        for part in (layer.lora_A, layer.lora_B):
            part[_NAME].to(dtype).requires_grad_(True)


def first_adapters(hf: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """What A and B of every layer begin as, by the names of the model's parameters: A drawn, B nothing."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for name, layer in adapted(hf):
        for part, held in (("lora_A", layer.lora_A), ("lora_B", layer.lora_B)):
            weight = held[_NAME].weight
            first = torch.zeros(weight.shape)
            if part == "lora_A":  # peft's: uniform within 1 / sqrt(inputs)
                torch.nn.init.kaiming_uniform_(first, a=math.sqrt(5), generator=generator)
            drawn[f"{name}.{part}.{_NAME}.weight"] = first
    return drawn


def adapted(hf: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """The layers that have an adapter, by their names in the model's files."""
    from peft.tuners.lora import LoraLayer

    for name, module in hf.named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


def adapter_parameters(hf: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    """A and B of every layer under the names that travel."""
    return [
        (name + suffix, part[_NAME].weight)
        for name, layer in adapted(hf)
        for suffix, part in ((DOWN, layer.lora_A), (UP, layer.lora_B))
    ]


@contextmanager
def switched_off(hf: torch.nn.Module) -> Iterator[None]:
    """The model without its adapters: the one that the run began with.

    By the flag alone: peft's own switch also says which parameters have gradients, in the middle of a step.
    """
    layers = [layer for _, layer in adapted(hf)]
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


@torch.no_grad()
def base_norms(hf: torch.nn.Module) -> dict[str, float]:
    """The norm of every weight that an adapter moves. A collective where the model is sharded."""
    norms = {}
    for name, layer in adapted(hf):
        norms[f"{name}.weight"] = float(whole(layer.get_base_layer().weight.float().norm()))
    return norms


def expected(scaling: float, norms: Mapping[str, float], sent: Iterable[tuple[str, torch.Tensor]]) -> Adapter:
    """What these adapters must do. The norm of B A is that of two small matrices: it is never made."""
    tensors = dict(sent)
    moved = {}
    for name, norm in norms.items():
        layer = name.removesuffix(".weight")
        down, up = tensors[layer + DOWN].double(), tensors[layer + UP].double()
        squared = float(((up.T @ up) * (down @ down.T)).sum())
        moved[name] = Moved(by=scaling * math.sqrt(max(0.0, squared)), of=norm)
    arrays = ((name, tensor.numpy()) for name, tensor in tensors.items())
    return Adapter(scaling=scaling, checksum=checksum(scaling, arrays), moved=moved)


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name is part of one."""
    return ".lora_" in name


def merged(weight: torch.Tensor, down: torch.Tensor, up: torch.Tensor, scaling: float) -> torch.Tensor:
    """An adapted layer's weight as a model without adapters has it: in float32, rounded once."""
    return (weight.float() + scaling * (up.float() @ down.float())).to(weight.dtype)


@torch.no_grad()
def write_adapter(hf: Any, section: LoraSection, path: Path, write: bool) -> None:
    """A folder in peft's own format, which `PeftModel.from_pretrained` takes. A collective; one rank writes."""
    from peft import LoraConfig

    tensors = {
        f"base_model.model.{name}.{part}.weight": whole(held[_NAME].weight).cpu().contiguous()
        for name, layer in adapted(hf)
        for part, held in (("lora_A", layer.lora_A), ("lora_B", layer.lora_B))
    }
    if not write:
        return
    path.mkdir(parents=True)
    save_file(tensors, path / "adapter_model.safetensors", {"format": "pt"})
    names = _names(name for name, _ in adapted(hf))
    config = LoraConfig(
        r=section.rank, lora_alpha=section.alpha, target_modules=names, lora_dropout=0.0, inference_mode=True,  # type: ignore[arg-type]
        base_model_name_or_path=hf.config.name_or_path, task_type="CAUSAL_LM",
    )  # fmt: skip
    config.save_pretrained(str(path))


def _names(layers: Iterable[str]) -> list[str]:
    """Their last parts, by which peft finds them again."""
    return sorted({name.rpartition(".")[2] for name in layers})


def _targets(hf: Any, section: LoraSection) -> list[str]:
    """The names of the layers. Raises CannotGoOn for a target that is none, and where all are not all."""
    head = hf.get_output_embeddings()
    linear = {n for n, m in hf.named_modules() if isinstance(m, torch.nn.Linear) and m is not head}
    if section.targets == "all-linear":
        fused = sorted(n for n, p in hf.named_parameters() if p.dim() > 2 and "expert" in n)
        if fused:
            raise CannotGoOn(
                f'model.lora.targets = "all-linear": the experts of this model are fused tensors, no layers '
                f"({fused[0]} and {len(fused) - 1} more), and would be left out; name the targets"
            )
        if not linear:
            raise CannotGoOn('model.lora.targets = "all-linear": this model has no linear layers; train it whole')
        return sorted(linear)
    found: set[str] = set()
    for target in section.targets:
        mine = {n for n, _ in hf.named_modules() if n.rpartition(".")[2] == target}
        if not mine or mine - linear:
            there = ", ".join(_names(linear)) or "none"
            what = "no layer has this name" if not mine else f"{min(mine - linear)} is no linear layer of the decoder"
            raise CannotGoOn(f"model.lora.targets: {target}: {what}; the linear layers are {there}")
        found |= mine
    return sorted(found)
