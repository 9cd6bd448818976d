"""An analysis: what to ask of both models, and what the graded answers come to.

OUT/base/t-0.4/            an evaluation's folder for each way of asking (evaluation/records.py)
OUT/trained/plan/
OUT/analysis.json          the figures         OUT/report.html, report.md
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from chorus.evaluation.analyses.annotations import AXES, Annotation, Axis, asked_on, part_id
from chorus.evaluation.analyses.decomposition import Counts, decompose, slope
from chorus.evaluation.analyses.paired import Paired, paired, solved_chains
from chorus.protocol.messages import Problem
from chorus.protocol.run_folder.files import read_lines

MODELS = ("base", "trained")
PLAIN = "plain"  # what the axes are compared with


@dataclass(frozen=True)
class Asked:
    """One way of asking, by the name of its folder."""

    name: str
    problems: list[Problem]
    samples: int
    temperature: float


def ways(
    problems: Sequence[Problem],
    annotations: dict[str, Annotation],
    temperatures: Sequence[float],
    samples: int,
    axis_samples: int,
    axis_temperature: float,
) -> list[Asked]:
    """All that is asked of each model; the axes only where something is annotated for them."""
    found = [Asked(heat_name(heat), list(problems), samples, heat) for heat in temperatures]
    axes = [(axis, asked_on(axis, problems, annotations)) for axis in AXES]
    if any(asked for _, asked in axes):
        noted = [problem for problem in problems if problem.id in annotations]
        found.append(Asked(PLAIN, noted, axis_samples, axis_temperature))
        found += [Asked(axis, asked, axis_samples, axis_temperature) for axis, asked in axes if asked]
    return found


def heat_name(temperature: float) -> str:
    return f"t-{temperature:g}"


def read(folder: Path, name: str) -> dict[str, list[float]]:
    """Problem id to the accuracies of its graded samples; a grade that failed is none."""
    found: dict[str, list[float]] = {}
    for record in read_lines(folder / name / "answers.jsonl"):
        known = [s["accuracy"] for s in record["samples"] if s["accuracy"] is not None]
        found.setdefault(record["id"], []).extend(known)
    return found


def figures(
    folder: Path,
    asked: Sequence[Asked],
    annotations: Mapping[str, Annotation],
    at: float,
    seed: int,
) -> dict[str, Any]:
    """All figures of an analysis whose answers are there. `at`: the temperature that is decomposed."""
    answers = {model: {way.name: read(folder / model, way.name) for way in asked} for model in MODELS}
    heats = [way for way in asked if way.name.startswith("t-")]
    found: dict[str, Any] = {"temperatures": _heats(answers, heats), "axes": {}}
    if chosen := next((way for way in heats if way.temperature == at), None):
        base, trained = (_counts(answers[model][chosen.name], chosen.samples) for model in MODELS)
        parts = decompose(base, trained, chosen.samples, seed)
        found["decomposition"] = asdict(parts) | {"temperature": at, "gain": parts.gain, "wall": parts.wall}
    for axis in AXES:
        if axis in answers["base"]:
            found["axes"][axis] = {model: _axis(axis, answers[model], annotations, seed) for model in MODELS}
    return found


def _counts(answers: Mapping[str, Sequence[float]], samples: int) -> Counts:
    """Right answers of problems of which every sample could be graded."""
    return {id: sum(a == 1.0 for a in known) for id, known in answers.items() if len(known) == samples}


def _heats(answers: Mapping[str, Mapping[str, Any]], heats: Iterable[Asked]) -> dict[str, Any]:
    """By model the accuracy at each temperature, and what heat costs."""
    heats = list(heats)
    found = {}
    for model in MODELS:
        means = {way.temperature: _mean(answers[model][way.name]) for way in heats}
        known = {heat: mean for heat, mean in means.items() if mean is not None}
        curve = {f"{heat:g}": mean for heat, mean in known.items()}
        found[model] = {"accuracy": curve, "slope": slope(list(known), list(known.values()))}
    return found


def _mean(answers: Mapping[str, Sequence[float]]) -> float | None:
    means = by_problem(answers)
    return fmean(means.values()) if means else None


def by_problem(answers: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {id: fmean(known) for id, known in answers.items() if known}


def _axis(
    axis: Axis, answers: Mapping[str, Mapping[str, Sequence[float]]], annotations: Mapping[str, Annotation], seed: int
) -> dict[str, Any]:
    """One model's: with the annotation less without, or the share of chains that are solved."""
    plain, on_axis = by_problem(answers[PLAIN]), by_problem(answers[axis])
    if axis != "subproblems":
        return _facts(paired(on_axis, plain, seed))
    chains = {
        id: [on_axis[part_id(id, k)] for k in range(1, len(note.subproblems) + 1)]
        for id, note in sorted(annotations.items())
        if note.subproblems and id in plain and all(part_id(id, k + 1) in on_axis for k in range(len(note.subproblems)))
    }
    share, failures = solved_chains(list(chains.values()))
    whole = paired({id: float(failure is None) for id, failure in zip(chains, failures, strict=True)}, plain, seed)
    return _facts(whole) | {"ssr": share, "first_failures": dict(zip(chains, failures, strict=True))}


def _facts(found: Paired | None) -> dict[str, Any]:
    return asdict(found) if found else {"problems": 0}
