"""The picture of a run: learning_curves.png, drawn from metrics.jsonl and summary.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from chorus.protocol.run_folder.files import read_json
from chorus.protocol.run_folder.folder import RunFolder

# Each panel: its title, and per curve the key in metrics.jsonl and the label.
PANELS: list[tuple[str, list[tuple[str, str]]]] = [
    ("Accuracy and format of the training samples", [("accuracy", "accuracy"), ("format", "format score")]),
    ("Reward", [("reward", "mean reward")]),
    ("Entropy of the policy [nats a token]", [("entropy", "entropy")]),
    ("Staleness [steps]", [("staleness_mean", "mean"), ("staleness_max", "max")]),
    ("Answer length [tokens]", [("response_tokens_mean", "mean")]),
    ("Speed [trained tokens/s]", [("tokens_per_second", "tokens/s")]),
]
# Of a run of `chorus finetune`, which has no rollouts.
LESSON_PANELS: list[tuple[str, list[tuple[str, str]]]] = [
    ("Verdicts that are likelier than not", [("supervised_verdicts", "verdicts")]),
    ("Loss [nats a token]", [("supervised_loss", "loss")]),
    ("Entropy of the policy at the targets [nats a token]", [("supervised_entropy", "entropy")]),
    ("Gradient norm", [("supervised_grad_norm", "norm")]),
    ("Learning rate", [("supervised_lr", "rate")]),
    ("Speed [target tokens/s]", [("tokens_per_second", "tokens/s")]),
]


def draw_learning_curves(run: RunFolder) -> Path:
    """Write `learning_curves.png` into the run's folder; works for a run that is not over, too."""
    # Not the module-level pyplot: that would look for a screen, and keep every figure in memory.
    from matplotlib.figure import Figure

    records = run.records()
    summary = read_json(run.summary)
    figure = Figure(figsize=(12, 9), layout="constrained")
    axes = figure.subplots(3, 2, sharex=True)
    steps = [record["step"] for record in records]
    lessons = bool(records) and records[-1].get("passes") is not None and records[-1].get("reward") is None
    for panel, (title, curves) in zip(axes.flat, LESSON_PANELS if lessons else PANELS, strict=True):
        panel.set_title(title, fontsize=10)
        for key, label in curves:
            values = [float("nan") if record.get(key) is None else record[key] for record in records]
            panel.plot(steps, values, label=label, linewidth=1.4)
        panel.grid(alpha=0.3)
        panel.margins(x=0.02)
    _held_out(axes.flat[0], steps, summary)
    for panel in axes.flat:
        if len(panel.get_lines()) > 1:
            panel.legend(fontsize=8)
    for panel in axes[-1]:
        panel.set_xlabel("step")
    figure.suptitle(f"{run.name}{_outcome(summary)}")
    figure.savefig(run.curves, dpi=120)
    return run.curves


def _held_out(panel: Any, steps: list[int], summary: dict[str, Any]) -> None:
    """Held-out accuracy stands before the first and after the last step."""
    if not steps:
        return
    for key, label, marker in (("accuracy", "held out, sampled", "o"), ("greedy", "held out, greedy", "^")):
        part = summary.get(key) or {}
        if part.get("before") is not None and part.get("after") is not None:
            points = [part["before"], part["after"]]
            panel.plot([0, steps[-1]], points, marker, linestyle=":", label=label, markersize=6)
    panel.set_ylim(-0.02, 1.04)


def _outcome(summary: dict[str, Any]) -> str:
    part = summary.get("accuracy") or {}
    if part.get("before") is None or part.get("after") is None:
        return ""
    return f": held-out accuracy {part['before']:.3f} → {part['after']:.3f}"
