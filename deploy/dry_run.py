"""What a configuration implies, told before anything is built, downloaded or started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deploy.placement import Placement
from protocol.config import RunConfig
from protocol.objective import PRESETS, explain

# A sampled token on Redis: id (int32) and log-probability (float32). Grades and versions are small beside.
BYTES_PER_TOKEN = 8
# Weights and AdamW's two moments in float32, and the gradient: the learner's state.
LEARNER_BYTES_PER_PARAMETER = 16
# What backward needs of one token in one layer of the Llama family, in bytes: for each of its hidden, intermediate
# and key-value widths. Counted from the tensors that autograd keeps (a test counts them again); in bfloat16 the
# norms stay in float32, and a bfloat16 copy of the weights is kept beside.
_KEPT_BYTES = {"float32": (32, 16, 8), "bfloat16": (30, 8, 4)}
# The head works in chunks of at most so many logits, of which about four float32 copies exist at a time.
_HEAD_CHUNK_ELEMENTS = 2**25
_HEAD_BYTES_PER_ELEMENT = 16


def describe(config: RunConfig, placement: Placement) -> str:
    """The resolved configuration as JSON, then what it means, for people."""
    c = config
    samples = c.learner.groups_per_step * c.sampling.group_size
    longest = c.problems.max_prompt_tokens + c.sampling.max_tokens
    redis_bytes = c.capacity * c.sampling.group_size * c.sampling.max_tokens * BYTES_PER_TOKEN
    redis_bytes += c.capacity * c.problems.max_prompt_tokens * 4
    updates = c.run.steps * c.learner.updates_per_step
    lines = [
        f"placement   {placement.describe()}",
        f"steps       {c.run.steps}, of {c.learner.groups_per_step} groups x {c.sampling.group_size} = "
        f"{samples} samples; {updates} optimizer updates",
        f"tokens      at most {c.run.steps * samples * c.sampling.max_tokens:,} generated; at most "
        f"{longest:,} a sequence (context {c.model.context:,})",
        f"staleness   aimed at {c.staleness.target}, bounded by {c.staleness.max}; at most {c.capacity} "
        "groups outstanding",
        f"redis       at most {_size(redis_bytes)} of rollouts at a time"
        + ("" if c.redis.url else ", in an embedded Valkey"),
        f"memory      {_memory(config, placement)}",
        f"objective   {c.objective.name} ({PRESETS[c.objective.name].source})",
        *(f"              {line}" for line in explain(c.objective)),
        f"evaluation  {_evaluation(config)}",
    ]
    return json.dumps(c.model_dump(mode="json"), indent=2) + "\n\n" + "\n".join(lines)


def _memory(config: RunConfig, placement: Placement) -> str:
    parameters = _parameters(Path(config.model.path))
    cache = f"each generator's KV cache takes {config.generator.kv_cache_gib:g} GiB"
    if parameters is None:
        return f"the model {config.model.path!r} is not here yet, so its size is not known" + (
            "" if placement.learner_gpus else f"; {cache}"
        )
    width = 4 if config.model.dtype == "float32" else 2
    learner = parameters * LEARNER_BYTES_PER_PARAMETER / placement.learner_ranks
    activations = activation_bytes(config, Path(config.model.path), parameters)
    known = "an unknown amount" if activations is None else f"about {_size(activations)}"
    text = (
        f"{parameters / 1e6:,.1f} M parameters: learner {_size(learner)} a rank and {known} of activations, "
        f"weights {_size(parameters * width)} a generator"
    )
    if config.objective.needs_reference:
        text += f", reference policy {_size(parameters * 4 / placement.learner_ranks)} a rank"
    return text if placement.learner_gpus else f"{text}; {cache}"


def activation_bytes(config: RunConfig, folder: Path, parameters: int) -> float | None:
    """What one micro-batch of learner.token_budget tokens keeps for backward, at most; None: another family's shape.

    An estimate for decoders like Llama and Qwen with an attention that does not keep its scores.
    """
    try:
        shape = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        layers, hidden, wide = (shape[k] for k in ("num_hidden_layers", "hidden_size", "intermediate_size"))
        heads, vocabulary = shape["num_attention_heads"], shape["vocab_size"]
    except (OSError, ValueError, KeyError):
        return None
    key_value = (shape.get("num_key_value_heads") or heads) * (shape.get("head_dim") or hidden // heads)
    tokens = config.learner.token_budget
    widths = zip(_KEPT_BYTES[config.model.dtype], (hidden, wide, key_value), strict=True)
    layer = tokens * sum(count * width for count, width in widths)
    kept = layer + tokens * layers * hidden * 4 if config.learner.gradient_checkpointing else layer * layers
    copies = 2 * parameters if config.model.dtype == "bfloat16" else 0
    kept += tokens * hidden * 12  # the last norm, and the hidden states that the head is given
    return kept + copies + _HEAD_BYTES_PER_ELEMENT * min(_HEAD_CHUNK_ELEMENTS, tokens * vocabulary)


def _parameters(folder: Path) -> int | None:
    """The number of parameters in a folder's safetensors, from their headers; None where there are none."""
    total = 0
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as data:
            header: dict[str, Any] = json.loads(data.read(int.from_bytes(data.read(8), "little")))
        for name, tensor in header.items():
            if name != "__metadata__":
                count = 1
                for length in tensor["shape"]:
                    count *= length
                total += count
    return total or None


def _evaluation(config: RunConfig) -> str:
    e = config.evaluation
    if not e.problems:
        return "none"
    return f"{e.problems} held-out problems, {e.samples} samples and one greedy answer each, before and after"


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"
