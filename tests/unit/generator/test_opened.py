"""What a prompt has written of a template's contract counts as the completion's, when it is graded and graded again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from rollouts import ready, sample

from chorus.generator.engine import Completion
from chorus.generator.rollout import produce
from chorus.protocol.messages import Grade, MessageError, Task
from chorus.protocol.metrics.processes import GeneratorMetrics
from chorus.protocol.templates.load import choose_templates
from chorus.protocol.templates.score import format_score
from chorus.protocol.templates.template import opening


class Says:
    """Engine, grader and decoder in one."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.graded: list[str] = []

    async def generate(self, *asked: object) -> list[Completion]:
        return [Completion([1, 2], [-0.5, -0.5], [(1, 0, 2)], "stop")]

    async def grade(self, task: Task, texts: list[str]) -> list[Grade]:
        self.graded += texts
        return [Grade(verdict="correct", accuracy=1.0, format=1.0)]

    def decode_batch(self, ids: list[list[int]]) -> list[str]:
        return [self.text for _ in ids]


def task(opened: str) -> Task:
    return ready([sample()]).group.task.model_copy(update={"opened": opened})


@pytest.mark.parametrize("opened", ["", "<think>\n"])
def test_a_generator_has_the_marker_graded_with_what_follows_it(opened: str) -> None:
    says: Any = Says("so 7\n</think>\n")
    group = asyncio.run(produce(task(opened), says, says, says, "g", 1, GeneratorMetrics(), lambda n: None))
    assert says.graded == [f"{opened}so 7\n</think>\n"]
    assert Task.decode(group.task.encode()).opened == opened


def test_with_it_a_completion_that_goes_on_in_the_reasoning_keeps_the_whole_contract() -> None:
    [template] = choose_templates(["deepseek-r1"]).values()
    rest = "so 7</think> <answer>\\boxed{7}</answer>"
    assert opening(template) == "<think>"
    assert format_score(template, rest) == 0.75
    assert format_score(template, opening(template) + rest) == 1.0
    assert format_score(template, opening(template) + rest + "<answer>") == 0.75, "the answer's tags once each"


def test_a_task_without_one_is_written_as_before() -> None:
    assert b"opened" not in task("").encode()
    assert b"opened" in task("<think>").encode()
    with pytest.raises(MessageError):
        Task.decode(b"")
