"""The model card that goes with a checkpoint: what was trained, on what, how it went, what it can do.

It is for strangers: no path, no host name, no token of this machine stands in it.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chorus.evaluation import summary as benchmarks
from chorus.protocol.config.presets import in_words
from chorus.protocol.config.run import RunConfig
from chorus.protocol.run_folder.files import read_json
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.templates.load import choose_templates
from chorus.protocol.templates.template import render_chatml

# What is of one machine or one person, and tells nothing of the model.
_PRIVATE = {
    "run": {"dir"},
    "learner": {"host", "store_port", "metrics_port"},
    "generator": {"metrics_port"},
    "trackers": {"wandb"},
    "reward": {"url"},
    "redis": True,
    "placement": True,
}
_ROWS = 8  # steps in the table of curves
_CURVES = ("reward", "accuracy", "format", "entropy", "response_tokens_mean")
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_SNAPSHOT = re.compile(r".*/models--([\w-][\w.-]*?)--([\w-][\w.-]*)/snapshots/.*")
_PATH = re.compile(r"(?<![\w/:.<])(?:~|\.{1,2})?/[\w.@+-]+(?:/[\w.@+-]+)+/?")
_ADDRESS = re.compile(r"\w+://[^\s\"'`)]+|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b")
_TOKEN = re.compile(r"\b(?:hf|sk|ghp|gho|wandb)[_-]\w{16,}")
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|API_?KEY", re.IGNORECASE)
_LEFT_OUT = "…"


@dataclass(frozen=True)
class Card:
    run: RunFolder
    config: RunConfig
    step: int
    repo: str
    has_curves: bool


def card(of: Card) -> str:
    """README.md, with the hub's header."""
    parts = [_head(of), _what(of), _benchmarks(of), _curves(of), _accounts(of), _prompts(of), _recipe(of)]
    return without_secrets("\n\n".join(part for part in parts if part) + "\n")


def _head(of: Card) -> str:
    base = base_model(of.config.model.path)
    lines = ["library_name: transformers", "pipeline_tag: text-generation"]
    lines += [f"base_model: {base}"] if _HUB_NAME.fullmatch(base) else []
    lines += ["tags:", "- chorus", "- reinforcement-learning", f"- {of.config.objective.name}"]
    return "\n".join(["---", *lines, "---", "", f"# {of.repo.rpartition('/')[2]}"])


def base_model(path: str) -> str:
    """The name of what was trained: on the hub, or its folder's last word.

    >>> base_model("/cache/models--Qwen--Qwen2.5-Math-1.5B/snapshots/4a83ca6")
    'Qwen/Qwen2.5-Math-1.5B'
    """
    if found := _SNAPSHOT.fullmatch(path):
        return f"{found[1]}/{found[2]}"
    return path if _HUB_NAME.fullmatch(path) and not Path(path).exists() else Path(path).name


def _what(of: Card) -> str:
    c = of.config
    sources = ", ".join(f"`{published(source)}`" for source in c.problems.train)
    samples = f"{c.learner.groups_per_step} groups of {c.sampling.group_size} samples a step"
    steps = f"{of.step} step{'s' * (of.step != 1)}"
    trained = in_words(lambda key: getattr(c.objective, key))
    return (
        f"`{base_model(c.model.path)}` after {steps} of reinforcement learning from verifiable rewards with "
        f"Chorus: objective `{c.objective.name}` ({trained}), {samples}, problems of {sources}, asked under "
        f"{', '.join(c.templates.names)}."
    )


def _benchmarks(of: Card) -> str:
    """Tables of `chorus eval` on this checkpoint, with their 95 % intervals, and the run's own held-out problems."""
    summaries = [read_json(path) for path in sorted(of.run.evaluations.glob("*/summary.json"))]
    ours = [s for s in summaries if (s.get("spec") or {}).get("step") == of.step and s.get("benchmarks")]
    found = [benchmarks.table(summary).strip() for summary in ours]
    if found:
        found.insert(0, "In brackets: 95 % intervals.")
    if held_out := _held_out(of, read_json(of.run.summary)):
        found.append(held_out)
    return "\n\n".join(["## What it can do", *(found or ["No benchmark of this checkpoint was measured."])])


def _held_out(of: Card, told: dict[str, Any]) -> str:
    """The run's own evaluation, where this is the checkpoint of its end."""
    rows = []
    for label, key in (("accuracy, sampled", "accuracy"), ("accuracy, greedy", "greedy"), ("format", "format")):
        before, after = ((told.get(key) or {}).get(when) for when in ("before", "after"))
        if before is not None and after is not None and told.get("steps") == of.step:
            rows.append(f"| {label} | {before:.3f} | {after:.3f} |")
    if not rows:
        return ""
    asked = f"{told['accuracy'].get('problems')} held-out problems of the run, before and after it:"
    return "\n".join([asked, "", "| | before | after |", "| --- | --- | --- |", *rows])


