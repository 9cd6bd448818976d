"""What the learner does between two steps beside the model's arithmetic: its own loop, on steps as large as real ones.

    real        learner's loop, admission, ledger (Valkey), collector, experience, cutting, records, rollouts on disk,
                weight sync's offers
    scripted    the ranks, which wait as long as a step would take on GPUs; generators, whose answers are there by then

A step's time is the loop's, without the ranks' calls. What threads do beside training (rollouts written, answers
measured) counts where the loop waits for it; the processor time of the whole process is in the note.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import psutil
import torch

from chorus.benchmarks.bench import Bench
from chorus.benchmarks.report import Row, at_most
from chorus.benchmarks.scripted import ScriptedRun, scripted_run
from chorus.learner.loop import Learner
from chorus.learner.parts import Parts, Saving, assemble
from chorus.learner.rollouts.collector import Collector
from chorus.learner.training.batch import TrainingSequence, one_ahead, planned
from chorus.learner.training.distributed import Snapshot
from chorus.learner.training.supervised import SupervisedStats
from chorus.learner.training.token_stats import AGES, StepStats
from chorus.learner.weight_sync.broadcaster import Broadcaster
from chorus.problems.rendering import load_tokenizer
from chorus.protocol.config.run import RunConfig
from chorus.protocol.config.settings import StepSettings
from chorus.protocol.messages import Version
from chorus.protocol.run_folder.checkpoints import Manifest
from chorus.protocol.weights import describe, new_buckets, plan_buckets
from chorus.starter.resolve import build

GOAL = at_most(0.3)
LINEAR = at_most(1.25)  # seconds a token of the large step, over those of the small one
_TOKENS_PER_S = 1e6  # of training: more than a small model does on a node of eight GPUs
_ANSWERS = 256  # different ones
_WARM_UP = 2
_DEADLINE_S = 300.0


def measure(bench: Bench) -> Iterator[Row]:
    model = build("smollm2", bench.cache, bench.config().templates.names)
    small, large = ((16, 2, 100), (32, 4, 100)) if bench.quick else ((128, 8, 3000), (512, 16, 4000))
    seconds, note = _between_steps(bench, model, *small)
    yield Row("host: between steps", "s", seconds, goal=GOAL, note=note)
    more = np.prod(large) / np.prod(small)
    longer, note = _between_steps(bench, model, *large)
    as_many = [float(second * more) for second in seconds]
    yield Row(f"host: between steps, {more:.1f} times the tokens", "s", longer, as_many, LINEAR, note)


def _between_steps(bench: Bench, model: Path, groups: int, size: int, tokens: int) -> tuple[list[float], str]:
    """(seconds of each step, what they went into)."""
    config = bench.config(
        f"model.path={model}",
        f"model.context={tokens + 256}",
        "problems.max_prompt_tokens=256",
        f"sampling.group_size={size}",
        f"sampling.max_tokens={tokens}",
        f"learner.groups_per_step={groups}",
        "learner.token_budget=32768",
        "learner.checkpoint_every=1000000",
        "run.steps=1000000",
        "doctor.steps=0",  # of a run's first steps alone
    )
    name = f"host-{groups}x{size}x{tokens}"
    with scripted_run(bench, name, config, 1, reasoning(model, _ANSWERS, tokens), delay_s=0.0) as scripted:
        clock = _Clock()
        parts = _assemble(scripted, clock)
        learner = Learner(parts)
        try:
            learner.life.begin()
            seconds = [_one_step(learner, clock, bench, name) for _ in range(_WARM_UP + bench.repeats)]
        finally:
            learner.life.close()
    where = ", ".join(
        f"{part} {spent / len(seconds):.2f}" for part, spent in sorted(clock.parts.items(), key=lambda part: -part[1])
    )
    note = f"{groups} x {size} x {tokens}; {where}; {clock.cpu_s / len(seconds):.1f} s of processor time a step"
    return seconds[_WARM_UP:], note


def _one_step(learner: Learner, clock: _Clock, bench: Bench, name: str) -> float:
    worked, started = psutil.Process().cpu_times(), time.monotonic()
    clock.left_out = 0.0
    learner.step()
    seconds = time.monotonic() - started - clock.left_out
    after, parts = psutil.Process().cpu_times(), learner.parts
    clock.cpu_s += after.user + after.system - worked.user - worked.system
    bench.say(f"{name}: {seconds:.3f} s between steps")
    for step, ids in parts.untold.items():  # a checkpoint's part in it: what is trained leaves the ledger
        parts.ledger.durable(step, ids)
    parts.untold.clear()
    parts.ledger.trim()
    return seconds


class _Clock:
    """left_out: of the running step, seconds that are the ranks'. parts: all seconds so far, by what the loop did."""

    def __init__(self) -> None:
        self.left_out = self.cpu_s = 0.0
        self.parts: defaultdict[str, float] = defaultdict(float)

    def timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*arguments: Any, **more: Any) -> Any:
            started, before = time.monotonic(), self.left_out
            try:
                return call(*arguments, **more)
            finally:
                self.parts[part] += time.monotonic() - started - (self.left_out - before)

        return measured


