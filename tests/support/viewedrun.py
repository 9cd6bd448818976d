"""A run's folder with answers worth a look, without a model: token 100 + k stands for the k-th text."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from storedrun import grade, group

from chorus.protocol.ledger import Rollout
from chorus.protocol.messages import RolloutGroup
from chorus.protocol.rewards import RewardSpec, compose_group
from chorus.protocol.run_folder import rollouts
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.rollout_rows import Reading, rows_of

HOSTILE = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>\x1b[2J\u202e\';DROP TABLE rollouts;--'
TEXTS = ["So it is \\boxed{7}.", "So it is seven, without a box.", "I think 8: \\boxed{8}", HOSTILE]
RIGHT, NO_BOX, WRONG, EVIL = range(4)
READING = Reading(
    prompts=lambda batch: ["<|user|>What is 3 + 4?" for _ in batch],
    completions=lambda batch: [TEXTS[ids[0] - 100] for ids in batch],
    compose=partial(compose_group, RewardSpec()),
    level=lambda id: 2,
)
STEPS = 6


def made(step: int) -> list[Rollout]:
    """Of step k: problem p0 under abel, p1 under formal, whose format fails; from step 4 on with weights of step 1."""
    right = grade(1.0, extracted="7"), grade(0.0, 0.5, "no_answer", reason="no box")
    kinds = [(RIGHT, right[0]), (NO_BOX, right[1])] if step < 5 else [(RIGHT, right[0]), (RIGHT, right[0])]
    first = group(10 * step, "abel", [([100 + text, step], graded) for text, graded in kinds], gold="7")
    bad = [([100 + WRONG, 1, 2], grade(0.0, 0.25, extracted="8")), ([100 + EVIL], grade(0.0, 0.0))]
    second = group(10 * step + 1, "formal", bad, gold="7")
    return [_aged(first, "p0", step - 1), _aged(second, "p1", 1 if step >= 4 else step - 1)]


def _aged(rollout: Rollout, problem: str, sampled: int) -> Rollout:
    task = rollout.group.task.model_copy(update={"problem_id": problem})
    samples = [s.model_copy(update={"versions": [(1, sampled, s.n_tokens)]}) for s in rollout.group.samples]
    return replace(rollout, group=rollout.group.model_copy(update={"task": task, "samples": samples}))


def write(run: RunFolder, step: int) -> None:
    """One step, trained."""
    table = rollouts.table_of(rows_of(step, made(step), READING, 1000.0 + step))
    rollouts.write_table(run, step, rollouts.with_columns(table, {"advantage": [1.0, -1.0, 0.5, -0.5]}))
    part = {"reward": 1.0, "accuracy": 0.5, "format": 0.9, "entropy": 0.3, "samples": 2}
    record = {"step": step, "steps": STEPS, "time": 2000.0 + step, "reward": 0.1 * step, "accuracy": 0.1 * step}
    record |= {"by_template": {"abel": part, "formal": part | {"format": 0.1}}, "stage": "one" if step < 3 else "two"}
    run.append_record(record | {"alarms": ["entropy is low"] if step == 2 else []})


def evaluate(run: RunFolder, name: str, step: int) -> None:
    """p0 of level 1 and p1 of level 2, each sampled twice and asked once at temperature 0, as `made(step)` has them."""
    sampled = made(step)
    reading = replace(READING, level=lambda id: int(id[1]) + 1)
    greedy = [replace(r, group=_greedy(r.group)) for r in sampled]
    (run.evaluated(name).parent).mkdir(exist_ok=True)
    rollouts.save_table(run.evaluated(name), rollouts.table_of(rows_of(step, [*sampled, *greedy], reading, 9.0, step)))
    told = {"step": step, "problems": 2, "samples": 2, "accuracy": 0.25, "greedy": 0.5, "format": 0.4, "truncated": 0.0}
    run.evaluation(name).write_text(json.dumps(told | {"response_tokens_mean": 2.0, "ungraded": 0}))


def _greedy(group: RolloutGroup) -> RolloutGroup:
    sampling = group.task.sampling.model_copy(update={"temperature": 0.0})
    task = group.task.model_copy(update={"index": group.task.index + 1000, "sampling": sampling, "group_size": 1})
    return group.model_copy(update={"task": task, "samples": group.samples[:1]})


def viewed_run(folder: Path, steps: int = STEPS, **config: Any) -> RunFolder:
    folder.mkdir(parents=True, exist_ok=True)
    sections = {"run": {"steps": STEPS, "name": "demo"}, "model": {"path": str(folder / "none")}} | config
    (folder / "config.json").write_text(json.dumps(sections))
    (folder / "run.json").write_text(json.dumps({"started_at": time.time()}))
    run = RunFolder(folder)
    for step in range(1, steps + 1):
        write(run, step)
    return run
