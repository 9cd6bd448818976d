"""What a configuration implies, told before anything is built, downloaded or started."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from chorus.deploy.placement import Placement
from chorus.deploy.sizes import STORED_BYTES_PER_TOKEN, model_of, planned, redis_bytes
from chorus.protocol.config.presets import PRESETS, explain
from chorus.protocol.config.run import RunConfig
from chorus.protocol.templates.load import choose_templates
from chorus.protocol.templates.sampling import base_weights

# Weights and AdamW's two moments in float32, and the gradient: the learner's state.
LEARNER_BYTES_PER_PARAMETER = 16
TOKENS_PER_SECOND = (1_000, 10_000, 50_000)  # for a run whose speed nobody has told
GPU_GIB = 80  # the card that the estimate speaks of
# What backward needs of one token in one layer of the Llama family, in bytes: for each of its hidden, intermediate
# and key-value widths. Counted from the tensors that autograd keeps (a test counts them again); in bfloat16 the
# norms stay in float32, and a bfloat16 copy of the weights is kept beside.
_KEPT_BYTES = {"float32": (32, 16, 8), "bfloat16": (30, 8, 4)}
# Shapes of published models, as their config.json has them, for a name that is not here yet.
_QWEN_1_5B = {
    "num_hidden_layers": 28, "hidden_size": 1536, "intermediate_size": 8960, "num_attention_heads": 12,
    "num_key_value_heads": 2, "vocab_size": 151_936,
}  # fmt: skip
_QWEN_7B = {
    "num_hidden_layers": 28, "hidden_size": 3584, "intermediate_size": 18_944, "num_attention_heads": 28,
    "num_key_value_heads": 4, "vocab_size": 152_064,
}  # fmt: skip
_SHAPES = (
    (re.compile(r"Qwen2\.5(-Math)?-1\.5B|OpenMath-Nemotron-1\.5B|R1-Distill-Qwen-1\.5B"), _QWEN_1_5B),
    (re.compile(r"Qwen2\.5(-Math)?-7B|OpenMath-Nemotron-7B|R1-Distill-Qwen-7B"), _QWEN_7B),
)
# The head works in chunks of at most so many logits, of which about four float32 copies exist at a time.
_HEAD_CHUNK_ELEMENTS = 2**25
_HEAD_BYTES_PER_ELEMENT = 16


def describe(config: RunConfig, placement: Placement, tokens_per_second: float | None = None) -> str:
    """The resolved configuration as JSON, then what it means, for people.

    tokens_per_second: of the whole run, sampled and trained; without it the time is given for several rates.
    """
    c = config
    samples = c.learner.groups_per_step * c.sampling.group_size
    longest = c.problems.max_prompt_tokens + c.sampling.max_tokens
    updates = c.run.steps * c.learner.updates_per_step
    lines = [
        f"placement   {placement.describe()}",
        f"steps       {c.run.steps}, of {c.learner.groups_per_step} groups x {c.sampling.group_size} = "
        f"{samples} samples; {updates} optimizer updates",
        f"templates   {_templates(config)}",
        *(f"curriculum  {line}" for line in _curriculum(config)),
        f"tokens      at most {c.run.steps * samples * c.sampling.max_tokens:,} generated; at most "
        f"{longest:,} a sequence (context {c.model.context:,})",
        f"time        {_time(c.run.steps * samples * c.sampling.max_tokens, tokens_per_second)}",
        f"staleness   {_staleness(config)}",
        f"redis       at most {_size(redis_bytes(c))} of rollouts at a time"
        + ("" if c.redis.url else ", in an embedded Valkey"),
        f"disk        {_disk(config)}",
        f"memory      {_memory(config, placement)}",
        f"objective   {c.objective.name} ({PRESETS[c.objective.name].source})",
        *(f"              {line}" for line in explain(c.objective)),
        *(f"reward      {line}" for line in _reward(config)),
        f"evaluation  {_evaluation(config)}",
    ]
    if needed := _needed_gpus(config, placement):
        lines.insert(1, f"needs       {needed}")
    return json.dumps(c.model_dump(mode="json"), indent=2) + "\n\n" + "\n".join(lines)


def _staleness(config: RunConfig) -> str:
    """The oldest that a group on time can be is derived in docs/design.md."""
    target, most = config.staleness.target, config.staleness.max
    on_time = target + 1 if target else 0
    text = f"aimed at {target}, bounded by {most}; at most {config.capacity} groups outstanding"
    if most >= on_time:
        return text
    return (
        f"{text}. A group that is finished in time can be {on_time} steps old, so some of those would be dropped: set "
        f"staleness.max to {on_time} or more"
    )


def _templates(config: RunConfig) -> str:
    """How the run draws, at its start and at every step from which that changes."""
    section = config.templates
    templates = choose_templates(section.names, [Path(file) for file in section.files])
    stages = []
    for step in sorted({1, *(stage.from_step for stage in section.schedule)}):
        weights = base_weights(*section.at(step), templates, step)
        if len(set(weights.values())) == 1:
            text = f"{len(weights)}, each with the same chance" if len(weights) > 1 else next(iter(weights))
        else:
            text = ", ".join(f"{name} {share:.0%}" for name, share in weights.items())
        stages.append(f"from step {step}: {text}" if step > 1 else text)
    if section.adaptive:
        bound, window = section.adaptive.bound, section.adaptive.window
        stages.append(f"adapted by up to {bound:g}x to the reward's variance over {window} steps")
    return "; ".join(stages)


def _curriculum(config: RunConfig) -> list[str]:
    """A line a stage: what it asks, and when it ends; none for a run without stages."""
    lines = []
    for stage in config.curriculum.stages:
        parts = [f"hint {stage.hint_ratio}" if stage.gives_hints else "no hint"]
        if stage.pass_rate:
            parts.append(f"pass rate {stage.pass_rate.low:g} to {stage.pass_rate.high:g}")
        if stage.levels:
            parts.append(f"levels {', '.join(map(str, stage.levels))}")
        if stage.domains:
            total = sum(stage.domains.values())
            shares = ", ".join(f"{name} {weight / total:.0%}" for name, weight in stage.domains.items())
            parts.append(f"{shares}, {'exactly' if stage.stratified else 'on average'}")
        if stage.max_tokens:
            parts.append(f"at most {stage.max_tokens:,} tokens")
        ends = [f"{stage.steps} steps"] if stage.steps else []
        ends += [f"a plateau of {stage.plateau.figure}"] if stage.plateau else []
        ends += [f"a fall of entropy by {stage.entropy_fall.share:.0%}"] if stage.entropy_fall else []
        lines.append(f"{stage.name}: {'; '.join(parts)}; until {' or '.join(ends) or 'the end'}")
    return lines


def _reward(config: RunConfig) -> list[str]:
    """A line for each grader of the user's own, and one for the second opinion; none for a run without."""
    section, weights = config.reward, {term.grader: term.weight for term in config.reward.terms}
    lines = []
    for grader in section.graders:
        does = [f"problems of the kind {grader.name}"]
        does += [f"{weights[grader.name]:g} x its score for every problem"] if grader.name in weights else []
        given = f", with {', '.join(grader.columns)}" if grader.columns else ""
        lines.append(f"{grader.name} ({grader.function}{given}): {'; '.join(does)}")
    if section.shadow:
        lines.append(f"{section.shadow} gives a second opinion on {section.shadow_share:.0%} of the samples, unpaid")
    return lines


