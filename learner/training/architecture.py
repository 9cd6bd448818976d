"""What differs from one decoder to the next: its attention, its last step to logits, its names in files.

A policy runs the decoder and the head by itself, so that logits exist only where a token is predicted. What a class
does between head and logits is told here; whether it is told right, `check_forward` finds out at the start, in seconds.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.core_model_loading import revert_weight_conversion

from chorus.protocol.runtime.exits import CannotGoOn

_TOKENS = 8
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}  # nats, on average


def attention_of(path: str, cuda: bool) -> str:
    """The fastest attention that computes what the class means; eager keeps its scores, which costs memory.

    transformers' sdpa passes over a soft cap of the scores without a word. Raises OSError or ValueError.
    """
    config = AutoConfig.from_pretrained(path)
    model: Any = AutoModelForCausalLM._model_mapping.get(type(config), None)
    if model is None:
        raise ValueError(f"a {config.model_type} is no causal language model")
    capped = getattr(config.get_text_config(), "attn_logit_softcapping", None)
    if model._supports_sdpa and not capped:
        return "sdpa"
    return "flex_attention" if cuda and model._supports_flex_attn else "eager"


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
def check_forward(policy: Any) -> None:
    """Whether the policy's log-probabilities are the model's own, on some tokens. Raises CannotGoOn.

    Before the model is sharded: afterwards only a policy as a whole can run.
    """
    hf = policy.hf
    device, dtype = hf.get_input_embeddings().weight.device, hf.get_input_embeddings().weight.dtype
    ids = (torch.arange(1, _TOKENS + 1, device=device) * 7 % hf.config.get_text_config().vocab_size)[None]
    ours, _ = policy(ids, torch.arange(_TOKENS - 1, device=device), ids[0, 1:])
    logits = hf(input_ids=ids, use_cache=False).logits[0, :-1].float() / policy.temperature
    theirs = torch.log_softmax(logits, -1).gather(-1, ids[0, 1:, None])[:, 0]
    gap = float((ours - theirs).abs().mean())
    if not gap <= _TOLERANCE[dtype]:
        raise CannotGoOn(
            f"model.path {hf.config.name_or_path}: a {hf.config.model_type} model makes its logits in a way that "
            f"Chorus does not know: log-probabilities are off by {gap:.2g} from the model's own; take another model"
        )


def file_tensors(hf: Any, name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """A parameter as the model's files have it, and an engine loads it: under its own name there, or as several.

    transformers holds the experts of a layer in one tensor; files hold one an expert.
    """
    return revert_weight_conversion(hf, {name: tensor})
