"""The vLLM of an evaluation dies and is started again, three times at most; nothing else is asked twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from scripted import ScriptedEngine

from chorus.cli.evaluate import devices
from chorus.cli.evaluate.engine import RestartingEngine, Spread
from chorus.generator.engine import Completion, EngineError, EngineGone
from chorus.protocol.run_folder.files import write_json
from chorus.protocol.run_folder.hold import held
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


async def test_several_engines_share_the_questions_and_the_idle_one_is_asked() -> None:
    asked: list[str] = []
    done = asyncio.Event()

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        async def generate(self, *_: object) -> list[Completion]:
            asked.append(self.name)
            if self.name == "slow":
                await done.wait()
            return []

    both = Spread([Named("slow"), Named("quick")])
    slow = asyncio.create_task(both.generate([7], 1, 0.0, 8, 5.0))
    await asyncio.sleep(0)
    for _ in range(3):
        await both.generate([7], 1, 0.0, 8, 5.0)
    done.set()
    await slow
    assert asked == ["slow", "quick", "quick", "quick"]


@pytest.fixture
def four_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four devices, and a run whose learner has 0 and whose generators have 1 and 2. Returns the folder of runs."""
    monkeypatch.setattr(devices, "visible_gpus", lambda: [0, 1, 2, 3])
    run = tmp_path / "runs" / "training"
    run.mkdir(parents=True)
    write_json(run / "config.json", {"placement": {"learner_gpus": [0], "generator_gpus": [[1], [2]]}})
    return run.parent


def test_an_evaluation_takes_what_no_run_in_progress_has_and_all_when_it_has_ended(four_gpus: Path) -> None:
    with held(four_gpus / "training"):
        assert devices.device_groups(None, 1, four_gpus) == [[3]]
        assert devices.device_groups("0, 3", 1, four_gpus) == [[0], [3]]  # told so
        with pytest.raises(CannotGoOn, match=r"1 of 4 GPUs are free \(taken: 0 by training, 1 by .*or name the GPUs"):
            devices.device_groups(None, 2, four_gpus)
    assert devices.device_groups(None, 1, four_gpus) == [[0], [1], [2], [3]]
    assert devices.device_groups(None, 3, four_gpus) == [[0, 1, 2]]


def test_a_device_that_is_not_there_is_refused_and_without_any_there_is_one_engine(
    four_gpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CannotGoOn, match=r"--devices 1,9: 9 is no GPU here; give some of 0, 1, 2, 3"):
        devices.device_groups("1,9", 1, four_gpus)
    monkeypatch.setattr(devices, "visible_gpus", list)
    assert devices.device_groups(None, 1, four_gpus) == [[]]