def _curves(of: Card) -> str:
    records = [r for r in of.run.records() if r["step"] <= of.step]
    if not records:
        return ""
    chosen = sorted({round(k * (len(records) - 1) / (_ROWS - 1)) for k in range(_ROWS)})
    lines = [f"| step | {' | '.join(_CURVES).replace('response_tokens_mean', 'tokens an answer')} |"]
    lines += ["| --- |" + " --- |" * len(_CURVES)]
    for k in chosen:
        cells = ["-" if records[k].get(key) is None else f"{records[k][key]:.3f}" for key in _CURVES]
        lines.append(f"| {records[k]['step']} | {' | '.join(cells)} |")
    alarms = [f"- {text}" for r in records for text in r.get("alarms") or ()]
    raised = ["", "Alarms:", "", *alarms] if alarms else []
    picture = ["![Learning curves](learning_curves.png)", ""] if of.has_curves else []
    return "\n".join(["## How it learned", "", *picture, *lines, *raised])


def _accounts(of: Card) -> str:
    told = read_json(of.run.summary)
    if not (accounts := told.get("ledger")):
        return ""
    dropped = ", ".join(f"{n} {reason}" for reason, n in sorted((accounts.get("dropped") or {}).items())) or "none"
    stale, weights, tokens = (told.get(key) or {} for key in ("staleness", "weights", "tokens"))
    lines = [
        f"{accounts['admitted']} groups were admitted: {accounts['trained']} trained, dropped {dropped}, "
        f"{accounts['outstanding']} left over.",
        f"{tokens.get('trained', 0):,} completion tokens trained, {tokens.get('generated', 0):,} sampled, in "
        f"{told.get('steps')} steps and {(told.get('wall_seconds') or 0) / 3600:.2f} hours.",
    ]
    if stale.get("mean") is not None:
        lines.append(f"Samples were {stale['mean']:.2f} steps old on average, {stale['max']} at most.")
    if weights.get("logprob_gap_mean") is not None:
        lines.append(
            f"{weights['syncs']} weight syncs, each checked: engine and learner differ by "
            f"{weights['logprob_gap_mean']:.1e} nats on average."
        )
    return "## The accounts\n\n" + "\n".join(lines)


def _prompts(of: Card) -> str:
    """How a problem has to be asked, since the policy learned under just that."""
    c = of.config
    if c.templates.chat != "chatml":
        told = f", with {json.dumps(c.templates.chat_arguments)}" if c.templates.chat_arguments else ""
        return f"## Prompts\n\nRendered by the chat template that is in this repository{told}."
    name = c.templates.names[0]
    template = choose_templates([name], [Path(file) for file in c.templates.files])[name]
    return f"## Prompts\n\nChatML. Under `{name}`:\n\n```\n{render_chatml(template, 'PROBLEM')}\n```"


def _recipe(of: Card) -> str:
    """The keys that the run did not leave at their defaults."""
    values = published(of.config.model_dump(mode="json", exclude_defaults=True, exclude=_PRIVATE))
    values["model"]["path"] = base_model(of.config.model.path)
    return f"## Recipe\n\n```json\n{json.dumps(values, indent=2, ensure_ascii=False)}\n```"


def published(value: Any) -> Any:
    """A value of a recipe with files and folders named by their last word alone.

    >>> published(["/data/me/train.jsonl?limit=5", "hub:openai/gsm8k", "arithmetic:chain?max=4"])
    ['train.jsonl?limit=5', 'hub:openai/gsm8k', 'arithmetic:chain?max=4']
    """
    if isinstance(value, Mapping):
        return {key: published(part) for key, part in value.items()}
    if isinstance(value, list):
        return [published(part) for part in value]
    if not isinstance(value, str) or "/" not in value or value.startswith("hub:"):
        return value
    place, mark, rest = value.partition("?")
    return f"{Path(place).name}{mark}{rest}"


def without_secrets(text: str) -> str:
    """The text without what could still be of this machine: paths, addresses, its name, tokens, secrets."""
    host = socket.gethostname()
    known = [value for name, value in os.environ.items() if _SECRET_NAME.search(name) and len(value) >= 8]
    known += [host, host.partition(".")[0]] if len(host) > 3 and host != "localhost" else []
    for secret in known:
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", _LEFT_OUT, text)
    for pattern in (_TOKEN, _ADDRESS, _PATH):
        text = pattern.sub(_LEFT_OUT, text)
    return text
