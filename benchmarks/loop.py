"""Samples a second of the whole loop: 32 prompts x 8 samples a step, natural lengths, 3 M parameters."""

from __future__ import annotations

from collections.abc import Iterator

from chorus.benchmarks.bench import Bench
from chorus.benchmarks.models import three_million
from chorus.benchmarks.report import Row, at_least
from chorus.benchmarks.runs import chorus_run, steady

GOAL = at_least(75)  # TRL 1.16's GRPO trainer did 45-50 on two quiet cores, raw vLLM about 130
_GROUPS = 32
_GROUP_SIZE = 8


def measure(bench: Bench) -> Iterator[Row]:
    model = three_million(bench)
    rates: list[float] = []
    lengths: list[float] = []
    for k in range(bench.repeats):
        run_dir = chorus_run(
            bench,
            f"loop-{k + 1}",
            f"model.path={model}",
            f"staleness.target={bench.staleness}",
            f"learner.groups_per_step={_GROUPS}",
            f"sampling.group_size={_GROUP_SIZE}",
        )
        records = steady(run_dir)
        rates.append(sum(r["groups"] for r in records) * _GROUP_SIZE / sum(r["seconds"] for r in records))
        lengths += [r["response_tokens_mean"] for r in records]
        bench.say(f"{rates[-1]:.1f} samples/s")
    note = f"{_GROUPS} x {_GROUP_SIZE}, {sum(lengths) / len(lengths):.1f} tokens a completion"
    yield Row("loop: samples trained", "samples/s", rates, goal=GOAL, note=note)
