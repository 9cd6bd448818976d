"""The figures of an evaluation from its folder alone, as JSON and as the table that a person reads.

A verifier's failure (timeout, error) counts as not right and is counted beside: to leave it out would flatter a
model whose answers are hard to check. Accuracies are shares, lengths completion tokens, times seconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from chorus.evaluation.estimators import Average, bootstrap_interval, macro_micro, maj_at_k, pass_at_k
from chorus.evaluation.records import Spec, read_spec
from chorus.protocol.run_folder.files import read_lines, write_json

Record = dict[str, Any]


def summarize(folder: Path) -> dict[str, Any]:
    """Compute and write `summary.json`. Benchmarks without an answer yet are left out."""
    spec = read_spec(folder)
    records = read_lines(folder / "answers.jsonl")
    by_benchmark = {name: [r for r in records if r["benchmark"] == name] for name in spec.problems}
    present = {name: found for name, found in by_benchmark.items() if found}
    values = {name: list(_by_problem(found).values()) for name, found in present.items()}
    sittings = read_lines(folder / "sittings.jsonl")
    summary: dict[str, Any] = {
        "spec": spec.model_dump(mode="json"),
        "benchmarks": {name: _benchmark(spec, name, found) for name, found in present.items()},
        "answers": len(records),
        "sittings": len(sittings),
        "seconds": sum(s["seconds"] for s in sittings),
    }
    if values:
        averages = macro_micro([len(v) for v in values.values()], [fmean(v) for v in values.values()])
        for name, accuracy in zip(("macro", "micro"), averages, strict=True):
            summary[name] = {"accuracy": accuracy, "interval": _interval(values.values(), name, spec)}
    write_json(folder / "summary.json", summary)
    return summary


def _benchmark(spec: Spec, name: str, records: Sequence[Record]) -> dict[str, Any]:
    samples = [s for r in records for s in r["samples"]]
    accuracy = _by_problem(records)
    runs = [fmean(_by_problem([r for r in records if r["run"] == run]).values()) for run in _runs(records)]
    lengths = [s["tokens"] for s in samples]
    return {
        "title": spec.titles[name],
        "problems": len(accuracy),
        "expected": spec.expected[name],
        "accuracy": fmean(accuracy.values()),
        "interval": _interval([list(accuracy.values())], "micro", spec),
        "runs": runs if spec.decoding == "greedy" else None,
        "runs_std": stdev(runs) if len(runs) > 1 else None,
        "formatted": fmean(s["formatted"] for s in samples),
        "format": fmean(s["format"] or 0.0 for s in samples),
        "tokens_mean": fmean(lengths),
        "tokens_max": max(lengths),
        "truncated": fmean(s["truncated"] for s in samples),
        "ungraded": sum(s["accuracy"] is None for s in samples),
        "pass_at": _pass_at(spec, records),
        "maj_at": _maj_at(spec, records),
        "by_level": _by(spec, records, "level"),
        "by_subject": _by(spec, records, "subject"),
    }


def _by_problem(records: Iterable[Record]) -> dict[str, float]:
    """Problem id to its accuracy: the mean over its samples and runs."""
    found: dict[str, list[float]] = defaultdict(list)
    for record in records:
        found[record["id"]] += _accuracies(record)
    return {name: fmean(values) for name, values in found.items()}


def _accuracies(record: Record) -> list[float]:
    return [s["accuracy"] or 0.0 for s in record["samples"]]


def _runs(records: Iterable[Record]) -> list[int]:
    return sorted({r["run"] for r in records})


def _by(spec: Spec, records: Sequence[Record], field: str) -> dict[str, dict[str, Any]]:
    """Of the problems that have the field: how many share its value, and their accuracy with its interval."""
    parts: dict[Any, list[Record]] = defaultdict(list)
    for record in records:
        if record[field] is not None:
            parts[record[field]].append(record)
    accuracies = {str(value): _by_problem(parts[value]) for value in sorted(parts)}
    return {
        value: {
            "problems": len(found),
            "accuracy": fmean(found.values()),
            "interval": _interval([list(found.values())], "micro", spec),
        }
        for value, found in accuracies.items()
    }


def _powers(n: int) -> list[int]:
    """1, 2, 4, ... and n."""
    return sorted({1 << i for i in range(n.bit_length()) if 1 << i <= n} | {n})


def _pass_at(spec: Spec, records: Sequence[Record]) -> dict[str, float]:
    """Unbiased; of sampled answers only, since greedy runs are not draws of one distribution."""
    if spec.decoding == "greedy":
        return {}
    right = [sum(a == 1.0 for a in _accuracies(r)) for r in records]
    return {str(k): fmean(pass_at_k(spec.samples, c, k) for c in right) for k in _powers(spec.samples)}


def _maj_at(spec: Spec, records: Sequence[Record]) -> dict[str, float]:
    if spec.samples == 1:
        return {}
    votes = [(r["clusters"], _accuracies(r)) for r in records]
    sizes = [k for k in _powers(spec.samples) if k > 1]
    return {str(k): fmean(maj_at_k(clusters, right, k, spec.seed) for clusters, right in votes) for k in sizes}


def _interval(values: Iterable[Sequence[float]], average: str, spec: Spec) -> list[float]:
    which: Average = "macro" if average == "macro" else "micro"
    return list(bootstrap_interval(list(values), which, spec.seed))


def table(summary: dict[str, Any]) -> str:
    """The evaluation in Markdown: a row a benchmark, the two averages below, what was asked above."""
    spec = Spec.model_validate(summary["spec"])
    how = f"greedy, mean of {spec.n} run{'s' * (spec.n > 1)}" if spec.decoding == "greedy" else f"avg@{spec.n}"
    if spec.decoding == "sampled":
        how += f" at temperature {spec.temperature:g}" + (f", top-p {spec.top_p:g}" if spec.top_p < 1 else "")
    lines = [
        f"{_named(spec)}: {how}, template {spec.template}, at most {spec.max_tokens} tokens, grader {spec.mode}",
        "",
        *_rows(summary, spec),
    ]
    if spec.limit is not None:
        lines += ["", f"Only the first {spec.limit} problems of each benchmark were asked (--limit)."]
    for b in summary["benchmarks"].values():
        if spec.limit is None and b["expected"] and b["problems"] != b["expected"]:
            lines += ["", f"{b['title']} has {b['expected']} problems where it was published, here {b['problems']}."]
        if b["ungraded"]:
            lines += ["", f"{b['title']}: the verifier failed on {b['ungraded']} samples; they count as not right."]
        for what, parts in (("level", b["by_level"]), ("subject", b["by_subject"])):
            if len(parts) > 1:
                cells = (f"{v} {part['accuracy']:.3f} ({part['problems']})" for v, part in parts.items())
                lines += ["", f"{b['title']} by {what}: {', '.join(cells)}"]
    return "\n".join(lines) + "\n"


def _named(spec: Spec) -> str:
    step = "" if spec.step is None else f", step {spec.step}"
    return f"{spec.run or spec.model}{step}"


def _rows(summary: dict[str, Any], spec: Spec) -> list[str]:
    ks = [("pass_at", "pass@", _powers(spec.samples))] if spec.decoding == "sampled" else []
    ks += [("maj_at", "maj@", [spec.samples])] if spec.samples > 1 else []
    columns: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("problems", lambda b: str(b["problems"])),
        ("accuracy (95 %)", lambda b: shown_interval(b["accuracy"], b["interval"])),
    ]
    if spec.runs > 1:
        columns.append(("std of runs", lambda b: "-" if b["runs_std"] is None else f"{b['runs_std']:.3f}"))
    for field, label, sizes in ks:
        columns += [(f"{label}{k}", lambda b, f=field, k=k: f"{b[f][str(k)]:.3f}") for k in sizes if k > 1]
    columns += [
        ("formatted", lambda b: f"{b['formatted']:.3f}"),
        ("tokens", lambda b: f"{b['tokens_mean']:.0f}"),
        ("truncated", lambda b: f"{b['truncated']:.3f}"),
    ]
    lines = [f"| | {' | '.join(name for name, _ in columns)} |", f"| --- |{' --- |' * len(columns)}"]
    for b in summary["benchmarks"].values():
        lines.append(f"| {b['title']} | {' | '.join(cell(b) for _, cell in columns)} |")
    if len(summary["benchmarks"]) > 1:
        for name in ("macro", "micro"):
            cells = ["", shown_interval(summary[name]["accuracy"], summary[name]["interval"])]
            cells += [""] * (len(columns) - len(cells))
            lines.append(f"| **{name} average** | {' | '.join(cells)} |")
    return lines


def shown_interval(value: float, interval: Sequence[float]) -> str:
    return f"{value:.3f} ({interval[0]:.3f}-{interval[1]:.3f})"
