"""Tiny random models, one of each architecture, that show what a policy and an engine must agree on.

Two layers. Weights are large enough for logits to matter; no scale, bias, sink or cap is what it is by default.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tinymodel import TEMPLATE
from transformers import AutoConfig, AutoModelForCausalLM

from chorus.protocol.templates.load import choose_templates
from chorus.starter.tokenizer import build_tokenizer

_DECODER = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 32, "max_position_embeddings": 512, "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_TIED = {"tie_word_embeddings": True}
_SLIDING = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
# What each has beside the common shape. vLLM's CPU attention takes heads of 32 and more, its
# latent attention those of 512 + 64 alone.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "apertus": {},
    "arcee": {},
    "cohere": {"logit_scale": 0.3, "use_qk_norm": False, **_TIED},
    "cohere2": {"logit_scale": 0.3, **_SLIDING, "sliding_window": 128, **_TIED},
    "cohere2, longer than its window": {"logit_scale": 0.3, **_SLIDING, **_TIED},
    "deepseek_v3": {
        "q_lora_rank": 32, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 32, "v_head_dim": 32,
        "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_group": 1, "topk_group": 1,
        "first_k_dense_replace": 1, "num_key_value_heads": 2, "routed_scaling_factor": 2.0, "head_dim": 64,
        "topk_method": "noaux_tc", "scoring_func": "sigmoid",  # as published folders say, and vLLM asks
    },
    "ernie4_5": {},
    "exaone4": _SLIDING,
    "gemma": {"hidden_activation": "gelu_pytorch_tanh", **_TIED},
    "gemma2": {
        "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0, "query_pre_attn_scalar": 24, **_SLIDING, **_TIED,
    },
    "gemma3_text": {"query_pre_attn_scalar": 24, **_SLIDING, **_TIED},
    "glm": {"partial_rotary_factor": 0.5},
    "glm4": {"partial_rotary_factor": 0.5},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 512},
    "gpt_neox": {"num_key_value_heads": 2},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, **_SLIDING},
    "granite": {
        "logits_scaling": 4.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5, "attention_multiplier": 0.1,
    },
    "granitemoe": {
        "num_local_experts": 4, "num_experts_per_tok": 2, "logits_scaling": 4.0, "embedding_multiplier": 3.0,
        "residual_multiplier": 0.5, "attention_multiplier": 0.1,
    },
    "hunyuan_v1_dense": {},
    "lfm2": {
        "layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False,
        "conv_dim": 64, "block_dim": 64, **_TIED,  # as published folders say, and vLLM asks
    },
    "llama": {},
    "llama, tied": _TIED,
    "mistral": {"sliding_window": 16},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "nemotron": {},
    "olmo": {},
    "olmo2": {},
    "olmo3": _SLIDING,
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "phi": {"num_key_value_heads": 2},
    "phi3": {},
    "qwen2": {},
    "qwen2_moe": {**_EXPERTS, "shared_expert_intermediate_size": 48, "norm_topk_prob": False},
    "qwen3": {},
    "qwen3_moe": {**_EXPERTS, "norm_topk_prob": True},
    "seed_oss": {},
    "smollm3": {},
    "stablelm": {"use_qkv_bias": True},
    "starcoder2": {"use_bias": True},
}  # fmt: skip


def save_architecture(name: str, folder: Path) -> Path:
    """The same model every time."""
    tokenizer = build_tokenizer(choose_templates([TEMPLATE]).values())
    kind = name.partition(",")[0]
    fields = _DECODER | {"vocab_size": len(tokenizer)} | ARCHITECTURES[name]
    if kind == "gpt2":
        fields = {key: value for key, value in fields.items() if key not in ("hidden_size", "head_dim")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **fields), dtype=torch.float32)
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(
                    torch.randn(p.shape) / p.shape[-1] ** 0.5 * 1.5 if p.dim() > 1 else p + 0.3 * torch.randn(p.shape)
                )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