def _assemble(scripted: ScriptedRun, clock: _Clock) -> Parts:
    config, run = scripted.config, scripted.run
    ranks = _Ranks(config, clock)
    sync = partial(Broadcaster, config, scripted.client, scripted.id, "gloo", torch.device("cpu"))
    parts = assemble(config, run, scripted.id, scripted.client, ranks, sync)
    ranks.answered = partial(_answered, parts, scripted.check)
    for part, owner, name in (
        ("collect", parts.groups, "next_step"),
        ("admit", parts.groups, "admit"),
        ("cut", ranks, "step"),
        ("record", parts.recorder, "record"),
        ("ledger", parts.ledger, "record"),
        ("ledger", parts.ledger, "trained"),
        ("publish", parts.weights, "publish"),
    ):
        setattr(owner, name, clock.timed(part, getattr(owner, name)))
    return parts


def _answered(parts: Parts, check: Callable[[], None]) -> bool:
    """Whether the next step's groups are all there."""
    check()
    assert isinstance(parts.groups, Collector)
    there = parts.groups.waiting + len(parts.groups.ahead) + parts.ledger.accounts().unread
    return there >= parts.config.learner.groups_per_step


class _Ranks:
    """A model that is trained by waiting; its weights are four kilobytes."""

    manifest: Manifest | None = None

    def __init__(self, config: RunConfig, clock: _Clock) -> None:
        self._budget = config.learner.token_budget
        self._clock = clock
        self._weights = torch.zeros(1024)
        self.answered: Callable[[], bool] = lambda: True

    def step(self, minibatches: list[list[TrainingSequence]], settings: StepSettings | None = None) -> StepStats:
        sequences = [s for batch in minibatches for s in batch]
        plans = [planned(batch, self._budget) for batch in minibatches]
        started = time.monotonic()
        for batch, plan in zip(minibatches, plans, strict=True):  # as a trainer's, filled while it trains
            for _ in one_ahead(batch, plan, torch.device("cpu")):
                pass
        stats = _stats(sequences)
        end = started + sum(s.length for s in sequences) / _TOKENS_PER_S
        while time.monotonic() < end or not self.answered():
            if time.monotonic() > started + _DEADLINE_S:
                raise TimeoutError(f"the next step's groups are not there after {_DEADLINE_S:g} s")
            time.sleep(0.05)
        self._clock.left_out += time.monotonic() - started
        return stats

    def snapshot(self, version: Version, prefixes: list[list[int]]) -> Snapshot:
        plan = plan_buckets(describe([("w", self._weights)], "float32"), 4096)
        return Snapshot(version, plan, new_buckets(plan), [])

    def reference(self, sequences: list[TrainingSequence]) -> list[np.ndarray]:
        raise NotImplementedError

    def reset_reference(self, reset_optimizer: bool) -> None:
        raise NotImplementedError

    def supervise(self, batch: Any) -> SupervisedStats:
        raise NotImplementedError

    def save(self, folder: Path, manifest: Manifest) -> Saving:
        raise NotImplementedError

    def load(self, path: Path) -> None:
        raise NotImplementedError


def _stats(sequences: list[TrainingSequence]) -> StepStats:
    """Figures of plausible sizes; what they are changes no time."""
    stats = StepStats(sequences=len(sequences), loss=0.1, lr=1e-6, grad_norms=[0.5])
    lengths = np.array([len(s.completion) for s in sequences], float)
    for sums, tokens in ((stats.by_sequence, lengths), (stats.by_age, np.array([lengths.sum(), *[0.0] * (AGES - 1)]))):
        sums.table[:] = tokens[:, None] * np.linspace(0.1, 1.0, sums.table.shape[1])
        sums.table[:, 0] = tokens
        sums.w_low[:], sums.w_high[:] = 0.9, 1.1
    return stats


_OPENINGS = ("First", "Now", "So", "Then", "Next", "Wait, let me check this", "Therefore", "Alternatively", "Note that")
_SENTENCES = (
    "the total of {a} and {b} is {c}.",
    "we have {a}x + {b} = {c}, so x = \\frac{{{c} - {b}}}{{{a}}}.",
    "dividing both sides by {a} gives $y = {b}$; that is less than {c}.",
    "she had {a} apples, gave {b} away and bought {c} more.",
    "if n = {a}, the sum of the first n terms is \\frac{{n(n+1)}}{{2}} = {b}, not {c}?",
    "this is because {a} \\cdot {b} = {c}, which we found above.",
    "the remainder of {c} divided by {a} is {b}.\n",
    "let me write the numbers again:\n{a}, {b}, {c}\n",
)


def reasoning(model: Path, answers: int, tokens: int) -> np.ndarray:
    """[answers, tokens] int32: long answers as reasoning models write them, in the model's tokens."""
    tokenizer, random = load_tokenizer(str(model)), Random(0)
    pieces: list[list[int]] = []
    for _ in range(2000):
        a, b, c = (random.randrange(1000) for _ in range(3))
        text = f"{random.choice(_OPENINGS)}, {random.choice(_SENTENCES).format(a=a, b=b, c=c)} "
        pieces.append(tokenizer.encode(text, add_special_tokens=False))
    rows = np.zeros((answers, tokens), np.int32)
    for row in rows:
        ids: list[int] = []
        while len(ids) < tokens:
            ids += random.choice(pieces)
        row[:] = ids[:tokens]
    return rows
