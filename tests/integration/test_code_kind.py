"""Programs over HTTP: the contract, the refusal without a sandbox, and what is left after kills."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from samples import TASK

from chorus.generator.reward_client import RewardServer
from chorus.problems.sources import load_problems
from chorus.protocol.messages import Grade, Task
from chorus.reward_server.sandbox.sandbox import find_mechanism

ROOT = Path(__file__).resolve().parents[2]
MECHANISM, WHY_NOT = find_mechanism()
needs_sandbox = pytest.mark.skipif(MECHANISM is None, reason=f"no sandbox on this machine: {WHY_NOT}")
NO_SANDBOX = "import chorus.reward_server.sandbox.sandbox as host; host.MECHANISMS = (); "
SUM = "So:\n```python\ndef add(a, b):\n    return a + b\n```"
TESTS = [{"function": "add", "args": [2, 3], "expected": 5}, {"function": "add", "args": [2, -3], "expected": -1}]
HANGS = {"completion": "```python\nwhile True: pass\n```", "kind": "code", "tests": [{"input": "", "output": "1"}]}


@contextmanager
def running(before: str = "", timeout_s: float = 4.0) -> Iterator[tuple[httpx.Client, int]]:
    """A server with one worker, and its process id; `before` is Python that it runs first."""
    start = f"import sys; {before}from chorus.reward_server.main import main; sys.exit(main())"
    command = [sys.executable, "-c", start, "--port", "0", "--workers", "1", "--timeout", str(timeout_s)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        client = httpx.Client(base_url=process.stdout.readline().split()[1], timeout=60)
        _eventually(lambda: _ready(client))
        yield client, process.pid
    finally:
        process.kill()
        process.wait(10)


def _ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def _eventually(condition, limit_s: float = 30.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with running() as (client, _):
        yield client


@needs_sandbox
def test_a_program_is_graded_without_a_gold_and_with_a_format_score(client):
    completion = f"<think>\nAdd.\n</think>\n<answer>\n{SUM}\n</answer>"
    body = {"completion": completion, "kind": "code", "tests": TESTS, "template": "open-r1"}
    grade = client.post("/v1/grade", json=body).json()
    assert (grade["verdict"], grade["accuracy"], grade["format"], grade["reward"]) == ("correct", 1.0, 1.0, 2.0)
    assert grade["extracted"] == "def add(a, b):\n    return a + b\n"
    assert grade["verifier"] == f"code: {MECHANISM}"
    assert client.get("/readyz").json()["sandbox"] == MECHANISM


@needs_sandbox
def test_fractional_scoring_pays_the_share_that_passed(client):
    wrong = [TESTS[0], TESTS[1] | {"expected": 0}]
    body = {"completion": SUM, "kind": "code", "tests": wrong}
    assert client.post("/v1/grade", json=body).json()["accuracy"] == 0.0
    grade = client.post("/v1/grade", json=body | {"scoring": "fractional"}).json()
    assert (grade["verdict"], grade["accuracy"], grade["reward"]) == ("wrong", 0.5, 0.5)
    assert grade["reason"] == "test 2 of 2: another value"


@needs_sandbox
def test_an_explanation_shows_each_test_and_where_the_program_stood(client):
    body = {"completion": SUM, "kind": "code", "tests": [TESTS[0] | {"expected": 6}]}
    explained = client.post("/v1/explain", json=body).json()
    place = explained["extraction"]
    assert SUM[place["start"] : place["end"]] == explained["extracted"]
    [comparison] = explained["comparisons"]
    assert (comparison["equal"], comparison["expected"], comparison["got"]) == (False, "6", "5")


@needs_sandbox
def test_kinds_mix_in_a_batch_and_a_hanging_program_costs_only_itself(client):
    items = [
        {"completion": SUM, "kind": "code", "tests": TESTS},
        HANGS,
        {"completion": r"\boxed{4}", "gold": "4"},
        {
            "completion": SUM,
            "kind": "code",
            "tests": [{"function": "add", "args": [10**30, 1], "expected": 10**30 + 1}],
        },
    ]
    results = client.post("/v1/grade/batch", json={"items": items}).json()["results"]
    assert [result["verdict"] for result in results] == ["correct", "wrong", "correct", "correct"]
    assert "limit of" in results[1]["reason"]


def test_without_a_sandbox_the_kind_is_refused_and_the_others_are_graded():
    with running(NO_SANDBOX) as (client, _):
        response = client.post("/v1/grade", json={"completion": SUM, "kind": "code", "tests": TESTS})
        assert response.status_code == 501
        assert "needs a sandbox, and this server has none" in response.json()["detail"]
        assert client.get("/readyz").json()["sandbox"] is None
        items = [{"completion": SUM, "kind": "code", "tests": TESTS}, {"completion": r"\boxed{4}", "gold": "4"}]
        refused, graded = client.post("/v1/grade/batch", json={"items": items}).json()["results"]
        assert (refused["verdict"], refused["accuracy"], refused["reward"]) == ("error", None, None)
        assert "needs a sandbox, and this server has none" in refused["reason"]
        assert graded["verdict"] == "correct"
        assert client.post("/v1/grade", json={"completion": r"\boxed{4}", "gold": "4"}).json()["verdict"] == "correct"


@needs_sandbox
@pytest.mark.parametrize("victim", ["the grader", "the server"])
async def test_nothing_is_left_of_a_program_whose_grader_or_server_is_killed(victim):
    with running(timeout_s=60.0) as (client, pid):
        async with httpx.AsyncClient(base_url=client.base_url, timeout=2.0) as other:
            hanging = asyncio.create_task(other.post("/v1/grade", json=HANGS))
            server = psutil.Process(pid)
            while not (sandboxed := [p for p in server.children(recursive=True) if _in_a_sandbox(p)]):
                await asyncio.sleep(0.02)
            [grader] = {p.ppid() for p in sandboxed if not _in_a_sandbox(psutil.Process(p.ppid()))}
            os.kill(grader if victim == "the grader" else pid, signal.SIGKILL)
            _eventually(lambda: not any(map(_lives, sandboxed)))
            with pytest.raises(httpx.TransportError):  # closed, or still at the second try
                await hanging


def _in_a_sandbox(process: psutil.Process) -> bool:
    try:
        return "sandbox.supervisor" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@needs_sandbox
def test_a_run_s_program_problems_go_through_source_task_and_grader(client: httpx.Client, tmp_path: Path) -> None:
    huge = 2**70  # more than msgpack can carry as a number
    tests = [*TESTS, {"function": "add", "args": [huge, 1], "expected": huge + 1}]
    row = {"problem": "Write add.", "kind": "code", "tests": tests}
    source = tmp_path / "programs.jsonl"
    source.write_text(json.dumps(row) + "\n")
    [problem] = load_problems(str(source))
    task = Task.decode(TASK.model_copy(update={"kind": "code", "gold": [], "tests": problem.tests}).encode())

    async def grades() -> list[Grade]:
        server = RewardServer(str(client.base_url), deadline_s=30.0)
        try:
            return await server.grade(task, [SUM, SUM.replace("a + b", "a - b"), "none"])
        finally:
            await server.close()

    assert [grade.verdict for grade in asyncio.run(grades())] == ["correct", "wrong", "no_answer"]