def _time(tokens: int, rate: float | None) -> str:
    """Of the longest run there can be: completions that end earlier take less."""
    parts = [f"{_duration(tokens / each)} at {each:,.0f} tokens/s" for each in ((rate,) if rate else TOKENS_PER_SECOND)]
    return "at most " + ", ".join(parts) + ", if every completion is as long as it may be"


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:,.1f} min"


def _memory(config: RunConfig, placement: Placement) -> str:
    model = model_of(config.model.path)
    cache = f"each generator's KV cache takes {config.generator.kv_cache_gib:g} GiB"
    if model is None:
        return f"the model {config.model.path!r} is not here yet, so its size is not known" + (
            "" if placement.learner_gpus else f"; {cache}"
        )
    tensor_parallel = len(placement.generator_gpus[0]) if placement.generator_gpus else 1
    weights = model.count * _width(config) / tensor_parallel
    learner = model.count * LEARNER_BYTES_PER_PARAMETER / placement.learner_ranks
    activations = activation_bytes(config, config.model.path, model.count)
    known = "an unknown amount" if activations is None else f"about {_size(activations)}"
    text = (
        f"{model.count / 1e6:,.1f} M parameters{model.known}: learner {_size(learner)} a rank and {known} of "
        f"activations, weights {_size(weights)} a generator{' GPU' if tensor_parallel > 1 else ''}"
    )
    if config.objective.needs_reference:
        text += f", reference policy {_size(model.count * 4 / placement.learner_ranks)} a rank"
    if not placement.learner_gpus:
        return f"{text}; {cache}"
    shared = set(placement.learner_gpus) & {gpu for replica in placement.generator_gpus for gpu in replica}
    room = GPU_GIB * (1 - (config.generator.gpu_memory or 0.4) if shared else 1)
    if learner + (activations or 0.0) > room * 2**30:
        text += (
            f". The learner has {room:.0f} GiB of a card of {GPU_GIB}: lower learner.token_budget, set "
            "learner.gradient_checkpointing, or give it more GPUs"
        )
    return text


