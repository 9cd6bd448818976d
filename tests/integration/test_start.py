"""`chorus.start`: a run from Python, its steps as they come, and nothing left of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from freeport import free_port
from scripted_run import RECIPE

import chorus
from chorus.deploy import api
from chorus.deploy.api import Run, RunFailed
from chorus.protocol.config.load import ConfigError
from chorus.protocol.runtime.exits import CannotGoOn

SUPPORT = Path(__file__).parents[1] / "support"
SCRIPTED = (sys.executable, str(SUPPORT / "scripted_start.py"))


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "my.toml"
    path.write_text(RECIPE.format(runs=tmp_path / "runs", steps=1000, model=tiny_model, replicas=1))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return path


def of_the_run(folder: Path) -> list[int]:
    """Processes that have the run's folder on their command line, which all of them have, or in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in " ".join(process.cmdline()) and process.pid != os.getpid():
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def eventually_gone(folder: Path, deadline_s: float = 30.0) -> None:
    end = time.monotonic() + deadline_s
    while left := of_the_run(folder):
        assert time.monotonic() < end, left
        time.sleep(0.05)


def page_example() -> str:
    """The last example of docs/python.md."""
    page = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
    return page.rpartition("```python\n")[2].partition("```")[0]


@pytest.mark.slow
def test_the_steps_of_the_page_s_run_come_one_by_one_and_nothing_is_left(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "_COMMAND", (*SCRIPTED, "engines"))
    monkeypatch.setenv("CHORUS_LEARNER__LR", "0.002")  # read once, with the recipe
    printed: list[tuple] = []

    def see(*words: object) -> None:
        if not printed:
            assert space["run"].running
            assert of_the_run(space["run"].folder)
        printed.append(words)

    space: dict = {"print": see}
    exec(page_example(), space)
    run: Run = space["run"]
    records = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 3]
    assert printed[:3] == [(record["step"], record["reward"], record["accuracy"]) for record in records]
    assert printed[3:] == [(run.folder, json.loads((run.folder / "summary.json").read_text()))]
    assert list(run) == records
    assert not run.running
    assert re.fullmatch(r"my-\d{8}-\d{6}", run.folder.name)
    assert json.loads((run.folder / "config.json").read_text())["learner"]["lr"] == 0.002
    assert "step 3/3" in (run.folder / "logs" / "run.log").read_text()
    eventually_gone(run.folder)


def test_a_run_that_fails_raises_its_own_words_and_one_that_is_stopped_does_not(recipe: Path) -> None:
    config = chorus.load_config(recipe, [f"redis.url=redis://127.0.0.1:{free_port()}/0"])
    stopped, failing = chorus.start(config), chorus.start(config)
    assert stopped.folder != failing.folder
    stopped.stop()
    assert (list(stopped), stopped.wait(1), stopped.running) == ([], {}, False)
    with pytest.raises(RunFailed, match=r"^redis\.url redis://127\.0\.0\.1:.* \(log: .*run\.log\)$"):
        list(failing)
    with pytest.raises(RunFailed):
        failing.wait(10)
    eventually_gone(recipe.parent / "runs")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({}, CannotGoOn, "give a recipe or a RunConfig, or resume="),
        ({"config": "nowhere.toml"}, ConfigError, r"nowhere\.toml: can't be read"),
        ({"config": "my.toml", "overrides": ["learner.l=1"]}, ConfigError, r"learner\.l is not a known key"),
        ({"config": "my.toml", "overrides": ["model.path=no/such/model/here"]}, CannotGoOn, "no such folder"),
        ({"resume": "nowhere"}, CannotGoOn, r"there is no config\.json in it"),
        ({"config": "my.toml", "asked": "take-over"}, CannotGoOn, r"with resume="),
        ({"resume": "nowhere", "asked": "anything"}, CannotGoOn, r'it may be "take-over" or "new-lineage"'),
    ],
)
def test_what_is_wrong_with_a_recipe_is_said_at_once_and_no_folder_is_made(
    recipe: Path, arguments: dict, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        chorus.start(**arguments)
    assert not (recipe.parent / "runs").exists()


# The forked child lives on when its parent is killed, and has inherited all that the parent had open.
SCRIPT = """
import os, sys, time
import chorus
from chorus.deploy import api
api._COMMAND = tuple(sys.argv[1:])
run = chorus.start("my.toml")
if os.fork() == 0:
    os.close(1)
    time.sleep(120)
    os._exit(0)
print(run.folder, flush=True)
time.sleep(120)
"""


def await_sleepers(folder: Path, deadline_s: float = 60.0) -> None:
    end = time.monotonic() + deadline_s
    while not any("sleep 600" in " ".join(psutil.Process(pid).cmdline()) for pid in of_the_run(folder)):
        assert time.monotonic() < end, (folder / "logs" / "run.log").read_text()
        time.sleep(0.1)


def test_a_killed_interpreter_takes_its_run_along_even_when_a_forked_child_lives_on(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = subprocess.Popen([sys.executable, "-c", SCRIPT, *SCRIPTED, "sleepers"], stdout=subprocess.PIPE, text=True)
    children: list[psutil.Process] = []
    try:
        assert script.stdout is not None
        folder = Path(script.stdout.readline().strip())
        await_sleepers(folder)
        children = [c for c in psutil.Process(script.pid).children() if "guard.py" not in " ".join(c.cmdline())]
        assert len(children) == 1
        os.kill(script.pid, signal.SIGKILL)
        script.wait(10)
        eventually_gone(folder)
        assert children[0].is_running()
    finally:
        script.kill()
        for child in children:
            child.kill()
    # Cut short as it was, it can go on, and be stopped.
    monkeypatch.setattr(api, "_COMMAND", (*SCRIPTED, "sleepers"))
    run = chorus.start(resume=folder)
    assert run.folder == folder
    await_sleepers(folder)
    run.stop()
    assert (of_the_run(folder), list(run), run.wait()) == ([], [], {})
    # A copy of it asks which it shall be.
    copy = shutil.copytree(folder, folder.with_name("copy"))
    with pytest.raises(RunFailed, match="--new-lineage to make a run of its own"):
        chorus.start(resume=copy).wait(30)
    with chorus.start(resume=copy, asked="new-lineage") as run:
        await_sleepers(run.folder)
