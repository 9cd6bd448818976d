"""Grade a run's stored rollouts with today's rules, and say what changed and why.

Reads the run's folder alone (config.json, rollouts/, its tokenizer); needs no Redis and changes nothing. The grades
come from the reward server's own graders, in processes with its limits.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import click

from chorus.cli.evaluate.grading import Grading, local_grading
from chorus.protocol.config.load import load_config
from chorus.protocol.config.run import RunConfig
from chorus.protocol.graders import KINDS
from chorus.protocol.messages import Grade, Sample, Task, unpack_ids
from chorus.protocol.rewards import OPEN, Gates, RewardSpec, compose_group
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.older import decoder
from chorus.protocol.run_folder.rollout_rows import Decode
from chorus.protocol.run_folder.rollouts import UNREADABLE, StoredStep, read_step, stored_steps
from chorus.protocol.runtime.command_line import PATH, command, option
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.reward_server.api.settings import OF_RECIPE, Settings

Graded = tuple[list[Sample], list[dict[str, Any]]]  # a group's samples, and what they are graded as today
TOLERANCE = 1e-6


@command("regrade", help=__doc__, examples=["chorus regrade runs/demo-20261121-231924 --steps 10:20 --mode strict"])
@click.argument("run", type=PATH, help="a run's folder")
@option("--steps", metavar="FIRST:LAST", help="only these steps, both included; either may be left out")
@option("--mode", type=click.Choice(["train", "paper", "strict"]), help="of the grader (default: the run's)")
@option("--examples", type=int, default=5, help="changed samples to explain")
@option("--workers", type=int, help="grader processes (default: one a core)")
@option("--json", "as_json", is_flag=True, help="print the outcome as JSON")
def main(run: Path, steps: str | None, mode: str | None, examples: int, workers: int | None, as_json: bool) -> int:
    config = load_config(RunFolder(run).existing().config)
    chosen = [(step, path) for step, path in stored_steps(RunFolder(run)) if _within(step, steps)]
    if not chosen:
        raise CannotGoOn(
            f"{run}: no stored rollouts{f' in steps {steps}' if steps else ''}; give a run that has trained a step"
        )
    mode = mode or config.reward.mode
    workers = workers or len(os.sched_getaffinity(0))
    gates = {record["step"]: Gates.of_record(record) for record in RunFolder(run).records()}
    outcome = asyncio.run(_regrade(config, chosen, gates, decoder(run, config)[0], mode, examples, workers))
    print(json.dumps(outcome.as_dict(), indent=2) if as_json else outcome.text(run))
    return os.EX_OK


@dataclass
class Change:
    """One sample whose grade is another today."""

    step: int
    task: Task
    before: Grade
    after: dict[str, Any]
    completion: str
    why: str = ""

    @property
    def kind(self) -> str:
        if self.before.verdict != self.after["verdict"]:
            return f"{self.before.verdict} -> {self.after['verdict']}"
        return "score" if _same_number(self.before.format, self.after["format"]) else "format score"


@dataclass
class Dispute:
    """One sample on which the second opinion differed when the run was made."""

    step: int
    task: Task
    grade: Grade
    completion: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "index": self.task.index,
            "problem": self.task.problem_id,
            "kind": self.task.kind,
            "template": self.task.template,
            "gold": self.task.gold,
            "grade": {"verdict": self.grade.verdict, "extracted": self.grade.extracted},
            "shadow": self.grade.shadow.model_dump() if self.grade.shadow else None,
            "completion": self.completion,
        }


@dataclass
class Outcome:
    """`rewards`: (then, now) of every sample that had a reward and has one. `opinions`: of samples that have a second
    one, by kind and template; `disputed`, those that differ, of which `disputes` are the first."""

    samples: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    templates: Counter[str] = field(default_factory=Counter)
    rewards: list[tuple[float, float]] = field(default_factory=list)
    examples: list[Change] = field(default_factory=list)
    opinions: Counter[str] = field(default_factory=Counter)
    disputed: Counter[str] = field(default_factory=Counter)
    disputes: list[Dispute] = field(default_factory=list)

    def look_at_shadow(self, dispute: Dispute, at_most: int) -> None:
        """Count a stored second opinion, and keep it where it differs."""
        differs, where = dispute.grade.disputed, f"{dispute.task.kind} under {dispute.task.template}"
        if differs is None:
            return
        self.opinions[where] += 1
        if differs:
            self.disputed[where] += 1
            if len(self.disputes) < at_most:
                self.disputes.append(dispute)

    def as_dict(self) -> dict[str, Any]:
        then, now = self._means()
        return {
            "samples": self.samples,
            "changed": self.kinds.total(),
            "kinds": dict(self.kinds.most_common()),
            "templates": dict(self.templates.most_common()),
            "reward": {"then": then, "now": now},
            "examples": [
                {
                    "step": c.step,
                    "index": c.task.index,
                    "problem": c.task.problem_id,
                    "template": c.task.template,
                    "gold": c.task.gold,
                    "then": c.before.model_dump(),
                    "now": {key: c.after[key] for key in ("verdict", "accuracy", "format", "extracted")},
                    "why": c.why,
                    "completion": c.completion,
                }
                for c in self.examples
            ],
            "shadow": {
                "samples": self.opinions.total(),
                "disagree": self.disputed.total(),
                "by": {name: {"samples": n, "disagree": self.disputed[name]} for name, n in self.opinions.items()},
                "examples": [dispute.as_dict() for dispute in self.disputes],
            },
        }

    def text(self, run: Path) -> str:
        then, now = self._means()
        rewards = f"; mean reward {then:.4f} then, {now:.4f} now" if then is not None and now is not None else ""
        lines = [f"{run}: {self.samples:,} samples graded again, {self.kinds.total():,} changed{rewards}"]
        lines += [f"  {n:>6}  {kind}" for kind, n in self.kinds.most_common()]
        lines += [f"  {n:>6}  under {name}" for name, n in self.templates.most_common()]
        for c in self.examples:
            lines += [
                "",
                f"step {c.step}, group {c.task.index} ({c.task.problem_id}, {c.task.template}): {c.kind}",
                f"  gold      {' | '.join(c.task.gold)}",
                f"  answer    {c.before.extracted!r} then, {c.after['extracted']!r} now",
                f"  format    {c.before.format} then, {c.after['format']} now",
                f"  why       {c.why}",
                f"  text      {c.completion[-300:]!r}",
            ]
        return "\n".join(lines + self._shadow_text())

    def _shadow_text(self) -> list[str]:
        if not self.opinions:
            return []
        lines = ["", f"second opinion: {self.opinions.total():,} samples had one, {self.disputed.total():,} disagree"]
        lines += [f"  {self.disputed[name]:>6} of {n:,}  {name}" for name, n in self.opinions.most_common()]
        for d in self.disputes:
            shadow = d.grade.shadow
            lines += [
                "",
                f"step {d.step}, group {d.task.index} ({d.task.problem_id}, {d.task.template}): {d.grade.verdict}, "
                f"{shadow.grader if shadow else ''} says {shadow.verdict if shadow else ''}",
                f"  gold      {' | '.join(d.task.gold)}",
                f"  answer    {d.grade.extracted!r}",
                f"  text      {d.completion[-300:]!r}",
            ]
        return lines

    def _means(self) -> tuple[float | None, float | None]:
        if not self.rewards:
            return None, None
        return fmean(then for then, _ in self.rewards), fmean(now for _, now in self.rewards)


async def _regrade(
    config: RunConfig,
    steps: list[tuple[int, StoredStep]],
    gates: Mapping[int, Gates],
    decode: Decode,
    mode: str,
    examples: int,
    workers: int,
) -> Outcome:
    outcome = Outcome()
    settings = settings_of(config, workers)
    spec = settings.reward
    async with local_grading(settings=settings) as grading:
        for step, path in steps:
            rows = list(_samples(path, decode))
            items = [_item(task, text, mode, spec) for task, _, text in rows]
            grades = await grading.grade(items)
            _compare_rewards(outcome, spec, _groups(rows, grades), gates.get(step, OPEN))
            for (task, sample, text), item, grade in zip(rows, items, grades, strict=True):
                outcome.samples += 1
                outcome.look_at_shadow(Dispute(step, task, sample.grade, text), examples)
                change = Change(step, task, sample.grade, grade, text)
                if not _same(sample.grade, grade):
                    outcome.kinds[change.kind] += 1
                    outcome.templates[task.template] += 1
                    if len(outcome.examples) < examples:
                        change.why = await _why(grading, item, change)
                        outcome.examples.append(change)
    return outcome


def settings_of(config: RunConfig, workers: int) -> Settings:
    """Of graders that judge a run's answers again, as the run had them but for the second opinion."""
    return Settings(
        workers=workers,
        timeout_s=config.reward.timeout_s,
        templates=tuple(Path(file) for file in config.templates.files),
        reward=RewardSpec(**config.reward_spec.model_dump(include=set(RewardSpec.model_fields))),
        **config.reward.model_dump(include=OF_RECIPE - {"workers", "timeout_s", "shadow", "shadow_share"}),
    )


