"""The published objectives, each number with its source. A name alone is complete.

`proximal` is where this service has to choose for recipes that were published for synchronous training. There the old
log-probabilities are those of the policy that sampled. Here groups may be some steps old, so by default the ratio is
taken against the behaviour policy itself (docs/adr/0002): the clip then bounds how far a stale token may move, and on
fresh groups both are the same. Two presets recompute instead: `questa`, whose run was asynchronous and did so, and
`gspo`, whose bounds of a few 1e-4 are narrower than the difference between an engine's log-probabilities and a
learner's; what happened before the step is then corrected by a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

_OURS = "ours"
_BEHAVIOUR = ("behaviour", f"{_OURS}, docs/adr/0002; the published run is synchronous")
_FOUR_UPDATES = "lr 1e-6, 128 prompts x 8 samples, 4 updates a step, temperature 1"


@dataclass(frozen=True)
class Preset:
    """`values`: key -> (value, where it comes from). `beside`: "section.key" -> value outside the objective without
    which it is another one; the name sets it where the recipe is silent. `published`: what else the published run set,
    elsewhere than in the objective; it is told in the dry run, never set. `notes`: what a reader should know."""

    source: str
    values: Mapping[str, tuple[Any, str]]
    beside: Mapping[str, Any] = field(default_factory=dict)
    published: str = ""
    notes: str = ""
    defaults: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "defaults", {key: value for key, (value, _) in self.values.items()})


def _ppo(low: float, high: float, source: str) -> dict[str, tuple[Any, str]]:
    return {"loss": ("ppo", source), "clip_low": (low, source), "clip_high": (high, source)}


_AUGMENTATION = "arXiv 2602.03190, its code"
_PRORL = "arXiv 2505.24864"
_PRORL_2 = "its recipes"
_QUESTA = "arXiv 2507.13266, its configuration files"

PRESETS: dict[str, Preset] = {
    "prompt_augmentation": Preset(
        source=_AUGMENTATION,
        values={
            "advantage": ("grpo", _AUGMENTATION),
            "std_epsilon": (1e-6, _AUGMENTATION),
            **_ppo(0.2, 0.28, _AUGMENTATION),
            "dual_clip": (3.0, "the default of verl, active in that run"),
            "aggregation": ("token-mean", _AUGMENTATION),
            "token_mean_scope": ("mini-batch", f"{_OURS}; verl's mean within each micro-batch of 4 is `micro`"),
            "proximal": _BEHAVIOUR,
        },
        published=f"{_FOUR_UPDATES}, 3072 tokens, AdamW betas 0.9/0.999, weight decay 0.01, grad clip 1, 60 epochs",
        notes="without KL, dynamic sampling and overlong terms. To replicate the aggregation: token_mean_scope = micro",
    ),
    "grpo": Preset(
        source="arXiv 2402.03300",
        values={
            "advantage": ("grpo", "arXiv 2402.03300"),
            "std_epsilon": (1e-6, "verl"),
            **_ppo(0.2, 0.2, "verl"),
            "aggregation": ("seq-mean-token-mean", "arXiv 2402.03300"),
            "kl_coefficient": (1e-3, "verl's examples; the first paper is said to use 0.04"),
            "kl_estimator": ("k3", "arXiv 2402.03300"),
            "kl_in": ("loss", "arXiv 2402.03300"),
            "proximal": _BEHAVIOUR,
        },
        published=_FOUR_UPDATES,
        notes="keeps a frozen reference policy in the learner: its weights again, and a forward pass more a token",
    ),
    "dr_grpo": Preset(
        source="arXiv 2503.20783, its code",
        values={
            "advantage": ("dr_grpo", "arXiv 2503.20783"),
            **_ppo(0.2, 0.2, "its code"),
            "aggregation": ("dr-const", "arXiv 2503.20783; the constant is sampling.max_tokens"),
            "proximal": _BEHAVIOUR,
        },
        published="lr 1e-6, 128 prompts x 8 samples, 3000 tokens, temperature 1, 1 epoch a batch",
    ),
    "dapo": Preset(
        source="arXiv 2503.14476",
        values={
            "advantage": ("grpo", "arXiv 2503.14476"),
            "std_epsilon": (1e-6, "verl"),
            **_ppo(0.2, 0.28, "arXiv 2503.14476"),
            "dual_clip": (3.0, "verl"),
            "aggregation": ("token-mean", "arXiv 2503.14476"),
            "dynamic_sampling": (True, "arXiv 2503.14476"),
            "max_refills": (10, "verl's recipe: at most 10 generation batches"),
            "overlong_buffer": (0.2, "arXiv 2503.14476: 4096 of 20480 tokens"),
            "overlong_factor": (1.0, "verl's recipe"),
            "overlong_filter": (False, "not in its best run"),
            "proximal": _BEHAVIOUR,
        },
        published="lr 1e-6, 512 prompts x 16 samples, 10 warm-up steps (sizes not confirmed by code)",
    ),
    "seed_grpo": Preset(
        source="arXiv 2505.12346, by second hand",
        values={
            "advantage": ("seed_grpo", "arXiv 2505.12346"),
            "seed_alpha": (0.0417, "a re-implementation; the paper's is not known to us"),
            **_ppo(0.2, 0.2, "as dr_grpo"),
            "aggregation": ("dr-const", "as dr_grpo, on which its advantages build"),
            "proximal": _BEHAVIOUR,
        },
        published=_FOUR_UPDATES,
        notes="generators ask the reward server for clusters of equal answers",
    ),
    "gmpo": Preset(
        source="arXiv 2507.20673, its code",
        values={
            "advantage": ("grpo", "its code"),
            "std_epsilon": (1e-8, "its code"),
            "loss": ("gmpo", "arXiv 2507.20673"),
            "clip_low": (0.4, "its code; bounds of the log-ratio"),
            "clip_high": (0.4, "its code"),
            "aggregation": ("seq-mean-token-mean", "one value a sequence"),
            "proximal": _BEHAVIOUR,
        },
        published="lr 1e-6, 128 prompts x 8 samples, 3000 tokens, temperature 1, 20 epochs (7 B)",
    ),
    "gspo": Preset(
        source="arXiv 2507.18071",
        values={
            "advantage": ("grpo", "arXiv 2507.18071"),
            "std_epsilon": (1e-6, "verl"),
            "loss": ("gspo", "arXiv 2507.18071"),
            "clip_low": (3e-4, "arXiv 2507.18071"),
            "clip_high": (4e-4, "arXiv 2507.18071"),
            "aggregation": ("seq-mean-token-mean", "one ratio a sequence"),
            "proximal": ("recompute", f"{_OURS}: the bounds are narrower than an engine's numerical difference"),
            "weight": ("geometric", f"{_OURS}: staleness, on the scale of its own ratio"),
            "weight_cap": (2.0, "truncated importance sampling's usual cap"),
            "weight_mode": ("truncate", "as above"),
        },
        beside={"learner.updates_per_step": 4},
        notes="with updates_per_step = 1 its ratio would be 1, and only the weight would act",
    ),
    "cispo": Preset(
        source="MiniMax-M1, arXiv 2506.13585",
        values={
            "advantage": ("grpo", "arXiv 2506.13585"),
            "std_epsilon": (1e-6, "verl"),
            "loss": ("cispo", "verl's convention: bounds are distances from 1"),
            "clip_low": (None, "arXiv 2506.13585: no lower bound"),
            "clip_high": (0.2, "verl's example"),
            "aggregation": ("token-mean", "arXiv 2506.13585"),
            "proximal": _BEHAVIOUR,
        },
        published=_FOUR_UPDATES,
        notes="TRL's convention: loss = cispo_absolute, clip_high = 5.0",
    ),
    "rloo": Preset(
        source="arXiv 2402.14740",
        values={
            "advantage": ("rloo", "arXiv 2402.14740"),
            **_ppo(0.2, 0.2, "verl; TRL clips one ratio a sequence, the paper none"),
            "aggregation": ("token-mean", "verl's default"),
            "proximal": _BEHAVIOUR,
        },
        published=_FOUR_UPDATES,
        notes="the paper's KL penalty in the reward: kl_in = reward, kl_estimator = k1, kl_coefficient = 0.05",
    ),
    "reinforce_pp": Preset(
        source="arXiv 2501.03262",
        values={
            "advantage": ("reinforce_pp", "arXiv 2501.03262"),
            "discount": (1.0, "verl"),
            **_ppo(0.2, 0.2, "arXiv 2501.03262"),
            "aggregation": ("token-mean", "verl's default"),
            "proximal": _BEHAVIOUR,
        },
        published=_FOUR_UPDATES,
        notes="its KL penalty a token: kl_in = reward, kl_estimator = k1, and a coefficient",
    ),
    "reinforce_pp_baseline": Preset(
        source="arXiv 2501.03262",
        values={
            "advantage": ("reinforce_pp_baseline", "arXiv 2501.03262"),
            **_ppo(0.2, 0.2, "arXiv 2501.03262"),
            "aggregation": ("token-mean", "verl's default"),
            "proximal": _BEHAVIOUR,
        },
        published=_FOUR_UPDATES,
    ),
    "prorl": Preset(
        source="arXiv 2505.24864",
        values={
            "advantage": ("grpo", _PRORL),
            "std_epsilon": (1e-6, "verl"),
            **_ppo(0.2, 0.4, _PRORL),
            "aggregation": ("token-mean", _PRORL),
            "kl_coefficient": (1e-4, f"{_OURS}; not published, ProRL v2 has it"),
            "kl_estimator": ("k3", f"{_OURS}; not published"),
            "kl_in": ("loss", _PRORL),
            "dynamic_sampling": (True, _PRORL),
            "proximal": _BEHAVIOUR,
        },
        published="lr 2e-6, 256 prompts x 16 samples, 4 updates a step, temperature 1.2, context 8096",
        notes="resets of the reference are no part of the objective: [reference]",
    ),
    "prorl_v2": Preset(
        source="arXiv 2507.12507, its recipes for OpenRLHF and NeMo-RL",
        values={
            "advantage": ("reinforce_pp_baseline", _PRORL_2),
            **_ppo(0.2, 0.27, _PRORL_2),
            "aggregation": ("token-mean", _PRORL_2),
            "kl_coefficient": (1e-4, _PRORL_2),
            "kl_estimator": ("k2", _PRORL_2),
            "kl_in": ("loss", _PRORL_2),
            "kl_clamp": (10.0, _PRORL_2),
            "proximal": ("recompute", f"{_PRORL_2}: the weights are the trainer's over the engine's probabilities"),
            "weight": ("token", _PRORL_2),
            "weight_mode": ("mask", f"{_PRORL_2}, as IcePop: outside the bounds 0"),
            "weight_low": (0.5, _PRORL_2),
            "weight_cap": (5.0, _PRORL_2),
        },
        published="lr 1e-6, 512 prompts x 16 samples, 8 updates a step, 8192 tokens",
        notes="resets of the reference, the cosine term and stop_properly are no part of the objective: [reference], "
        "[reward]",
    ),
    "questa": Preset(
        source=_QUESTA,
        values={
            "advantage": ("batch_normalised", f"{_QUESTA}: no group baseline, despite its name there"),
            "std_epsilon": (1e-5, _QUESTA),
            "reward_scale": (5.0, _QUESTA),
            "reward_bound": (20.0, _QUESTA),
            **_ppo(0.2, 0.2, _QUESTA),
            "aggregation": ("token-mean", "AReaL"),
            "proximal": ("recompute", f"{_QUESTA}: decoupled loss"),
            "weight": ("token", _QUESTA),
            "weight_cap": (5.0, _QUESTA),
            "weight_mode": ("mask", "AReaL: tokens above the cap are left out"),
            "dynamic_sampling": (True, _QUESTA),
            "accuracy_bounds": ((0.05, 0.95), _QUESTA),
        },
        beside={"reward.compose": "accuracy_only"},
        published="lr 2e-5, betas 0.9/0.95, eps 1e-5, weight decay 0.05, warm-up over a thousandth of the steps, 128 "
        "prompts x 16 samples, 24000 tokens, 1 update a step, staleness at most 4",
        notes="hints are no part of the objective",
    ),
}


def explain(config: Any) -> list[str]:
    """One line a key of an objective that is in use: `key  value  source`, then the notes and the warnings."""
    preset = PRESETS[config.name]
    rows = []
    for key in type(config).model_fields:
        value = getattr(config, key)
        if key == "name" or (key not in preset.values and value == type(config).model_fields[key].default):
            continue
        known, source = preset.values.get(key, (None, ""))
        rows.append((key, _text(value), source if key in preset.values and known == value else "set in the recipe"))
    width, wide = (max(len(row[k]) for row in rows) for k in (0, 1))
    lines = [f"{key:<{width}}  {value:<{wide}}  {source}" for key, value, source in rows]
    lines += [f"with {key} = {value}, unless the recipe sets it" for key, value in preset.beside.items()]
    lines += [f"published with {preset.published}"] if preset.published else []
    lines += [preset.notes] if preset.notes else []
    return lines + [f"warning: {text}" for text in config.warnings]


def in_words(get: Callable[[str], Any]) -> str:
    """What is trained, in a line, from the numbers that hold (`get`: by the objective's key) whatever its name.

    >>> in_words(PRESETS["dr_grpo"].defaults.get)
    'advantage dr_grpo; ppo 0.2/0.2; dr-const; proximal behaviour'
    """
    name, bounds = get("loss"), "/".join(_text(get(key)) for key in ("clip_low", "clip_high"))
    loss = name if name == "policy_gradient" else f"{name} {bounds}"
    loss += f", dual {_text(get('dual_clip'))}" if get("dual_clip") is not None else ""
    scope = f" in micro-batches of {get('micro_sequences')}" if get("token_mean_scope") == "micro" else ""
    parts = [f"advantage {get('advantage')}", loss, f"{get('aggregation')}{scope}", f"proximal {get('proximal')}"]
    if (weight := get("weight") or "none") != "none":
        parts.append(f"weight {weight}, {get('weight_mode')} above {_text(get('weight_cap'))}")
    if get("kl_coefficient"):
        parts.append(f"{get('kl_estimator')} {_text(get('kl_coefficient'))} in the {get('kl_in')}")
    parts += ["dynamic sampling"] if get("dynamic_sampling") else []
    parts += ["overlong penalty"] if get("overlong_buffer") is not None else []
    return "; ".join(parts)


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_text, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
