"""How fast a run's rollouts are stored and asked: a synthetic run, and the questions of `chorus view`.

    python -m chorus.benchmarks.rollouts --samples 1000000

prints seconds for each question (the least of three), bytes a token, and seconds to store a step.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from chorus.protocol.ledger import Entry, Rollout
from chorus.protocol.messages import Grade, RolloutGroup, Sample, Sampling, Task, Timing, pack_floats, pack_ids
from chorus.protocol.rewards import RewardSpec, compose_group
from chorus.protocol.run_folder import rollouts
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.rollout_rows import Reading, Row, rows_of
from chorus.viewer.queries import question
from chorus.viewer.store import Rollouts

GROUP, GROUPS, TOKENS = 8, 32, 24  # as in the demo: 256 samples a step
TEMPLATES = ("abel", "formal", "open-r1", "qwen-math")
WORDS = ("so", "we", "add", "three", "apples", "and", "take", "five", "boxed", "gives", "minus", "plus")
QUESTIONS: dict[str, tuple[dict[str, list[str]], str]] = {
    "newest": ({}, ""),
    "one step": ({"step": ["7"]}, ""),
    "template and format": ({"template": ["formal"], "format": [":0.999"]}, ""),
    "sorted by reward": ({}, "-reward"),
    "old weights first": ({"staleness": ["1:"]}, "-staleness"),
    "one problem": ({"problem": ["p7"]}, "step"),
    "words": ({"q": ["three apples"]}, ""),
    "rare words": ({"q": ["needle"]}, ""),
}


def step_of(step: int, random: np.random.Generator) -> list[Rollout]:
    made = []
    for k in range(GROUPS):
        index = step * GROUPS + k
        sampling = Sampling(temperature=1.0, max_tokens=64)
        task = Task(
            **{"run_id": "run", "index": index, "epoch": 0, "problem_id": f"p{random.integers(500)}", "kind": "math"},
            **{"gold": ["7"], "template": TEMPLATES[index % 4], "prompt_ids": pack_ids(random.integers(0, 500, 30))},
            **{"group_size": GROUP, "sampling": sampling, "min_version": 0, "deadline_s": 300.0, "admitted_at": 1.0},
        )
        samples = [_sample(step, random) for _ in range(GROUP)]
        timing = Timing(started=1.0, generated=2.0, graded=3.0)
        group = RolloutGroup(task=task, generator_id="gen-0", attempt=1, samples=samples, timing=timing)
        made.append(Rollout(Entry(f"{index}-0", index, b""), group))
    return made


def _sample(step: int, random: np.random.Generator) -> Sample:
    n = int(random.integers(TOKENS // 2, 2 * TOKENS))
    right = bool(random.random() < 0.6)
    grade = Grade(verdict="correct" if right else "wrong", accuracy=float(right), format=float(random.random() < 0.9))
    return Sample(
        token_ids=pack_ids(random.integers(0, 500, n)),
        logprobs=pack_floats(-random.exponential(0.3, n)),
        versions=[(1, max(0, step - 1 - int(random.integers(3))), n)],
        finish_reason="stop",
        grade=grade,
    )


def _texts(batch: list[list[int]]) -> list[str]:
    return [" ".join(WORDS[id % len(WORDS)] for id in ids) for ids in batch]


def synthetic_run(folder: Path, samples: int) -> RunFolder:
    """Parts of 64 steps, as after merging: one is drawn, and comes again with other steps until there are enough."""
    run, random = RunFolder(folder), np.random.default_rng(0)
    run.rollouts.mkdir(parents=True)
    reading = Reading(_texts, _texts, partial(compose_group, RewardSpec()))
    rows: list[Row] = []
    for step in range(1, rollouts.MERGED_STEPS + 1):
        rows += rows_of(step, step_of(step, random), reading, float(step))
    rows[0] = rows[0] | {"text": "a needle"}
    table, step_samples = rollouts.table_of(rows), GROUP * GROUPS
    for first in range(0, -(-samples // step_samples), rollouts.MERGED_STEPS):
        moved = {name: [row[name] + first for row in rows] for name in ("step", "oldest_step")}
        part = rollouts.with_columns(table, moved).slice(0, samples - first * step_samples)
        name = f"steps-{first + 1:06d}-{first + rollouts.MERGED_STEPS:06d}.parquet"
        rollouts.save_table(run.rollouts / name, part)
    return run


def measured(work: Callable[[], Any], times: int = 3) -> float:
    """The least seconds."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)


def figures(run: RunFolder) -> dict[str, Any]:
    store = Rollouts(run)
    seconds = {}
    for name, (filters, sort) in QUESTIONS.items():
        asked = question(filters, sort)
        seconds[name] = measured(lambda asked=asked: store.page(asked, 50, 0))
    whole = store.rows("SELECT count(*) AS samples, sum(tokens) AS tokens FROM rollouts")[0]
    size = sum(path.stat().st_size for path in run.rollouts.iterdir())
    return {**whole, "bytes_a_token": size / int(whole["tokens"]), "seconds": seconds}


def storing() -> dict[str, float]:
    """Of one step: rows to a table, and the table to the disk."""
    groups = step_of(1, np.random.default_rng(1))
    reading = Reading(_texts, _texts, partial(compose_group, RewardSpec()))
    table = rollouts.table_of(rows_of(1, groups, reading, 0.0))
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        return {
            "table_s": measured(lambda: rollouts.table_of(rows_of(1, groups, reading, 0.0))),
            "write_s": measured(lambda: rollouts.write_table(run, 1, table)),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100_000)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = synthetic_run(Path(folder) / "run", wanted.samples)
        print(json.dumps({**figures(run), "one_step": storing()}, indent=2))


if __name__ == "__main__":
    main()