def _groups(rows: Sequence[tuple[Task, Sample, str]], grades: Sequence[dict[str, Any]]) -> list[Graded]:
    found: list[Graded] = []
    for k, ((task, sample, _), grade) in enumerate(zip(rows, grades, strict=True)):
        if not k or task is not rows[k - 1][0]:
            found.append(([], []))
        found[-1][0].append(sample)
        found[-1][1].append(grade)
    return found


def _samples(path: StoredStep, decode: Decode) -> Iterator[tuple[Task, Sample, str]]:
    try:
        rows = read_step(path)
    except UNREADABLE as error:
        raise CannotGoOn(f"{path}: can't be read ({error}); leave its step out with --steps") from None
    for ready in rows:
        samples = ready.group.samples
        texts = decode([unpack_ids(sample.token_ids).tolist() for sample in samples])
        task = ready.group.task
        yield from ((task, sample, task.opened + text) for sample, text in zip(samples, texts, strict=True))


def _item(task: Task, text: str, mode: str, spec: RewardSpec) -> dict[str, Any]:
    """As the generator asked, but for the mode."""
    terms = {"terms": [term.grader for term in spec.terms]} if spec.terms else {}
    return {"completion": text, "mode": mode} | task.grading() | terms


def _same(before: Grade, after: dict[str, Any]) -> bool:
    """Verdict, format score, and the scores of users' own graders."""
    now = after.get("scores") or {}
    names = {*(before.scores or {}), *now}
    scores = all(_same_number((before.scores or {}).get(name), now.get(name)) for name in names)
    return before.verdict == after["verdict"] and scores and _same_number(before.format, after["format"])


