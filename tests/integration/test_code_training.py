"""A stage of mathematics, then one of programs: admitted, sampled, run in the sandbox by the reward server's own
graders, trained. Only the sampling is scripted: half of the answers are right, half are not."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from chorus.cli.evaluate.grading import Grading, local_grading
from chorus.generator.engine import Completion
from chorus.generator.rollout import produce
from chorus.learner.rollouts.admission import Admission
from chorus.learner.training.batch import cut
from chorus.learner.training.distributed import DistributedTrainer
from chorus.learner.training.experience import make_experience, minibatches
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Entry, Rollout
from chorus.protocol.messages import Grade, Task
from chorus.protocol.metrics.processes import GeneratorMetrics
from chorus.protocol.templates.decoding import CompletionDecoder
from chorus.reward_server.sandbox.sandbox import find_mechanism

MECHANISM, WHY_NOT = find_mechanism()
STAGES = [{"name": "math", "domains": {"arithmetic": 1}, "steps": 2}]
STAGES += [{"name": "code", "domains": {"code": 1}, "temperature": 0.6, "lr": 0.002}]


def config(model: Path) -> RunConfig:
    return RunConfig.model_validate(
        {
            "model": {"path": str(model), "dtype": "float32", "context": 300},
            "problems": {
                "train": ["arithmetic:chain?max=2", "arithmetic:program?max=2"],
                "heldout": ["any"],
                "max_prompt_tokens": 200,
            },
            "templates": {"names": ["qwen-math"]},
            "curriculum": {"stages": STAGES},
            "sampling": {"group_size": 4, "max_tokens": 100},
            "staleness": {"target": 0, "max": 0},
            "objective": {"name": "grpo", "aggregation": "token-mean", "kl_coefficient": 0.0},
            "learner": {"groups_per_step": 1, "lr": 0.001},
            "reward": {"compose": "accuracy_only"},
        }
    )


def answers(problem: str) -> list[str]:
    """Two that are right and two that are not."""
    numbers = [int(number) for number in re.findall(r"\d+", problem)]
    if problem.startswith("What"):
        a, b, c = numbers
        return [f"\\boxed{{{a + b - c + wrong}}}" for wrong in (0, 0, 1, 1)]
    a, b = numbers
    return [f"```python\nprint(int(input()) + {a + wrong} - {b})\n```" for wrong in (0, 0, 1, 1)]


class Scripted:
    """The policy's log-probabilities of answers that somebody else has written; grades from the reward server."""

    def __init__(self, admission: Admission, ranks: DistributedTrainer, grading: Grading) -> None:
        self.admission, self.ranks, self.grading = admission, ranks, grading
        self.version = count()
        self.texts: list[str] = []

    async def generate(self, prompt: list[int], n: int, temperature: float, *further: object) -> list[Completion]:
        step = next(self.version)
        rows = [self.admission.tokenizer.encode(text, add_special_tokens=False) for text in self.texts]
        return [Completion(row, self.logp(prompt, row, temperature), [(1, step, len(row))], "stop") for row in rows]

    def logp(self, prompt: list[int], row: list[int], temperature: float) -> list[float]:
        with torch.no_grad():
            logits = self.ranks.trainer.policy.hf(torch.tensor([prompt + row])).logits[0, len(prompt) - 1 : -1]
        return torch.log_softmax(logits / temperature, -1).gather(-1, torch.tensor(row)[:, None])[:, 0].tolist()

    async def grade(self, task: Task, texts: Sequence[str]) -> list[Grade]:
        results = await self.grading.grade([{"completion": text} | task.grading() for text in texts])
        return [Grade.model_validate(result) for result in results]


async def train(model: Path, steps: int) -> list[dict[str, Any]]:
    settled = config(model)
    admission = Admission(settled, "run")
    ranks = DistributedTrainer(settled, torch.device("cpu"), None)
    decoder = CompletionDecoder(admission.tokenizer.backend_tokenizer, admission.templates.values())
    seen: list[dict[str, Any]] = []
    async with local_grading() as grading:
        scripted: Any = Scripted(admission, ranks, grading)
        for step in range(1, steps + 1):
            task = admission.task(step - 1, step - 1)
            scripted.texts = answers(admission.by_id[task.problem_id].problem)
            arguments = (scripted, scripted, decoder, "g", 1, GeneratorMetrics(), lambda tokens: None)
            rollout = Rollout(Entry(f"{step}-0", step - 1, b""), await produce(task, *arguments))
            made = make_experience([rollout], settled, step - 1)
            stats = ranks.step(minibatches(made, 1), admission.stages.settings([step - 1]))
            [batch] = cut(made.sequences, 4096)
            with torch.no_grad():
                after, _ = ranks.trainer.policy(
                    batch.input_ids, batch.index, batch.target, temperature=batch.temperature
                )
            rises = (after - batch.behaviour).split(batch.lengths.tolist())
            by_sample = {k: float(rise.sum()) for (k, _), rise in zip(batch.origin, rises, strict=True)}
            seen.append({"task": task, "grades": [s.grade for s in rollout.group.samples], "lr": stats.lr})
            seen[-1]["rises"] = [by_sample[k] for k in range(4)]
            admission.stages.advance(step, step)
    return seen


@pytest.mark.skipif(MECHANISM is None, reason=f"no sandbox on this machine: {WHY_NOT}")
def test_programs_that_pass_their_tests_become_likelier_after_a_stage_of_mathematics(tiny_model: Path) -> None:
    seen = asyncio.run(train(tiny_model, 4))
    assert [(s["task"].kind, s["task"].sampling.temperature, s["lr"]) for s in seen] == [
        ("math", 1.0, 0.001),
        ("math", 1.0, 0.001),
        ("code", 0.6, 0.002),
        ("code", 0.6, 0.002),
    ]
    for one in seen:
        assert [g.accuracy for g in one["grades"]] == [1.0, 1.0, 0.0, 0.0]
        right, wrong = sum(one["rises"][:2]), sum(one["rises"][2:])
        assert right > wrong
    assert {g.reason for s in seen[2:] for g in s["grades"][2:]} == {"test 1 of 3: another output"}
