"""A model folder of a few kilobytes, with the starter's tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from chorus.protocol.templates.load import choose_templates
from chorus.starter.tokenizer import build_tokenizer

TEMPLATE = "qwen-math"


def save_tiny_model(
    folder: Path, hidden_size: int = 16, tied: bool = False, templates: Sequence[str] = (TEMPLATE,)
) -> Path:
    """The same weights every time. vLLM's CPU attention takes heads of 32 and more: `hidden_size` 64. `tied`: the head
    is the embedding."""
    tokenizer = build_tokenizer(choose_templates(templates).values())
    shape = {"intermediate_size": 2 * hidden_size, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape["tie_word_embeddings"] = tied
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), hidden_size=hidden_size, **shape))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
