"""Users' own graders behind /v1: as a kind, as terms, as the second opinion; and what a bad one costs."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from chorus.cli.evaluate.grading import Grading, local_grading
from chorus.protocol.graders import MAX_ROW_BYTES, GraderSpec
from chorus.protocol.rewards import RewardSpec, Term
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.reward_server.api.settings import Settings
from chorus.reward_server.main import main

MINE = """
import os, time
from chorus.protocol.graders import Result

def short(completion, row):
    return Result(min(1.0, row["limit"] / len(completion)), {"characters": len(completion)})

def trouble(completion, row):
    if "hang" in completion:
        time.sleep(60)
    if "crash" in completion:
        os._exit(7)
    if "nan" in completion:
        return float("nan")
    return -1.0
"""
SPECS = (
    GraderSpec(name="short", function="my_graders.py:short", columns=("limit",)),
    GraderSpec(name="trouble", function="my_graders.py:trouble"),
)
SPEC = RewardSpec(terms=(Term(grader="short", weight=0.5), Term(grader="trouble", weight=0.25)))
RIGHT = {"completion": "\\boxed{7}", "gold": "7", "row": {"limit": 9}}
LIMIT_S = 2.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    (folder / "my_graders.py").write_text(MINE)
    return folder


@pytest.fixture
async def grading(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Grading]:
    monkeypatch.chdir(folder)
    settings = Settings(graders=SPECS, reward=SPEC, timeout_s=LIMIT_S, shadow="math-verify", shadow_share=1.0)
    async with local_grading(settings=settings) as grading:
        yield grading


async def refused(grading: Grading, item: dict[str, Any]) -> str:
    [grade, _] = await grading.grade([item, RIGHT])
    assert (grade["verdict"], grade["refused"], grade["accuracy"]) == ("error", True, None)
    return grade["reason"]


async def test_own_graders_from_request_to_reward(grading: Grading) -> None:
    """One start of the processes for all of it: they take seconds."""
    [grade] = await grading.grade([RIGHT])
    assert (grade["verdict"], grade["accuracy"]) == ("correct", 1.0)
    assert grade["scores"] == {"short": 1.0, "short.characters": 9.0, "trouble": -1.0}
    assert grade["reward"] == 1.0 + 0.5 * 1.0 + 0.25 * -1.0
    assert grade["shadow"] == {"grader": "math-verify", "verdict": "correct", "accuracy": 1.0, "reason": None}

    # A request picks among them; one that is only asked pays nothing where it is no term of this server.
    [plain, one] = await grading.grade([RIGHT | {"terms": []}, RIGHT | {"terms": ["short"]}])
    assert "scores" not in plain
    assert list(one["scores"]) == ["short", "short.characters"]

    # As a kind it decides, and needs no gold.
    kind = {"completion": "eighteen characters", "kind": "short", "row": {"limit": 9.5}, "terms": []}
    [grade] = await grading.grade([kind])
    assert (grade["verdict"], grade["accuracy"]) == ("wrong", 0.5)
    assert grade["scores"] == {"short": 0.5, "short.characters": 19.0}
    assert "shadow" not in grade  # nothing to compare
    explained = await grading.explain(kind)
    assert explained["comparisons"][0]["reason"] == "scores 0.5; characters 19"
    assert (await grading.explain(RIGHT))["parts"] == {
        "total": 1.25, "accuracy": 1.0, "format": None, "overlong": None, "short": 0.5, "trouble": -0.25,
    }  # fmt: skip

    # Each failure has its reason, leaves the accuracy and takes the reward; the neighbours are graded.
    started = time.monotonic()
    bad = [RIGHT | {"completion": f"{word} \\boxed{{7}}"} for word in ("hang", "crash", "nan")]
    *failed, good = await grading.grade([*bad, RIGHT])
    assert time.monotonic() - started < 4 * LIMIT_S
    assert [(g["accuracy"], g["reward"], g["scores"]["trouble"]) for g in failed] == [(1.0, None, None)] * 3
    hung, crashed, nan = (g["reason"] for g in failed)
    assert hung == "trouble: no result within 2 s"
    assert crashed.startswith("trouble: the grader process died twice (")
    assert nan == "trouble: returned nan where it must be a finite number"
    assert good["reward"] == 1.25

    # What the request lacks, in its words.
    assert "no column 'limit', which the grader 'short' asks for" in await refused(grading, RIGHT | {"row": {}})
    large = {"limit": 9, "text": "x" * MAX_ROW_BYTES}
    assert "a row may have 65,536" in await refused(grading, RIGHT | {"row": large})
    with pytest.raises(CannotGoOn, match=r"this server has no grader .* \(its own: short, trouble"):
        await grading.grade([RIGHT | {"terms": ["my_graders.py:short"]}])
    with pytest.raises(CannotGoOn, match=r"kind: Input should be 'math'.*'short' or 'trouble'"):
        await grading.grade([RIGHT | {"kind": "my_graders.py:short"}])

    # The second opinion is no part of the reward, and its disagreement is counted by kind and template.
    odd = {"completion": "\\boxed{7 \\text{ or more}}", "gold": "7", "template": "qwen-math", "row": {"limit": 9}}
    [other] = await grading.grade([odd])
    text = (await grading._http.get("/metrics")).text
    disagree = other["verdict"] != other["shadow"]["verdict"]
    outcome = "disagree" if disagree else "agree"
    assert f'shadow_grades_total{{kind="math",outcome="{outcome}",template="qwen-math"}} 1.0' in text
    assert 'chorus_reward_server_grades_total{kind="trouble",verdict="timeout"} 1.0' in text

    # The playground's question.
    told = (await grading._http.get("/v1/graders")).json()
    assert told["kinds"][-2:] == ["short", "trouble"]
    assert told["graders"][0] == {"name": "short", "columns": ["limit"], "interface": "chorus", "weight": 0.5}


async def test_a_grader_that_can_not_be_loaded_ends_the_wait_for_it(folder: Path, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    settings = Settings(graders=(GraderSpec(name="gone", function="gone.py:f"),))
    with pytest.raises(CannotGoOn, match=r"reward\.graders: gone: gone\.py:f: there is no file gone\.py"):
        async with local_grading(settings=settings):
            pass


def test_the_server_refuses_at_its_start_what_it_can_not_load(tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        'model.path = "m"\nproblems.train = ["p"]\ntemplates.names = ["qwen-math"]\n'
        '[[reward.graders]]\nname = "mine"\nfunction = "mine.py:f"\n'
    )
    (tmp_path / "mine.py").write_text("def g(): ...\n")
    assert main(["--recipe", str(recipe), "--port", "0"]) == 2
    assert "reward.graders: mine: mine.py:f: there is no 'f' in it; its functions are: g" in capfd.readouterr().err
