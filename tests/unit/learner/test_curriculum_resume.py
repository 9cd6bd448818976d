"""A learner dies after a stage began and before a checkpoint held the step: its successor, on the same ledger, goes on
in that stage with the same draws. The ledger is a real one, the generators are hands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import redis

from chorus.learner.rollouts.admission import Admission
from chorus.learner.rollouts.collector import Collector
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Keys, LearnerLedger, Rollout
from chorus.protocol.ledger.keys import TASK_GROUP
from chorus.protocol.messages import Grade, RolloutGroup, Sample, Task, Timing, pack_floats, pack_ids
from chorus.protocol.metrics.processes import LearnerMetrics
from chorus.protocol.run_folder.folder import RunFolder

GROUPS = 2
STAGES = [{"name": "half", "hint_ratio": 0.5, "steps": 2}, {"name": "online", "hint_ratio": "online"}]


class Life:
    """A learner start."""

    def __init__(self, client: redis.Redis, model: Path, folder: Path, objective: dict[str, Any], done: int = 0):
        rows = [{"id": f"p{k}", "problem": f"{k}?", "answer": "7", "solution": "a" * 20 + " is 7"} for k in range(3)]
        train = folder / "train.jsonl"
        train.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.config = RunConfig.model_validate(
            {
                "run": {"steps": 100},
                "model": {"path": str(model), "context": 400},
                "problems": {"train": [str(train)], "max_prompt_tokens": 300},
                "templates": {"names": ["qwen-math"]},
                "curriculum": {"stages": STAGES, "hints": {"probe_share": 0.0}},
                "sampling": {"group_size": 2, "max_tokens": 16},
                "staleness": {"target": 1, "max": 4},
                "objective": objective,
                "learner": {"groups_per_step": GROUPS, "collect_deadline_s": 5.0},
            }
        )
        self.client = client
        self.admission = Admission(self.config, "run")
        self.admission.open(RunFolder(folder))
        self.ledger = LearnerLedger(client, "run")
        self.ledger.rewind(done)
        self.collector = Collector(self.config, self.ledger, self.admission, LearnerMetrics())
        self.collector.restore(done)
        self.done = done
        self.admitted: list[Task] = []

    def answer(self, *accuracies: float) -> None:
        """Generators answer all that is queued, every group with these accuracies."""
        keys = Keys("run")
        reply: Any = self.client.xreadgroup(TASK_GROUP, "hand", {keys.tasks: ">"}, count=99)
        entries = (reply[keys.tasks.encode()][0] if isinstance(reply, dict) else reply[0][1]) if reply else []
        for id, fields in entries:
            task = Task.decode(fields[b"d"])
            self.admitted.append(task)
            self.client.xack(keys.tasks, TASK_GROUP, id)
            self.client.xadd(keys.rollouts, {"i": task.index, "d": graded(task, accuracies, self.done)})

    def step(self, *accuracies: float) -> list[Rollout]:
        """What the learner's loop does, without the training."""
        self.collector.admit(self.done, 90)
        self.answer(*accuracies)
        groups = self.collector.next_step(self.done, 90, lambda: self.answer(*accuracies))
        ids = [r.entry.id for r in groups]
        self.done += 1
        self.ledger.record(self.done, ids)
        self.ledger.trained(self.done, ids)
        for r in groups:
            self.collector.window.forget(r.group.task.index)
        self.collector.admit(self.done, 90)
        self.collector.take_filtered()
        self.admission.stages.advance(self.done, self.collector.next_index)
        return groups


def graded(task: Task, accuracies: tuple[float, ...], step: int) -> bytes:
    samples = [
        Sample(
            token_ids=pack_ids([5, 6]),
            logprobs=pack_floats([-0.5, -0.5]),
            versions=[(1, step, 2)],
            finish_reason="stop",
            grade=Grade(verdict="any", accuracy=accuracy, format=1.0),
        )
        for accuracy in accuracies
    ]
    timing = Timing(started=1.0, generated=2.0, graded=3.0)
    return RolloutGroup(task=task, generator_id="g", attempt=1, samples=samples, timing=timing).encode()


def drawn(tasks: list[Task]) -> list[tuple[int, str, float]]:
    return [(t.index, t.problem_id, t.hint_ratio) for t in sorted(tasks, key=lambda t: t.index)]


def test_a_learner_that_died_after_a_stage_began_goes_on_in_it_with_the_same_draws(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    whole_dir, cut_dir = tmp_path / "whole", tmp_path / "cut"
    whole_dir.mkdir()
    cut_dir.mkdir()
    whole = Life(client, tiny_model, whole_dir, {})
    for _ in range(6):
        whole.step(1.0, 0.0)
    assert {t.hint_ratio for t in whole.admitted} >= {0.5, 0.375}, "half of them right: online ratios are lowered"
    client.flushall()

    first = Life(client, tiny_model, cut_dir, {})
    trained = [first.step(1.0, 0.0) for _ in range(3)]
    assert [s.name for s in first.admission.stages.starts] == ["half", "online"]
    again = Life(client, tiny_model, cut_dir, {}, done=0)  # killed; no checkpoint was written
    assert again.admission.stages.starts == first.admission.stages.starts
    retrained = [again.step(1.0, 0.0) for _ in range(6)]
    assert [[r.entry.id for r in groups] for groups in retrained[:3]] == [[r.entry.id for r in g] for g in trained]
    assert again.admission.stages.starts == first.admission.stages.starts == whole.admission.stages.starts
    assert drawn(first.admitted + again.admitted) == drawn(whole.admitted)
    assert again.ledger.accounts().difference == 0


def test_online_hints_learn_also_from_the_groups_that_the_filter_drops(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    life = Life(client, tiny_model, tmp_path, {"name": "dapo", "max_refills": 2})
    trained = {r.group.task.index for _ in range(6) for r in life.step(0.0, 0.0)}
    observed = {json.loads(line)["index"] for line in (tmp_path / "hints.jsonl").read_text().splitlines()}
    assert observed - trained, "groups that were dropped because all of their samples are wrong"
    again = Life(client, tiny_model, tmp_path, {"name": "dapo"}, done=life.done)
    tasks = [again.admission.task(k, 0, 4) for k in range(again.collector.next_index, again.collector.next_index + 5)]
    assert {t.problem_id for t in tasks} == {"p0", "p1", "p2"}
    assert all(t.hint_ratio > 0.5 for t in tasks), "raised, and known to the learner that follows"
