"""Rollout groups made by hand: what a generator would have sent."""

from __future__ import annotations

from collections.abc import Sequence

from chorus.protocol.ledger import Entry, Rollout
from chorus.protocol.messages import Grade, RolloutGroup, Sample, Sampling, Task, Timing, pack_floats, pack_ids


def sample(
    accuracy: float | None = 1.0,
    ids: Sequence[int] = (5, 6, 7),
    logprob: float = -0.5,
    versions: list[tuple[int, int, int]] | None = None,
    finish: str = "stop",
    cluster: int | None = None,
    form: float = 0.0,
) -> Sample:
    return Sample(
        token_ids=pack_ids(list(ids)),
        logprobs=pack_floats([logprob] * len(ids)),
        versions=([(1, 0, len(ids))] if ids else []) if versions is None else versions,
        finish_reason=finish,
        grade=Grade(verdict="any", accuracy=accuracy, format=form, cluster=cluster, ms=2.0),
    )


def ready(samples: list[Sample], index: int = 0, template: str = "qwen-math") -> Rollout:
    task = Task(
        run_id="run",
        index=index,
        epoch=0,
        problem_id="p",
        kind="math",
        gold=["1"],
        template=template,
        prompt_ids=pack_ids([1, 2, 3]),
        group_size=len(samples),
        sampling=Sampling(temperature=1.0, max_tokens=16),
        min_version=0,
        deadline_s=1.0,
        admitted_at=1.0,
    )
    timing = Timing(started=1.0, generated=2.0, graded=3.0)
    group = RolloutGroup(task=task, generator_id="g", attempt=1, samples=samples, timing=timing)
    return Rollout(Entry(f"{index}-0", index, b""), group)
