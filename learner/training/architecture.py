"""What differs from one decoder to the next: its attention, its last step to logits, its names in files.

A policy runs the decoder and the head by itself, so that logits exist only where a token is predicted. What a class
does between head and logits is told here; whether it is told right, `check_forward` finds out at the start, in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.core_model_loading import revert_weight_conversion
from transformers.models.auto.auto_factory import _get_model_class

from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.model_folder import model_folder, tensors_of

_TOKENS = 8
_TOLERANCE, _HALF_TOLERANCE = 1e-4, 5e-2  # nats, on average; with bfloat16


def class_of(path: str) -> tuple[Any, Any]:
    """The causal language model that transformers has for a folder, and its configuration. Raises OSError or
    ValueError."""
    config = AutoConfig.from_pretrained(path)
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise ValueError(f"a {config.model_type} is no causal language model")
    kind: Any = _get_model_class(config, AutoModelForCausalLM._model_mapping)
    text = getattr(config, "sub_configs", {}).get("text_config")
    return kind, config.get_text_config() if kind.config_class == text else config


def attention_of(path: str, cuda: bool) -> str:
    """The fastest attention that computes what the class means; eager keeps its scores, which costs memory.

    transformers' sdpa passes over a soft cap of the scores without a word. Raises OSError or ValueError.
    """
    model, config = class_of(path)
    capped = getattr(config.get_text_config(), "attn_logit_softcapping", None)
    if model._supports_sdpa and not capped:
        return "sdpa"
    return "flex_attention" if cuda and model._supports_flex_attn else "eager"


def check_engine(path: str, dtype: str, context: int, on_cpus: bool) -> None:
    """Whether vLLM computes the class as transformers does, where it is known not to. Raises CannotGoOn, or OSError or
    ValueError for a folder that holds no model."""
    config = class_of(path)[1]
    why = ""
    if config.model_type == "apertus" and dtype == "float32":
        why = "keeps the factors of its activation in bfloat16 in a float32 run, too; set model.dtype to bfloat16"
    elif config.model_type == "cohere2" and context > config.sliding_window:
        why = (
            f"lets its sliding attention see one token more than transformers does, so that they differ beyond "
            f"{config.sliding_window} tokens; set model.context to that or less"
        )
    elif config.model_type in ("deepseek_v3", "lfm2") and on_cpus:
        why = "is off on CPUs before any weights are sent; give generators GPUs, or take another model"
    if why:
        raise CannotGoOn(f"model.path {path}: vLLM computes {config.model_type} in another way: it {why}")


def finish_logits(config: Any, logits: torch.Tensor) -> torch.Tensor:
    """What the class does with what its head gives."""
    c = config.get_text_config()
    kind = str(c.model_type)
    if kind.startswith("granite") or kind == "minicpm3":
        logits = logits / c.logits_scaling
    elif kind.startswith("cohere"):
        logits = logits * c.logit_scale
    elif kind == "hyperclovax":
        logits = logits * c.logits_scaling
    elif kind == "falcon_h1":
        logits = logits * c.lm_head_multiplier
    if cap := getattr(c, "final_logit_softcapping", None):
        logits = cap * torch.tanh(logits / cap)
    return logits


@torch.no_grad()
def check_forward(policy: Any, half: bool, device: torch.device) -> None:
    """Whether the policy's log-probabilities are the model's own, on some tokens. Raises CannotGoOn. A collective."""
    hf = policy.hf
    ids = (torch.arange(1, _TOKENS + 1, device=device) * 7 % hf.config.get_text_config().vocab_size)[None]
    asked = ids, torch.arange(_TOKENS - 1, device=device), ids[0, 1:]
    gap = float((policy(*asked)[0] - policy(*asked, own=True)[0]).abs().mean())
    if not gap <= (_HALF_TOLERANCE if half else _TOLERANCE):
        raise CannotGoOn(
            f"model.path {hf.config.name_or_path}: a {hf.config.model_type} model makes its logits in a way that "
            f"Chorus does not know: log-probabilities are off by {gap:.2g} from the model's own; take another model"
        )


def check_names(hf: Any, sent: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Whether what travels are tensors of the model's files, from which an engine loads. Raises CannotGoOn.

    An engine passes over a name that it does not know without a word.
    """
    stored = dict(tensors_of(model_folder(hf.config.name_or_path)))
    stored |= {f"{hf.base_model_prefix}.{name}": shape for name, shape in stored.items()}
    heads = [stored[name] for name in hf.all_tied_weights_keys if name in stored]
    names: set[str] = set()
    for name, tensor in sent if stored else ():  # of a folder of pickles nothing is known
        shape = list(tensor.shape)
        if name in names or (stored.get(name) != shape and shape not in heads):
            there = "comes twice" if name in names else f"is {stored[name]} there" if name in stored else "is not there"
            raise CannotGoOn(
                f"model.path {hf.config.name_or_path}: an engine can't be sent a {hf.config.model_type} model under "
                f"the names of its files: {name} {shape} {there}; save the model with the installed transformers, or "
                "take another one"
            )
        names.add(name)


def file_tensors(hf: Any, name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """A parameter as the model's files have it, and an engine loads it: under its own name there, or as several.

    transformers holds the experts of a layer in one tensor; files hold one an expert.
    """
    return revert_weight_conversion(hf, {name: tensor})
