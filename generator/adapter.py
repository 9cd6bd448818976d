"""Merging an adapter into an engine's weights: W + scaling x B A, from the model's own files each time.

The files hold W untouched; they are mapped, not copied, so their pages are shared by all workers of a machine and given
back when memory is short. The sum is made in float32 and rounded once, to the engine's dtype. What moved is measured on
the sum itself, less W: an adapter that was dropped on the way here has moved nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from chorus.protocol.runtime.adapters import DOWN, UP, Adapter, Moved, checksum

Named = list[tuple[str, torch.Tensor]]


@dataclass
class Base:
    """The tensors of a model's folder, by name."""

    folder: Path
    _files: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path in sorted(self.folder.glob("*.safetensors")):
            file: Any = safe_open(path, framework="pt")
            self._files |= dict.fromkeys(file.keys(), file)

    @property
    def names(self) -> list[str]:
        return sorted(self._files)

    def read(self, name: str) -> torch.Tensor:
        return self._files[name].get_tensor(name)


@dataclass(frozen=True)
class Delivery:
    """One adapter as it came: A and B of each weight, float32."""

    scaling: float
    sent: Named

    @property
    def parts(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        tensors = dict(self.sent)
        layers = [name.removesuffix(DOWN) for name in tensors if name.endswith(DOWN)]
        return {f"{layer}.weight": (tensors[layer + DOWN], tensors[layer + UP]) for layer in layers}

    def seen(self, moved: Mapping[str, Moved]) -> Adapter:
        """What a receiver reports once all is in place."""
        arrays = ((name, tensor.numpy()) for name, tensor in self.sent)
        return Adapter(scaling=self.scaling, checksum=checksum(self.scaling, arrays), moved=dict(moved))


@torch.no_grad()
def merge(
    weight: torch.Tensor, down: torch.Tensor, up: torch.Tensor, scaling: float, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, Moved]:
    """The weight with its adapter, in the engine's dtype, and how far that is from the weight without."""
    base = weight.to(device, torch.float32)
    whole = torch.addmm(base, up.to(device), down.to(device), alpha=scaling)
    moved = Moved(by=_norm(whole - base), of=_norm(base))
    return whole.to(dtype), moved


def _norm(tensor: torch.Tensor) -> float:
    return math.sqrt(float(tensor.square().sum(dtype=torch.float64)))


def together(weights: Iterable[str], base: Iterable[str], packed: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """The engine's layers, each with all of the file's tensors that it is made of.

    An engine fuses some layers (`packed`: q_proj, k_proj and v_proj are its qkv_proj), and loads such a one whole or
    not at all: one adapter in it brings the others along, and their biases.
    """
    fused = {part: whole for whole, parts in packed.items() for part in parts}
    layers: dict[str, list[str]] = {}
    wanted = {_layer(name, fused) for name in weights}
    for name in base:
        if (layer := _layer(name, fused)) in wanted:
            layers.setdefault(layer, []).append(name)
    return layers


def _layer(name: str, fused: Mapping[str, str]) -> str:
    above, _, last = name.rpartition(".")[0].rpartition(".")
    return f"{above}.{fused.get(last, last)}"
