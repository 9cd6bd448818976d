"""Rollouts on their way to the disk, beside the step: a thread of its own encodes and writes.

    chosen(step) ─▶ part without the learner's columns        on the disk before the step trains, or soon after
    trained(step) ─▶ the same part with them
    flush ─▶ all of it is on the disk                         before a checkpoint says that it holds the step
    durable(step) ─▶ small parts are merged

A write that failed is raised by the next call. At most `_WAITING` writes are kept in memory: a disk that is slower than
the steps slows them down.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooSlow
from dataclasses import replace
from functools import partial
from typing import Any

from chorus.learner.objectives.objective import TOKEN_STATS
from chorus.learner.rollouts.admission import Admission
from chorus.learner.training.experience import Experience
from chorus.learner.training.token_stats import StepStats
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Rollout
from chorus.protocol.rewards import Gates, RewardSpec, compose_group
from chorus.protocol.run_folder import rollouts
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.rollout_rows import Reading, rows_of
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.templates.decoding import CompletionDecoder

_WAITING = 8
_DEADLINE_S = 300.0  # for the disk; a step of a large run is some hundred megabytes
_MEANS = {"entropy": "entropy", "learner_logprob": "logprob", "ratio": "ratio", "mismatch_k1": "mismatch_k1"}


def reading_of(config: RunConfig, admission: Admission) -> Reading:
    """How this run's rows are put into words."""
    tokenizer, known = admission.tokenizer.backend_tokenizer, admission.by_id
    decoder = CompletionDecoder(tokenizer, admission.templates.values())
    return Reading(
        prompts=lambda batch: tokenizer.decode_batch(batch, skip_special_tokens=False),
        completions=decoder.decode_batch,
        compose=partial(compose_group, config.reward_spec),
        level=lambda id: known[id].level if id in known else None,
        domain=lambda id: known[id].domain if id in known else None,
    )


class RolloutWriter:
    """Calls return at once, but for `flush`."""

    def __init__(self, run: RunFolder, reading: Reading, spec: RewardSpec) -> None:
        self._run = run
        self._reading = reading
        self._spec = spec
        self._thread = ThreadPoolExecutor(1, "rollouts")
        self._waiting: deque[Future[None]] = deque()
        self._newest: tuple[int, Any] = (0, None)  # (step, its table); of the thread alone

    def chosen(self, step: int, groups: list[Rollout], version: int, gates: Gates) -> None:
        """A step has its groups, and is about to train weights of this `version` on them. gates: of its reward."""
        self._submit(self._write_chosen, step, groups, version, gates, time.time())

    def trained(self, step: int, experience: Experience, stats: StepStats) -> None:
        self._submit(self._write_trained, step, learned(experience, stats))

    def durable(self, step: int) -> None:
        """A checkpoint holds all steps up to this one."""
        self._submit(rollouts.merge, self._run, step)

    def flush(self) -> None:
        """Return when all is on the disk. Raises what a write has raised, and CannotGoOn where one takes too long."""
        while self._waiting:
            self._take()

    def close(self) -> None:
        self._thread.shutdown(wait=True)

    def _submit(self, work: Callable[..., None], *arguments: Any) -> None:
        while self._waiting and (self._waiting[0].done() or len(self._waiting) >= _WAITING):
            self._take()
        self._waiting.append(self._thread.submit(work, *arguments))

    def _take(self) -> None:
        try:
            self._waiting.popleft().result(_DEADLINE_S)
        except TooSlow:
            raise CannotGoOn(
                f"{self._run.rollouts}: a write of rollouts was not done after {_DEADLINE_S:g} s; does its disk answer?"
            ) from None

    def _write_chosen(self, step: int, groups: list[Rollout], version: int, gates: Gates, at: float) -> None:
        reading = replace(self._reading, compose=partial(compose_group, self._spec, gates=gates))
        table = rollouts.table_of(rows_of(step, groups, reading, at, version))
        rollouts.write_table(self._run, step, table)
        self._newest = (step, table)

    def _write_trained(self, step: int, columns: dict[str, list[Any]]) -> None:
        newest, table = self._newest
        if newest == step:
            rollouts.write_table(self._run, step, rollouts.with_columns(table, columns))


def learned(experience: Experience, stats: StepStats) -> dict[str, list[Any]]:
    """What a step computed of each of its samples; means are over the tokens that were trained."""
    tokens = stats.by_sequence.table[:, 0]
    columns: dict[str, list[Any]] = {
        "advantage": [float(a) for a in experience.advantages],
        "trained_tokens": [int(n) for n in tokens],
    }
    for name, stat in _MEANS.items():
        sums = stats.by_sequence.table[:, 1 + TOKEN_STATS.index(stat)]
        columns[name] = [float(total / n) if n else None for total, n in zip(sums, tokens, strict=True)]
    for name, stat in (("token_entropies", "entropy"), ("token_ratios", "ratio")):
        if (values := stats.by_token(stat)) is not None:
            columns[name] = [each.tobytes() for each in values]
    return columns
