"""New weights of an engine's model, made beside those that compute, and put in place at once.

    prepare(portion) ... between any two steps: a portion's layers are loaded and brought into their kernels' format,
                         then stand aside; the model computes with the old ones as before
    put_in_place()       what stands aside becomes the model's: one copy a tensor, where the kernels read tensors, and
                         another pointer where they read a packed form of their own

A layer's weights are what its module's dictionary holds: parameters, buffers, and what its kernels have made of them.
So a layer is set aside by keeping one dictionary and giving it back the other. A tensor that is read by its address
stays where it is, and the bytes are copied there.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from vllm.model_executor.layers.attention import is_deferred_attention_layer
from vllm.model_executor.layers.fused_moe.routed_experts import RoutedExperts
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
from vllm.model_executor.model_loader.reload import initialize_layerwise_reload
from vllm.model_executor.model_loader.reload.layerwise import _layerwise_process, get_layerwise_info
from vllm.model_executor.model_loader.reload.meta import SKIP_TENSORS

Portion = list[tuple[str, torch.Tensor]]
_State = dict[str, Any]


class Spare:
    """The layers that stand aside. Nothing of the model is changed before `put_in_place`."""

    def __init__(self, model: torch.nn.Module, dtype: torch.dtype) -> None:
        self._model: Any = model
        self._dtype = dtype
        self._aside: dict[torch.nn.Module, _State] = {}
        self._kept: dict[torch.nn.Module, list[Any]] = {}  # tensors that a packed form may point into
        self._layers: dict[tuple[str, ...], list[torch.nn.Module]] = {}  # of a portion, once it has been prepared

    @classmethod
    def of(cls, model: torch.nn.Module, dtype: torch.dtype) -> Spare | None:
        """None: the kernels keep a packed form of these layers elsewhere, as they do of experts."""
        return None if any(isinstance(layer, RoutedExperts) for layer in model.modules()) else cls(model, dtype)

    @torch.no_grad()
    def prepare(self, portion: Portion) -> list[torch.nn.Module]:
        """Returns the layers that stand aside for it."""
        names = tuple(name for name, _ in portion)
        layers = self._layers.get(names) or [*self._model.modules()]
        old = {layer: _state(layer) for layer in layers}
        loaded: list[torch.nn.Module] = []
        try:
            initialize_layerwise_reload(SimpleNamespace(modules=lambda: layers))  # type: ignore[arg-type]
            for layer in layers:
                get_layerwise_info(layer).kernel_tensors = None  # nothing is copied into what computes
                _spare_what_stays(layer)
            self._model.load_weights(iter(portion))
            for layer in layers:
                info = get_layerwise_info(layer)
                if info.can_load() and info.load_numel:  # padded: it is never quite full
                    _layerwise_process(layer, info)
                if not info.can_load():
                    loaded.append(layer)
            self._aside |= {layer: _state(layer) for layer in loaded}
        finally:
            for layer in layers:
                _give(layer, old[layer])
                get_layerwise_info(layer).reset()
        self._layers[names] = loaded
        return loaded

    def missed(self) -> list[str]:
        """Layers with weights of their own that no portion had anything for."""
        has = {id(p) for layer in self._aside for p in layer.parameters(recurse=False)}
        return [
            name
            for name, layer in self._model.named_modules()
            if layer not in self._aside and any(id(p) not in has for p in layer.parameters(recurse=False))
        ]

    def drop(self) -> None:
        self._aside = {}

    @torch.no_grad()
    def tie(self) -> None:
        """A head that is the embedding's tensor has a packed form of its own: it is made anew, and stands aside too."""
        made = {id(layer._parameters.get("weight")): layer for layer in self._aside}
        for head in self._model.modules():
            source = made.get(id(head._parameters.get("weight"))) if isinstance(head, VocabParallelEmbedding) else None
            if source is None or head in self._aside:
                continue
            old = _state(head)
            head._parameters["weight"] = self._aside[source]["_parameters"]["weight"]
            head.quant_method.process_weights_after_loading(head)
            self._aside[head] = _state(head)
            _give(head, old)

    @torch.no_grad()
    def put_in_place(self) -> None:
        for layer, new in self._aside.items():
            self._kept[layer] = [*new["_parameters"].values()]
            for kind in ("_parameters", "_buffers"):
                live: dict[str, Any] = getattr(layer, kind)
                new[kind] |= {name: _into(live[name], tensor) for name, tensor in new[kind].items() if name in live}
            _give(layer, new)
        for layer in self._model.modules():
            if is_deferred_attention_layer(layer):
                layer.process_weights_after_loading(self._dtype)
        self._aside = {}


def _state(layer: torch.nn.Module) -> _State:
    state = dict(layer.__dict__)
    return (
        state
        | {kind: dict(state[kind]) for kind in ("_parameters", "_buffers")}
        | {"_non_persistent_buffers_set": set(state["_non_persistent_buffers_set"])}
    )


def _give(layer: torch.nn.Module, state: _State) -> None:
    layer.__dict__.clear()
    layer.__dict__.update(state)


def _spare_what_stays(layer: torch.nn.Module) -> None:
    """vLLM loads these into the very tensors that compute; here they go into others."""
    for name in SKIP_TENSORS:
        tensor = layer._parameters.get(name)
        if tensor is not None:
            spare: Any = tensor.data.clone()
            spare.__class__, spare.__dict__ = tensor.__class__, tensor.__dict__.copy()
            layer._parameters[name] = spare


def _into(live: torch.Tensor | None, new: torch.Tensor | None) -> torch.Tensor | None:
    """The live tensor with the new one's bytes, where it can hold them."""
    if live is None or new is None or live.shape != new.shape or live.dtype != new.dtype or live.device != new.device:
        return new
    live.data.copy_(new.data)
    return live
