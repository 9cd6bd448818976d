"""Grades without a server: the same as over HTTP, from wherever a person may be, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from hostile import HANGS

import chorus
from chorus.reward_server.api.app import create_app
from chorus.reward_server.api.asking import BadItemError
from chorus.reward_server.api.schemas import ExplainResponse, GradeRequest, GradeResponse
from chorus.reward_server.api.settings import Settings
from chorus.reward_server.local import LocalGrader
from chorus.reward_server.sandbox.sandbox import find_mechanism

PROGRAM = "```python\ndef add(a, b):\n    return a + b\n```"
REQUESTS: list[dict[str, Any]] = [
    {"completion": r"3 + 4 is \boxed{7}", "gold": "7"},
    {"completion": r"\boxed{8}", "gold": ["6", "7"], "mode": "strict"},
    {"completion": "no answer at all", "gold": "7"},
    {"completion": r"<think>so</think> <answer>\boxed{1/2}</answer>", "gold": "0.5", "template": "deepseek-r1"},
    {"completion": "The answer is (B).", "gold": "B", "kind": "choice", "options": ["1", "2", "3"]},
    {"completion": "The answer is Paris.", "gold": "paris", "kind": "text"},
    {
        "completion": PROGRAM,
        "kind": "code",
        "tests": [
            {"function": "add", "args": [2, 3], "expected": 5},
            {"function": "add", "args": [2, 3], "expected": 6},
        ],
        "scoring": "fractional",
    },
]


async def test_every_grade_and_explanation_is_what_the_server_answers() -> None:
    app = create_app(Settings(workers=1, spares=0))
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://x", timeout=60) as http,
    ):
        for request in REQUESTS:
            if request.get("kind") == "code" and find_mechanism()[0] is None:
                continue
            for path, ask, kind in (
                ("grade", chorus.grade, GradeResponse),
                ("explain", chorus.explain, ExplainResponse),
            ):
                answer = kind.model_validate((await http.post(f"/v1/{path}", json=request)).json())
                given = ask(**request)
                assert type(given) is kind
                times = {"ms": 0.0, "reason": None, "comparisons": []} if request.get("kind") == "code" else {"ms": 0.0}
                assert given.model_copy(update=times) == answer.model_copy(update=times)
    await asyncio.sleep(0.2)  # the loop reaps them


def test_a_grade_is_an_object_with_the_fields_of_the_interface() -> None:
    grade = chorus.grade(r"... \boxed{7}", gold="7")
    assert (grade.verdict, grade.accuracy, grade.format, grade.reward) == ("correct", 1.0, None, 1.0)
    assert (grade.extracted, grade.reason) == ("7", None)
    templated = chorus.grade(r"sum</think>\boxed{7}", gold="7", template="deepseek-r1")
    assert (templated.format, templated.reward) == (0.25, 1.25)  # one marker of four


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        ({"gold": None}, "gold: Field required"),
        ({"gold": " "}, "gold: an empty gold"),
        ({"gold": "7", "kind": "maths"}, "kind: Input should be 'math'"),
        ({"gold": "7", "template": "nobody"}, "template: unknown template 'nobody'; known are: abel"),
        ({"kind": "code"}, "tests: kind 'code' is graded by tests"),
    ],
)
def test_what_cannot_be_graded_is_a_value_error_that_names_the_field(request_: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        chorus.grade("7", **request_)


@pytest.mark.parametrize("gold", [7, 7.0, [8, 7], (7,), ["8", 7], "7"])
def test_a_number_as_gold_is_its_text(gold: Any) -> None:
    assert chorus.grade(r"\boxed{7}", gold=gold).verdict == "correct"
    assert chorus.explain(r"\boxed{9}", gold=gold).verdict == "wrong"


@pytest.mark.parametrize("gold", [[], True, b"7", {"a": "7"}, [None], [["7"]], float("nan"), object()])
def test_a_gold_that_is_no_answer_is_a_value_error_that_names_it(gold: Any) -> None:
    with pytest.raises(ValueError, match=r"^gold: .* is no answer; give a text or a number, or a list of some"):
        chorus.grade(r"\boxed{7}", gold=gold)


async def test_a_running_event_loop_is_no_hindrance() -> None:
    """As in a notebook, whose cells run on one."""
    assert asyncio.get_running_loop().is_running()
    assert chorus.grade(r"\boxed{7}", gold="7").verdict == "correct"
    assert await asyncio.to_thread(lambda: chorus.grade(r"\boxed{8}", gold="7").verdict) == "wrong"


def test_threads_ask_one_process_and_a_hostile_completion_costs_that_process_alone() -> None:
    """The kernel kills a grader with the thread that started it: that thread must be none of the user's."""
    grader = LocalGrader(Settings(workers=1, spares=0, timeout_s=0.5))
    verdicts: list[str] = []

    def ask(completion: str) -> None:
        verdicts.append(grader.ask(GradeRequest(completion=completion, gold="4"), "grade")["verdict"])

    def ask_in_a_thread(completion: str) -> None:
        thread = threading.Thread(target=ask, args=(completion,))
        thread.start()
        thread.join(60)

    ask_in_a_thread(r"\boxed{4}")
    process = grader.service.pools._ours._active[0]
    ask_in_a_thread(r"\boxed{5}")
    assert grader.service.pools._ours._active == [process]
    hostile = grader.ask(GradeRequest(completion=HANGS, gold="4"), "grade")
    assert (hostile["verdict"], hostile["accuracy"], hostile["reward"]) == ("timeout", None, None)
    assert hostile["reason"] == "no result within 0.5 s"
    ask(r"\boxed{4}")
    assert verdicts == ["correct", "wrong", "correct"]
    grader.close()


# No main guard: what started a process by importing this file again would never end.
SCRIPT = r"""
import gc, os, sys, time
import chorus
print(chorus.grade(r"\boxed{7}", gold="7").verdict, flush=True)
child = os.fork()
if child == 0:
    gc.collect()
    print(chorus.grade(r"\boxed{8}", gold="7").verdict, flush=True)
    sys.exit(0)  # an end with all its finalizers, atexit's among them
assert os.waitpid(child, 0)[1] == 0
print(chorus.grade(r"\boxed{7}", gold="7").verdict, flush=True)
time.sleep(60)
"""


def _eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_a_script_grades_forks_grades_and_leaves_no_process_even_when_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    script = subprocess.Popen(
        [sys.executable, str(path)], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert script.stdout is not None
        assert script.stderr is not None
        said = [script.stdout.readline().strip() for _ in range(3)]
        graders = [p for p in psutil.Process(script.pid).children(recursive=True) if p.status() != "zombie"]
    finally:
        os.kill(script.pid, signal.SIGKILL)
        script.wait(30)
    assert said == ["correct", "wrong", "correct"]
    assert script.stderr.read() == ""
    assert len(graders) == 2  # the template and its grader; the forked child's have gone with it
    _eventually(
        lambda: not any(g.is_running() and g.status() != "zombie" for g in graders), "a grader outlived its script"
    )


def test_the_errors_are_those_of_the_service() -> None:
    """So that who asks both ways needs one `except`."""
    with pytest.raises(BadItemError):
        chorus.grade("7", gold="")
