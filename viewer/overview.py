"""A whole run as the first page shows it: curves of its records, what happened on the way, how it stands."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from chorus.deploy.progress import who_waits
from chorus.protocol.run_folder.checkpoints import read_manifest, whole
from chorus.protocol.run_folder.files import read_json, read_lines
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.hold import is_held

# name -> (title, what it is of); in the order of the page
CURVES = {
    "reward": "Reward",
    "accuracy": "Accuracy",
    "format": "Format",
    "entropy": "Entropy (nats)",
    "response_tokens_mean": "Length (tokens)",
    "truncated": "Cut off",
    "mismatch_k1": "KL, engine to learner",
    "mismatch_abs": "Engine and learner differ (nats)",
    "reference_k1": "KL to the reference",
    "grad_norm": "Gradient norm",
    "staleness_mean": "Staleness (steps)",
    "tokens_per_second": "Trained tokens/s",
    "learner_wait_ratio": "Learner waits",
    "generator_wait_ratio": "Generators wait",
    "no_answer": "No answer found",
    "zero_spread": "Groups with one reward",
}
_PARTS = ("accuracy", "format", "reward", "entropy")
_PARTED = ("by_template", "by_level", "by_domain", "by_hint")


def standing(run: RunFolder) -> dict[str, Any]:
    """What a list of runs says of one."""
    config, status, note = read_json(run.config), read_json(run.status), read_json(run.note)
    steps = (config.get("run") or {}).get("steps")
    finished = run.finished_steps()
    state = "running" if is_held(run.path) else "finished" if finished and finished >= (steps or 0) else "stopped"
    return {
        "run": run.name,
        "path": str(run.path),
        "state": state,
        "steps": steps,
        "phase": status.get("phase", ""),
        "detail": status.get("detail", ""),
        "started_at": note.get("started_at"),
        "recipe": _recipe(config),
    }


def _recipe(config: Mapping[str, Any]) -> str:
    """What runs that differ in their seed alone have in common."""
    run, model = config.get("run") or {}, config.get("model") or {}
    return f"{run.get('name', '')} {model.get('path', '')}".strip()


def overview(run: RunFolder, since: int = 0) -> dict[str, Any]:
    """Records after step `since`; marks, standing and summary are whole."""
    records = run.records()
    fresh = [record for record in records if record["step"] > since]
    last = records[-1] if records else {}
    return {
        **standing(run),
        "titles": CURVES,
        "records": [_slim(record) for record in fresh],
        "marks": marks(run, records),
        "waits": who_waits(last) if last else "",
        "last": {key: value for key, value in last.items() if isinstance(value, int | float | str)},
        "by_template": last.get("by_template") or {},
        "summary": read_json(run.summary),
        "validations": [
            {"step": line.get("step"), "accuracy": line.get("accuracy")} for line in read_lines(run.validations)
        ],
    }


def _slim(record: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: record.get(name) for name in ("step", "time", "stage", *CURVES)}
    for part in _PARTED:
        if isinstance(named := record.get(part), dict) and named:
            kept[part] = {name: {key: each.get(key) for key in _PARTS} for name, each in named.items()}
    return kept


def marks(run: RunFolder, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """{step, kind, text} in the order of steps: alarms, findings, stages, ways back, restarts, evaluations."""
    found = []
    for record in records:
        for kind, key in (("alarm", "alarms"), ("finding", "findings")):
            found += [(record["step"], kind, text) for text in record.get(key) or ()]
    for before, after in pairwise(records):
        if after.get("stage") != before.get("stage"):
            found.append((after["step"], "stage", f"stage {after.get('stage')} begins"))
    manifests = [read_manifest(path) for path in whole(run.checkpoints)]
    for manifest in manifests:
        if manifest.rolled_back_to is not None:
            found.append((manifest.step, "reset", f"back to the weights of step {manifest.rolled_back_to}"))
    for before, after in pairwise(manifests):
        if after.fence != before.fence and before.rolled_back_to is None and after.rolled_back_to is None:
            found.append((before.step, "restart", f"a new start of the learner, after step {before.step}"))
    for line in read_lines(run.validations):
        if isinstance(step := line.get("step"), int):
            found.append((step, "evaluation", "validated"))
    found.sort(key=lambda mark: mark[0])
    return [{"step": step, "kind": kind, "text": text} for step, kind, text in found]
