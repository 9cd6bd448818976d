"""What a step's record says of its curriculum: stage, hints, the probe, and parts by hint, domain and level.

A run without hints and stages has None for all of these. The stage is that of the step's oldest group: the next stage's
groups follow those admitted before it.
"""

from __future__ import annotations

from statistics import fmean
from typing import Any

from chorus.learner.metrics.step_record import Labels
from chorus.learner.rollouts.admission import Admission
from chorus.protocol.ledger import Rollout
from chorus.protocol.messages import Task


def labels(admission: Admission) -> Labels:
    """By what else than the template a step's samples are told apart; only where it tells anything apart."""
    problems = admission.by_id

    def domain(task: Task) -> str | None:
        return problems[task.problem_id].domain if task.problem_id in problems else None

    def level(task: Task) -> str | None:
        known = problems[task.problem_id].level if task.problem_id in problems else None
        return None if known is None else str(known)

    found: dict[str, Any] = {}
    if len(admission.stages.stages) > 1:
        found["by_stage"] = lambda task: admission.stages.of(task.index).name
    if admission.config.curriculum.gives_hints:
        found["by_hint"] = lambda task: f"{task.hint_ratio:g}"
    if len({p.domain for p in problems.values()} - {None}) > 1:
        found["by_domain"] = domain
    if len({p.level for p in problems.values()} - {None}) > 1:
        found["by_level"] = level
    return found


def step_metrics(groups: list[Rollout], admission: Admission) -> dict[str, Any]:
    curriculum = admission.config.curriculum
    if not curriculum.stages:
        return {}
    tasks = [r.group.task for r in groups]
    number = admission.stages.number(min(task.index for task in tasks))
    stage = admission.stages.stages[number]
    longest = stage.max_tokens or admission.config.sampling.max_tokens
    found: dict[str, Any] = {"stage": stage.name, "stage_number": number, "max_tokens": longest}
    if not curriculum.gives_hints:
        return found
    hinted = [task for task in tasks if task.hint_ratio > 0 and task.problem_id in admission.by_id]
    given = [len(admission.hints.prefix(admission.by_id[task.problem_id], task.hint_ratio)) for task in hinted]
    online, lowered = admission.hints.take()
    held = admission.stages.pools[number].chosen.answer_in_hint if online is None else online
    return found | {
        "hint_ratio": fmean(task.hint_ratio for task in tasks),
        "hint_characters": fmean(given) if given else None,
        "answer_in_hint": held,
        "hints_lowered": dict(lowered),
        **admission.probe.take(),
    }
