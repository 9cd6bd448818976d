"""Samples a second of the whole loop: 32 prompts x 8 samples a step, natural lengths, 3 M parameters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from chorus.benchmarks.bench import Bench
from chorus.benchmarks.models import three_million
from chorus.benchmarks.report import Row, at_least
from chorus.benchmarks.runs import chorus_run, steady

GOAL = at_least(87)  # 1.5 times what TRL 1.16's GRPO trainer did on two quiet cores, 58; beside it: benchmarks/peer.py
GROUPS = 32
GROUP_SIZE = 8


def measure(bench: Bench) -> Iterator[Row]:
    model = three_million(bench)
    rates: list[float] = []
    lengths: list[float] = []
    for k in range(bench.repeats):
        rate, tokens = run_once(bench, f"loop-{k + 1}", model)
        rates.append(rate)
        lengths.append(tokens)
        bench.say(f"{rate:.1f} samples/s")
    note = f"{GROUPS} x {GROUP_SIZE}, {sum(lengths) / len(lengths):.1f} tokens a completion"
    yield Row("loop: samples trained", "samples/s", rates, goal=GOAL, note=note)


def run_once(bench: Bench, name: str, model: Path) -> tuple[float, float]:
    """(samples a second, tokens a completion) of a whole run without its warm-up."""
    run_dir = chorus_run(
        bench,
        name,
        f"model.path={model}",
        f"staleness.target={bench.staleness}",
        f"learner.groups_per_step={GROUPS}",
        f"sampling.group_size={GROUP_SIZE}",
    )
    records = steady(run_dir)
    samples = sum(r["groups"] for r in records) * GROUP_SIZE
    tokens = sum(r["response_tokens_mean"] for r in records) / len(records)
    return samples / sum(r["seconds"] for r in records), tokens
