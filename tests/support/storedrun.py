"""Rollout groups as a generator would have committed them, and run folders that hold them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Entry, Rollout
from chorus.protocol.messages import Grade, RolloutGroup, Sample, Sampling, Task, Timing, pack_floats, pack_ids
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.rollouts import write_step


def grade(accuracy: float | None, format: float | None = 1.0, verdict: str | None = None, **facts: Any) -> Grade:
    usual = "error" if accuracy is None else "correct" if accuracy else "wrong"
    return Grade(verdict=verdict or usual, accuracy=accuracy, format=format, **facts)


def group(index: int, template: str, samples: Sequence[tuple[list[int], Grade]], gold: str = "1") -> Rollout:
    """One group: token ids and the grade of each sample."""
    task = Task(
        run_id="run",
        index=index,
        epoch=0,
        problem_id=f"math/{index}",
        kind="math",
        gold=[gold],
        template=template,
        prompt_ids=pack_ids([1]),
        group_size=len(samples),
        sampling=Sampling(temperature=1.0, max_tokens=64),
        min_version=0,
        deadline_s=1.0,
        admitted_at=0.0,
    )
    made = RolloutGroup(
        task=task,
        generator_id="g",
        attempt=1,
        samples=[
            Sample(
                token_ids=pack_ids(ids),
                logprobs=pack_floats([-0.5] * len(ids)),
                versions=[(1, 0, len(ids))],
                finish_reason="stop",
                grade=verdict,
            )
            for ids, verdict in samples
        ],
        timing=Timing(started=0.0, generated=0.0, graded=0.0),
    )
    return Rollout(Entry(f"{index}-0", index, made.encode()), made)


def run_folder(folder: Path, config: RunConfig, steps: Sequence[list[Rollout]]) -> Path:
    """A run's folder with as much as a reader of its rollouts needs."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.model_dump(mode="json")))
    for number, groups in enumerate(steps, 1):
        write_step(RunFolder(folder), number, groups)
    return folder
