"""docs/rewards.md does what it says: its files make a run, its verifier answers, its schema is the code's."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from freeport import free_port
from liverun import LiveRun, end_run
from samples import TASK
from scriptedlive import SUPPORT, environment

from chorus.deploy.preflight import check_inputs
from chorus.deploy.tools.verifier_schema import FILE, schema
from chorus.generator.reward_client import RewardServer
from chorus.protocol.config.load import load_config
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.rollouts import read_step, stored_steps
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.reward_server.graders.own import OwnGrader
from chorus.reward_server.graders.task import GradeTask

PAGE = Path(__file__).resolve().parents[2] / "docs" / "rewards.md"
FILES = dict(re.findall(r"```\w+\n# ([\w.]+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_reward_and_recipe_have_fifteen_lines() -> None:
    assert sum(len(FILES[name].strip().splitlines()) for name in ("my_graders.py", "my.toml")) <= 15


def test_the_pages_files_make_a_run_that_learns_from_their_reward(folder: Path, tiny_model: Path) -> None:
    argv = [sys.executable, str(SUPPORT / "scripted_run.py"), "my.toml"]
    for item in (f"model.path={tiny_model}", "run.steps=1", "reward.shadow=math-verify", "reward.shadow_share=1.0"):
        argv += ["--set", item]
    output = folder / "output.log"
    with output.open("wb") as log:
        process = subprocess.Popen(argv, cwd=folder, stdout=log, stderr=log, env=environment(0.05))
    run = LiveRun(process, folder / "runs", output)
    try:
        assert run.finish(120) == 0, run.tail()
    finally:
        end_run(run)
    [record] = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    # Each scripted answer is \boxed{n}, of 8 characters: 12 / 8 is more than 1.
    assert record["scores"] == {"short": 1.0}
    assert record["reward"] == pytest.approx(record["accuracy"] + record["format"] + 0.5)
    assert record["verifier_failures"] == 0
    assert record["shadow"]["math"]["qwen-math"] == {"samples": 16, "disagreement": 0.0}
    [(_, path)] = stored_steps(RunFolder(run.folder))
    grades = [s.grade for rollout in read_step(path) for s in rollout.group.samples]
    assert {g.shadow.grader for g in grades if g.shadow} == {"math-verify"}


def test_a_grader_that_is_not_there_is_refused_before_anything_starts(folder: Path, tiny_model: Path) -> None:
    sets = [f'model.path="{tiny_model}"']
    check_inputs(load_config(folder / "my.toml", sets))
    (folder / "my_graders.py").unlink()
    with pytest.raises(CannotGoOn, match=r"reward\.graders: short: my_graders\.py:short: there is no file my_graders"):
        check_inputs(load_config(folder / "my.toml", sets))
    check_inputs(load_config(folder / "my.toml", [*sets, "reward.url=http://elsewhere:1"]))  # its own file, there


def test_the_functions_of_the_page_return_what_it_says(folder: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    sonnet = re.search(r"```python\n(from chorus import Result.*?)```", text, re.DOTALL)
    assert sonnet is not None
    (folder / "my_graders.py").write_text(sonnet[1])
    recipe = re.search(r"```toml\n(\[\[reward\.graders\]\]\nname = \"sonnet\".*?)```", text, re.DOTALL)
    assert recipe is not None
    (folder / "my.toml").write_text(FILES["my.toml"].split("[[reward.graders]]")[0] + recipe[1])
    [spec] = load_config(folder / "my.toml").reward.graders
    assert (spec.columns, spec.workers) == (("title",), 2)
    result = OwnGrader(spec).run(GradeTask("sonnet", "Rain\nit rains", row='{"title": "Rain"}'))
    assert (result.parts, result.reason) == ({"lines": 2 / 14, "title": 1.0}, "2 lines")


def test_the_pages_verifier_grades_what_generators_send(folder: Path) -> None:
    port = free_port()
    server = subprocess.Popen([sys.executable, "verifier.py", str(port)], cwd=folder)

    async def ask() -> list[tuple[str, float | None]]:
        grader = RewardServer(f"http://127.0.0.1:{port}", 20.0)
        try:
            await grader.wait_ready(20.0)
            task = TASK.model_copy(update={"gold": ["7"]})
            return [(g.verdict, g.accuracy) for g in await grader.grade(task, ["so 7", "so 8"])]
        finally:
            await grader.close()

    try:
        assert asyncio.run(ask()) == [("correct", 1.0), ("wrong", 0.0)]
    finally:
        server.kill()
        server.wait(10)
    assert len(FILES["verifier.py"].strip().splitlines()) <= 33


def test_the_schema_is_that_of_the_code() -> None:
    assert json.loads(FILE.read_text(encoding="utf-8")) == schema(), "run python -m chorus.deploy.tools.verifier_schema"
    grade = schema()["$defs"]["Grade"]
    assert grade["required"] == ["verdict", "accuracy"]  # as the page says