def _same_number(then: float | None, now: float | None) -> bool:
    return abs((then or 0.0) - (now or 0.0)) < TOLERANCE


def _compare_rewards(outcome: Outcome, spec: RewardSpec, groups: Sequence[Graded], gates: Gates) -> None:
    """As the learner composes them, a group at a time, with the gates that the step had."""
    for before, grades in groups:
        after = [s.model_copy(update={"grade": Grade.model_validate(g)}) for s, g in zip(before, grades, strict=True)]
        for then, now in zip(compose_group(spec, before, gates), compose_group(spec, after, gates), strict=True):
            if then.total is not None and now.total is not None:
                outcome.rewards.append((then.total, now.total))


async def _why(grading: Grading, item: dict[str, Any], change: Change) -> str:
    """Today's reasons, in the words of /v1/explain; what the rules were then is not stored."""
    if change.after["accuracy"] is None:
        return str(change.after.get("reason") or "the grader failed")
    explained = await grading.explain(item)
    if change.kind == "score":
        now = change.after.get("scores") or {}
        then = change.before.scores or {}
        return "; ".join(f"{name} {then.get(name)} then, {now.get(name)} now" for name in {**then, **now})
    if change.task.kind not in KINDS or change.task.kind == "code":
        return "; ".join(str(c["reason"]) for c in explained["comparisons"])
    reasons = [f"{c['gold']}: {c['rule']}, {c['reason']}" for c in explained["comparisons"]]
    found = (explained.get("extraction") or {}).get("rung", "none")
    reasons += ["no answer was found" if found == "none" else f"answer found by {found}"]
    if change.kind == "format score":
        counts = explained["markers"] or {}
        reasons = [f"{marker!r} occurs {n} times" for marker, n in counts.items() if n != 1] or ["every marker once"]
    return "; ".join(reasons)


def _within(step: int, span: str | None) -> bool:
    if span is None:
        return True
    first, colon, last = span.partition(":")
    try:
        low = int(first) if first else 0
        high = int(last) if last else (step if colon else low)
    except ValueError:
        raise CannotGoOn(f"--steps {span}: give FIRST:LAST, for example 10:20, 10: or 12") from None
    return low <= step <= high
