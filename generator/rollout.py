"""One group's way through a generator: sample, grade, wait for the weight check, commit.

leased ─▶ sampled ─▶ graded ─▶ verified ─▶ committed
   │         │          │          └─ the weight check failed: given back, somebody else samples it anew
   │         │          └─ the verifier can't be reached: grades without accuracy, masked in the loss
   └─────────┴─ engine gone: given back, the try not counted; engine refused or deadline over: counted
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from chorus.generator.engine import Completion, Engine
from chorus.generator.reward_client import Grader
from chorus.protocol.messages import Grade, RolloutGroup, Sample, Task, Timing, pack_floats, pack_ids, unpack_ids
from chorus.protocol.metrics.processes import GeneratorMetrics


class Decoder(Protocol):
    """Token ids as text, as protocol/model_folder.py has it."""

    def decode_batch(self, sequences: list[list[int]]) -> list[str]: ...


async def produce(
    task: Task,
    engine: Engine,
    grader: Grader,
    decoder: Decoder,
    generator_id: str,
    attempt: int,
    metrics: GeneratorMetrics,
    on_tokens: Callable[[int], None],
) -> RolloutGroup:
    """Sample and grade one group. Raises EngineError, GradeRefused, TimeoutError, or ValueError for an engine's
    answer that is no group."""
    started = time.time()
    async with asyncio.timeout(task.deadline_s):
        with metrics.waits.on("samples", "vLLM", task.deadline_s, f"group {task.index}"):
            completions = await engine.generate(
                unpack_ids(task.prompt_ids).tolist(),
                task.group_size,
                task.sampling.temperature,
                task.sampling.max_tokens,
                task.deadline_s,
                task.sampling.top_p,
                task.sampling.stop,
            )
        generated = time.time()
        on_tokens(sum(len(c.token_ids) for c in completions))
        metrics.sampled((len(c.token_ids), c.finish_reason) for c in completions)
        texts = [task.opened + text for text in decoder.decode_batch([c.token_ids for c in completions])]
        left_s = task.deadline_s - (generated - started)
        with metrics.waits.on("grades", "reward server", left_s, f"group {task.index}"):
            grades = await grader.grade(task, texts)
    graded = time.time()
    metrics.generate_s.observe(generated - started)
    metrics.grade_s.observe(graded - generated)
    metrics.ungraded.inc(sum(g.accuracy is None for g in grades))
    return RolloutGroup(
        task=task,
        generator_id=generator_id,
        attempt=attempt,
        samples=[_sample(c, g) for c, g in zip(completions, grades, strict=True)],
        timing=Timing(started=started, generated=generated, graded=graded),
    )


def _sample(completion: Completion, grade: Grade) -> Sample:
    return Sample(
        token_ids=pack_ids(completion.token_ids),
        logprobs=pack_floats(completion.logprobs),
        versions=completion.versions,
        finish_reason=completion.finish_reason,
        grade=grade,
    )


def versions_of(group: RolloutGroup) -> set[tuple[int, int]]:
    """All (fence, step) under which some token of the group was sampled."""
    return {(fence, step) for sample in group.samples for fence, step, _ in sample.versions}
