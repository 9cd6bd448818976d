"""The vLLM of an evaluation dies and is started again, three times at most; nothing else is asked twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from scripted import ScriptedEngine

from chorus.cli.evaluate.engine import RestartingEngine
from chorus.generator.engine import Completion, EngineError, EngineGone
from chorus.protocol.runtime.exits import CannotGoOn


class Mortal(ScriptedEngine):
    """Dies under its questions in each of its first `lives` starts, or refuses them all."""

    def __init__(self, lives: int, error: type[EngineError] = EngineGone) -> None:
        super().__init__()
        self.lives = lives
        self.error = error

    async def start(self) -> None:
        await asyncio.sleep(0)
        await super().start()

    async def generate(
        self, prompt: list[int], n: int, temperature: float, max_tokens: int, deadline_s: float, top_p: float = 1.0
    ) -> list[Completion]:
        start = self.starts
        self.asked.append((n, temperature, max_tokens, top_p))
        await asyncio.sleep(0)
        if start <= self.lives:
            raise self.error("scripted engine is dead")
        return [Completion(prompt, [-0.5] * len(prompt), [], "stop")] * n


async def restarting(engine: Mortal) -> RestartingEngine:
    await engine.start()
    return RestartingEngine(engine, Path("evals/vllm.log"))


async def test_a_question_outlives_three_deaths_and_is_asked_as_before() -> None:
    engine = Mortal(lives=3)
    (answer, _) = await (await restarting(engine)).generate([7], 2, 0.7, 8, 5.0, 0.95)
    assert answer.token_ids == [7]
    assert engine.starts == 4
    assert engine.asked == [(2, 0.7, 8, 0.95)] * 4


async def test_the_fourth_death_ends_the_evaluation_and_names_the_log() -> None:
    engine = Mortal(lives=4)
    with pytest.raises(CannotGoOn, match=r"vLLM died 4 times \(log: evals/vllm\.log\)"):
        await (await restarting(engine)).generate([7], 1, 0.0, 8, 5.0)
    assert engine.starts == 4


async def test_questions_that_die_together_bring_about_one_start() -> None:
    engine = Mortal(lives=1)
    asking = await restarting(engine)
    answers = await asyncio.gather(*(asking.generate([k], 1, 0.0, 8, 5.0) for k in range(5)))
    assert [answer.token_ids for (answer,) in answers] == [[k] for k in range(5)]
    assert engine.starts == 2


async def test_a_question_that_a_living_engine_refuses_is_not_asked_again() -> None:
    engine = Mortal(lives=9, error=EngineError)
    with pytest.raises(EngineError, match="scripted engine is dead"):
        await (await restarting(engine)).generate([7], 1, 0.0, 8, 5.0)
    assert (engine.starts, len(engine.asked)) == (1, 1)
