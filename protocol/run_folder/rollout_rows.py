"""A rollout group as rows, one a sample, and the group that such rows were made of: the same, bit for bit.

A row says a thing in two ways where people and programs want different ones: `text` beside `token_ids`, `staleness`
beside `versions`. What is derived is never read back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from chorus.protocol.ledger import Entry, Rollout
from chorus.protocol.messages import Grade, RolloutGroup, Sample, Sampling, Shadow, Task, Timing, unpack_ids
from chorus.protocol.rewards import RewardParts

Decode = Callable[[list[list[int]]], list[str]]
Compose = Callable[[Sequence[Sample]], list[RewardParts]]
Row = dict[str, Any]


@dataclass(frozen=True)
class Reading:
    """What turns token ids into words and grades into rewards.

    prompts: shows special tokens; completions: the text that was graded. compose: the rewards of a group's samples.
    level, domain: of a problem's id.
    """

    prompts: Decode
    completions: Decode
    compose: Compose
    level: Callable[[str], int | None] = lambda id: None
    domain: Callable[[str], str | None] = lambda id: None


def rows_of(
    step: int, groups: Sequence[Rollout], reading: Reading | None, chosen_at: float | None, version: int | None = None
) -> list[Row]:
    """The rows of one step. Arrays are the messages' own bytes; without a `reading`, what it would tell is None.

    version: of the weights that the step trains, from which staleness counts (None: each step made one).
    """
    rows, version = [], step - 1 if version is None else version
    for position, rollout in enumerate(groups):
        shared = _of_group(step, position, rollout, reading) | {"chosen_at": chosen_at}
        samples = rollout.group.samples
        texts: list[str | None] = [None] * len(samples)
        if reading:
            decoded = reading.completions([unpack_ids(s.token_ids).tolist() for s in samples])
            texts = [rollout.group.task.opened + text for text in decoded]
        parts = reading.compose(samples) if reading else [None] * len(samples)
        for k, (sample, text, paid) in enumerate(zip(samples, texts, parts, strict=True)):
            rows.append(shared | {"sample": k, "text": text} | _of_sample(version, sample, paid))
    return rows


def _of_group(step: int, position: int, rollout: Rollout, reading: Reading | None) -> Row:
    group, task = rollout.group, rollout.group.task
    return {
        "step": step,
        "position": position,
        "entry": rollout.entry.id,
        "run": task.run_id,
        "group": task.index,
        "epoch": task.epoch,
        "problem_id": task.problem_id,
        "level": reading.level(task.problem_id) if reading else None,
        "domain": reading.domain(task.problem_id) if reading else None,
        "kind": task.kind,
        "gold": task.gold,
        "tests": task.tests,
        "row": task.row,
        "opened": task.opened,
        "options": task.options,
        "sub_answers": task.sub_answers,
        "template": task.template,
        "hint_ratio": task.hint_ratio,
        "prompt": reading.prompts([unpack_ids(task.prompt_ids).tolist()])[0] if reading else None,
        "prompt_ids": task.prompt_ids,
        "group_size": task.group_size,
        "temperature": task.sampling.temperature,
        "max_tokens": task.sampling.max_tokens,
        "top_p": task.sampling.top_p,
        "stop": task.sampling.stop,
        "min_version": task.min_version,
        "deadline_s": task.deadline_s,
        "admitted_at": task.admitted_at,
        "generator": group.generator_id,
        "attempt": group.attempt,
        "started_at": group.timing.started,
        "generated_at": group.timing.generated,
        "graded_at": group.timing.graded,
    }


def _of_sample(version: int, sample: Sample, paid: RewardParts | None) -> Row:
    grade, shadow = sample.grade, sample.grade.shadow
    oldest = min((version for _, version, _ in sample.versions), default=None)
    row = {
        "token_ids": sample.token_ids,
        "logprobs": sample.logprobs,
        "versions": [{"fence": f, "step": s, "tokens": n} for f, s, n in sample.versions],
        "tokens": sample.n_tokens,
        "oldest_step": oldest,
        "staleness": None if oldest is None else max(0, version - oldest),
        "finish_reason": sample.finish_reason,
        "truncated": sample.finish_reason == "length",
        "verdict": grade.verdict,
        "accuracy": grade.accuracy,
        "format": grade.format,
        "extracted": grade.extracted,
        "cluster": grade.cluster,
        "grade_ms": grade.ms,
        "reason": grade.reason,
        "scores": _listed(grade.scores, "score"),
        "shadow": shadow.model_dump() if shadow else None,
        "disputed": grade.disputed,
        "sub_answers_found": grade.sub_answers,
    }
    if paid is None:
        return row
    terms = {**paid.terms, **paid.paid}
    return row | {"reward": paid.total, "overlong": paid.overlong, "terms": _listed(terms or None, "paid")}


def _listed(scores: Mapping[str, float | None] | None, name: str) -> list[Row] | None:
    return None if scores is None else [{"grader": grader, name: score} for grader, score in scores.items()]


def groups_of(rows: Sequence[Row]) -> list[Rollout]:
    """The groups of a step, in the order in which they were trained. Raises ValueError for rows that are none."""
    ordered = sorted(rows, key=lambda row: (row["position"], row["sample"]))
    return [_group(list(samples)) for _, samples in groupby(ordered, key=lambda row: row["position"])]


def _group(rows: list[Row]) -> Rollout:
    first = rows[0]
    task = Task(
        run_id=first["run"],
        index=first["group"],
        sampling=Sampling(**{key: first[key] for key in ("temperature", "max_tokens", "top_p", "stop")}),
        **{key: first[key] for key in Task.model_fields if key in first},
    )
    timing = Timing(started=first["started_at"], generated=first["generated_at"], graded=first["graded_at"])
    group = RolloutGroup(
        task=task,
        generator_id=first["generator"],
        attempt=first["attempt"],
        samples=[_sample(row) for row in rows],
        timing=timing,
    )
    return Rollout(Entry(first["entry"], task.index, group.encode()), group)


def _sample(row: Row) -> Sample:
    scores, shadow = row["scores"], row["shadow"]
    grade = Grade(
        verdict=row["verdict"],
        accuracy=row["accuracy"],
        format=row["format"],
        extracted=row["extracted"],
        cluster=row["cluster"],
        ms=row["grade_ms"],
        reason=row["reason"],
        scores=None if scores is None else {each["grader"]: each["score"] for each in scores},
        shadow=None if shadow is None else Shadow(**shadow),
        sub_answers=row["sub_answers_found"],
    )
    versions = [(each["fence"], each["step"], each["tokens"]) for each in row["versions"]]
    arrays = {"token_ids": row["token_ids"], "logprobs": row["logprobs"]}
    return Sample(**arrays, versions=versions, finish_reason=row["finish_reason"], grade=grade)