def _needed_gpus(config: RunConfig, placement: Placement) -> str | None:
    """For a model too large for CPUs, where no GPU is given."""
    model = model_of(config.model.path)
    if placement.learner_gpus or model is None or config.model.dtype == "float32":
        return None
    # A third of a card is left to activations and logits, or to the KV cache.
    room = GPU_GIB * 2**30 * 2 / 3
    learner = -(-model.count * LEARNER_BYTES_PER_PARAMETER // room)
    generator = -(-model.count * _width(config) // room)
    return (
        f"GPUs, and there are none here. By memory alone, cards of {GPU_GIB} GiB: {learner:.0f} for the learner, "
        f"{generator:.0f} for each generator; more make it faster (see a placement with --gpus N)"
    )


def _width(config: RunConfig) -> int:
    return 4 if config.model.dtype == "float32" else 2


def activation_bytes(config: RunConfig, path: str, parameters: float) -> float | None:
    """What one micro-batch of learner.token_budget tokens keeps for backward; None: no shape is known.

    An estimate for decoders like Llama and Qwen with an attention that does not keep its scores: on an H100 the peak
    was 1 % above it (docs/results.md).
    """
    try:
        shape = _shape(path)
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


def learner_bytes(config: RunConfig, path: str) -> float | None:
    """What one learner of the model in `path` is foreseen to take, its libraries apart; None: its size is not known."""
    model = model_of(path)
    if model is None:
        return None
    return model.count * LEARNER_BYTES_PER_PARAMETER + (activation_bytes(config, path, model.count) or 0.0)


def _shape(path: str) -> dict[str, Any]:
    """A folder's config.json, or what is known of a published model."""
    published = next((shape for name, shape in _SHAPES if name.search(path)), None)
    if published is not None and not Path(path).exists():
        return published
    return json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))


def _disk(config: RunConfig) -> str:
    disk = planned(config)
    own = "" if config.redis.url else f", {_size(disk.redis)} of Valkey's file"
    known = "" if disk.checkpoints else " (the model's size is not known)"
    return (
        f"at most {_size(disk.most)}: {_size(disk.checkpoints)} of checkpoints at a time{known}, "
        f"{_size(disk.rollouts)} of rollouts ({STORED_BYTES_PER_TOKEN} bytes a token){own}"
    )


def _evaluation(config: RunConfig) -> str:
    e, parts = config.evaluation, []
    if e.problems:
        under = f" under {', '.join(e.templates)}" if e.templates else ""
        parts.append(
            f"{e.problems} held-out problems{under}, {e.samples} samples and one greedy answer each, before and after"
        )
    if e.every:
        parts.append(
            f"{e.validation_problems} validation problems under {config.validation_template} every {e.every} steps"
        )
    return "; ".join(parts) or "none"


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"
