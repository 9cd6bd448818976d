"""The reward server as a process: real sockets, real grader processes, real kills."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest
from hostile import HANGS, INTEGRAL

from chorus.reward_server.api.app import create_app
from chorus.reward_server.api.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 2.0
SLACK_S = 0.5
JSON = {"content-type": "application/json"}


class Server:
    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url
        self.client = httpx.Client(base_url=url, timeout=60, headers=JSON)

    def grade(self, completion: str, gold: str | list[str] = "42", **fields: object) -> dict:
        # json.dumps by hand: httpx's encoder refuses the lone surrogates that models do produce
        body = json.dumps({"completion": completion, "gold": gold, **fields})
        response = self.client.post("/v1/grade", content=body)
        assert response.status_code == 200, response.text
        return response.json()

    def wait_ready(self, limit_s: float = 30.0) -> float:
        started = time.monotonic()
        while time.monotonic() - started < limit_s:
            try:
                if self.client.get("/readyz").status_code == 200:
                    return time.monotonic() - started
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"the reward server is not ready after {limit_s} s")

    def graders(self) -> list[int]:
        """Process ids of the grader processes, without the template that they are forked from."""
        with suppress(psutil.NoSuchProcess):
            for template in psutil.Process(self.process.pid).children():
                return [p.pid for p in template.children() if p.status() != psutil.STATUS_ZOMBIE]
        return []

    def metric(self, name: str) -> float:
        lines = self.client.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


@contextmanager
def running(*arguments: str, environment: dict[str, str] | None = None) -> Iterator[Server]:
    process = subprocess.Popen(
        [sys.executable, "-m", "chorus.reward_server.main", "--port", "0", *arguments],
        cwd=ROOT,
        env=os.environ | (environment or {}),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        server = Server(process, process.stdout.readline().split()[1])
        server.wait_ready()
        yield server
    finally:
        process.kill()
        process.wait(10)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running("--workers", "2", "--timeout", str(LIMIT_S)) as server:
        yield server


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _eventually(condition, limit_s: float = 10.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


# --- the contract ---------------------------------------------------------------------------------


def test_ready_in_less_than_ten_seconds_with_settings_of_all_kinds(tmp_path):
    """What each of them does is tested on the application alone, in tests/unit/reward_server/test_service.py."""
    recipe = tmp_path / "recipe.toml"
    sections = ('[model]\npath = "any"', '[problems]\ntrain = ["any"]', '[templates]\nnames = ["qwen-math"]')
    recipe.write_text("\n".join([*sections, '[reward]\ncompose = "format_gated"\n']))
    options = ("--recipe", str(recipe), "--max-queue", "4", "--workers", "1")
    started = time.monotonic()
    with running(*options, environment={"CHORUS_REWARD_TOKEN": "secret"}) as server:
        assert time.monotonic() - started < 10
        body = {"completion": r"\boxed{5}", "gold": "4", "template": "qwen-math"}
        assert server.client.post("/v1/grade", json=body).status_code == 401
        server.client.headers["authorization"] = "Bearer secret"
        assert server.client.post("/v1/grade", json=body).json()["reward"] == 0.0
        assert server.client.post("/v1/grade/batch", json={"items": [body] * 5}).status_code == 429


def test_grade_has_the_agreed_fields(server):
    grade = server.grade("<think>\nabc\n</think>\n<answer>\n\\boxed{4}\n</answer>", "4", template="open-r1")
    assert grade["verdict"] == "correct"
    assert (grade["accuracy"], grade["format"], grade["reward"], grade["extracted"]) == (1, 1.0, 2.0, "4")
    assert isinstance(grade["verifier"], str)
    assert grade["ms"] >= 0


@pytest.mark.parametrize(
    ("completion", "verdict", "accuracy", "reward"),
    [(r"\boxed{4}", "correct", 1, 1.0), (r"\boxed{5}", "wrong", 0, 0.0), ("", "no_answer", 0, 0.0)],
)
def test_format_is_null_and_counts_zero_without_a_template(server, completion, verdict, accuracy, reward):
    grade = server.grade(completion, "4")
    assert (grade["verdict"], grade["accuracy"], grade["format"], grade["reward"]) == (
        verdict,
        accuracy,
        None,
        reward,
    )


@pytest.mark.parametrize("gold", ["4", "$4$", r"\boxed{4}", ["7", "4"], [r"\boxed{7}", "$4$"]])
def test_golds_may_be_bare_dollars_boxed_or_several(server, gold):
    assert server.grade(r"\boxed{4}", gold)["verdict"] == "correct"


def test_modes_differ_as_documented(server):
    verdicts = {mode: server.grade("so it is 42", "42", mode=mode)["verdict"] for mode in ("train", "paper", "strict")}
    assert verdicts == {"train": "correct", "paper": "correct", "strict": "no_answer"}


def test_batch_keeps_the_order(server):
    items = [{"completion": f"\\boxed{{{i}}}", "gold": str(i if i % 3 else -1)} for i in range(60)]
    results = server.client.post("/v1/grade/batch", json={"items": items}).json()["results"]
    assert [r["extracted"] for r in results] == [str(i) for i in range(60)]
    assert [r["verdict"] for r in results] == ["correct" if i % 3 else "wrong" for i in range(60)]
    assert server.client.post("/v1/grade/batch", json={"items": []}).json() == {"results": []}


def test_templates_and_render(server):
    templates = {t["name"]: t for t in server.client.get("/v1/templates").json()["templates"]}
    assert len(templates) == 14, "the thirteen, and that of interleaved reasoning"
    assert "category" in templates["abel"]
    body = {"template": "open-r1-teacher", "problem": "1+1?"}
    rendered = server.client.post("/v1/render", json=body).json()
    assert rendered["prompt"].endswith("<|im_start|>assistant\n<think>\n")
    assert rendered["prefill"] == "<think>\n"


def test_explain_says_where_the_answer_was_and_why_it_is_wrong(server):
    completion = "<answer>\n\\boxed{17=42}\n</answer>\nmore"
    body = {"completion": completion, "gold": ["41", "42"], "template": "open-r1"}
    explained = server.client.post("/v1/explain", json=body).json()
    assert explained["verdict"] == "wrong"
    place = explained["extraction"]
    assert completion[place["start"] : place["end"]] == "17=42"
    assert (place["rung"], place["cuts"]) == ("last_box", ["everything from </answer>"])
    assert "17" in explained["comparisons"][1]["reason"]
    assert explained["markers"]["\n<answer>\n"] == 0
    assert explained["parts"] == {"total": 0.25, "accuracy": 0.0, "format": 0.25, "overlong": None}


def test_cluster_groups_equal_answers(server):
    completions = [
        r"\boxed{1/2}",
        r"\boxed{0.5}",
        "",
        r"\boxed{3}",
        r"\boxed{\frac{2}{4}}",
        r"\boxed{x+1}",
        r"\boxed{1+x}",
    ]
    reply = server.client.post("/v1/cluster", json={"completions": completions}).json()
    assert reply["clusters"] == [0, 0, 1, 2, 0, 3, 3]
    assert reply["method"] == "equivalence"


def test_cluster_survives_a_hostile_answer(server):
    completions = [r"\boxed{42}", HANGS, r"\boxed{42}", r"\boxed{7}"]
    reply = server.client.post("/v1/cluster", json={"completions": completions}).json()
    assert reply["clusters"] == [0, 1, 0, 2]


async def test_the_service_answers_others_while_a_cluster_of_hostile_answers_falls_back_on_their_text(server):
    layers = r"\boxed{" + r"\(" * 40_000 + "1" + r"\)" * 40_000 + "}"  # each unwrapped by a copy: 1.3 s in one go
    completions = [layers, HANGS, rf"\boxed{{{INTEGRAL} + 8}}", layers, *(f"{layers[:-2]}{i}}}" for i in range(3))]
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        clustering = asyncio.create_task(client.post("/v1/cluster", json={"completions": completions}))
        hanging = asyncio.create_task(client.post("/v1/grade", json={"completion": HANGS, "gold": "1"}))
        slowest_s = 0.0
        while not (clustering.done() and hanging.done()):
            started = time.monotonic()
            assert (await client.get("/healthz")).status_code == 200
            slowest_s = max(slowest_s, time.monotonic() - started)
            await asyncio.sleep(0.01)
        reply = (await clustering).json()
    assert slowest_s < 0.5
    assert reply["method"] == "text"
    assert reply["clusters"][0] == reply["clusters"][3] != reply["clusters"][1]
    assert all(len(answer) <= 4000 for answer in reply["extracted"])


def test_answers_that_no_algebra_could_compare_are_clustered_without_their_typography(server):
    completions = [HANGS, r"\boxed{\dfrac{1}{2}}", r"\boxed{$ \frac12 $}", r"\boxed{3}"]
    hostile = rf"\boxed{{{HANGS[7:-1]}+1}}"
    reply = server.client.post("/v1/cluster", json={"completions": [*completions, hostile]}).json()
    assert (reply["method"], reply["clusters"]) == ("text", [0, 1, 1, 2, 3])


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('{"completion": "x"}', "gold: Field required"),
        ('{"completion": 3, "gold": "4"}', "completion: Input should be a valid string"),
        ('{"completion": "x", "gold": []}', "gold"),
        ('{"completion": "x", "gold": " "}', "gold: an empty gold matches nothing"),
        ('{"completion": "x", "gold": "4", "template": "nix"}', "unknown template 'nix'"),
        ('{"completion": "x", "gold": "4", "mode": "lax"}', "mode"),
        ('{"completion": "x", "gold": "4", "goold": 1}', "goold"),
        ('{"completion": "x", "kind": "code"}', "tests: kind 'code' is graded by tests"),
        ('{"completion": "x", "kind": "code", "tests": [{"input": "1"}]}', "tests[0]"),
        ('{"completion": ', "not JSON"),
        ("[" * 100_000, "JSON"),
    ],
)
def test_bad_input_is_422_with_one_message(server, body, says):
    response = server.client.post("/v1/grade", content=body)
    assert response.status_code == 422
    assert says in response.json()["detail"]


def test_bad_batch_item_is_named(server):
    body = {"items": [{"completion": "x", "gold": "1"}, {"completion": "x"}]}
    response = server.client.post("/v1/grade/batch", json=body)
    assert response.status_code == 422
    assert response.json()["detail"] == "items[1].gold: Field required"
    too_many = {"items": [{"completion": "x", "gold": "1"}] * 1025}
    response = server.client.post("/v1/grade/batch", json=too_many)
    assert (response.status_code, "1025 items" in response.json()["detail"]) == (422, True)


def test_an_item_that_cannot_be_graded_costs_only_itself(server):
    good = {"completion": r"\boxed{4}", "gold": "4", "template": "qwen-math"}
    items = [good, good | {"template": "nix"}, good | {"gold": ["4", " "]}, good]
    results = server.client.post("/v1/grade/batch", json={"items": items}).json()["results"]
    assert [r["verdict"] for r in results] == ["correct", "error", "error", "correct"]
    assert [r["refused"] for r in results] == [False, True, True, False]
    assert all(results[i]["accuracy"] is None and results[i]["reward"] is None for i in (1, 2))
    assert results[1]["reason"].startswith("template: unknown template 'nix'; known are: abel, ")
    assert results[2]["reason"] == "gold: an empty gold matches nothing; give the answer"


async def test_what_no_item_can_be_graded_for_is_logged_once(caplog):
    item = {"completion": "x", "gold": "4", "template": "nix"}
    http = httpx.AsyncClient(transport=httpx.ASGITransport(create_app(Settings())), base_url="http://reward")
    for _ in range(2):
        assert (await http.post("/v1/grade/batch", json={"items": [item] * 3})).status_code == 200
    assert [r.getMessage()[:60] for r in caplog.records if r.name == "chorus.reward_server"] == [
        "items of a batch can't be graded: template: unknown template"
    ]


def test_body_over_the_limit_is_413(server):
    response = server.client.post("/v1/grade", content=b" " * (32 << 20) + b"x")
    assert response.status_code == 413
    assert "larger than this server's limit" in response.json()["detail"]
    assert server.grade(r"\boxed{42}")["verdict"] == "correct"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--workers", "0"], 2, "workers"),
        (["--timeout", "0"], 2, "timeout_s"),
        (["--reward-json", '{"compose": "nix"}'], 2, "compose"),
        (["--templates", "no/such/file.toml"], 2, "no/such/file.toml"),
        (["--recipe", "no/such/recipe.toml"], 2, "recipe no/such/recipe.toml: can't be read"),
    ],
)
def test_bad_settings_end_with_one_line(arguments, code, says):
    command = [sys.executable, "-m", "chorus.reward_server.main", "--port", "0", *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == code
    assert len(ended.stderr.splitlines()) == 1
    assert says in ended.stderr


def test_port_in_use_ends_with_one_line(server):
    port = server.url.rsplit(":", 1)[1]
    command = [sys.executable, "-m", "chorus.reward_server.main", "--port", port]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [line for line in ended.stderr.splitlines() if "Address already in use" in line]


def test_api_process_imports_neither_sympy_nor_torch():
    check = (
        "import sys, chorus.reward_server.main; "
        "print([m for m in ('sympy', 'math_verify', 'torch', 'redis') if m in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


# --- hostile completions --------------------------------------------------------------------------

DEEP_FRACTION = "1"
for _ in range(20):
    DEEP_FRACTION = rf"1+\frac{{1}}{{{DEEP_FRACTION}}}"
MEMORY_BYTES = 3 << 29  # the default limit of one grader's address space
HANGS_EARLY = r"\boxed{9^{9^{9^{9}}}}"
HOSTILE = {
    "power tower": HANGS_EARLY,
    "power tower and more": r"\boxed{9^{9^{9^{9}}}+9}",
    "integrals": HANGS,
    "ten to ten and more": r"\boxed{10^{10^{10}}-x}",
    "factorial and more": r"\boxed{100000000!+1}",
    "ten to ten": r"\boxed{10^{10^{10}}}",
    "factorial": r"\boxed{100000000!}",
    "nested factorial": r"\boxed{((9!)!)!}",
    "binomial": r"\boxed{\binom{10^9}{5\cdot 10^8}}",
    "infinite sum": r"\boxed{\sum_{n=1}^{\infty} \frac{\sin(n^n)}{n^{n+1}}}",
    "nested parentheses": r"\boxed{" + "(" * 300 + "1" + ")" * 300 + "}",
    "open nested parentheses": r"\boxed{" + "(" * 300 + "1" + "}",
    "nested parentheses of sums": r"\boxed{" + "(1+" * 300 + "1" + ")" * 300 + "}",
    "continued fraction": rf"\boxed{{{DEEP_FRACTION}}}",
    "megabyte": "lorem $x_1$ ipsum 3.14 " * 45_000,
    "megabyte in the box": r"\boxed{" + "x" * 1_000_000 + "}",
    "sum of ones": r"\boxed{" + "1+" * 50_000 + "1}",
    "long list": r"\boxed{" + ",".join(map(str, range(3000))) + "}",
    "many boxes": r"\boxed{1} " * 100_000,
    "open boxes": r"\boxed{" * 20_000,
    "answer phrases": "the answer is " * 70_000,
    "dollars": "$" * 100_000,
    "stars": "answer" + "*" * 500_000,
    "spaces": "answer is" + " " * 1_000_000,
    "open parentheses": r"\(" * 100_000,
    "NUL": "\\boxed{4\0 2}",
    "lone surrogate": "\\boxed{\ud800}",
    "unmatched braces": r"\boxed{42}}}}{{{",
    "python": "\\boxed{__import__('os').system('touch pwned')}",
    "python by sympify": "\\boxed{exec('1/0')}",
    "python unboxed": "The answer is __import__('os').system('touch pwned')",
}


@pytest.mark.parametrize("place", ["completion", "gold"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_ends_within_its_limit_and_memory(server, name, place):
    text = HOSTILE[name]
    started = time.monotonic()
    grade = server.grade(text, "17") if place == "completion" else server.grade(r"\boxed{17}", text)
    assert time.monotonic() - started < LIMIT_S + SLACK_S
    assert grade["verdict"] in ("wrong", "no_answer", "timeout", "error")
    if grade["verdict"] in ("timeout", "error"):
        assert grade["accuracy"] is None
        assert grade["reward"] is None
    assert all(_address_space(pid) < MEMORY_BYTES for pid in server.graders())
    _eventually(lambda: server.client.get("/readyz").status_code == 200)
    assert not (ROOT / "pwned").exists()


ELSEWHERE = [
    *("power tower", "factorial", "nested parentheses", "continued fraction"),
    *("megabyte", "megabyte in the box", "sum of ones", "long list", "many boxes", "open boxes", "answer phrases"),
    *("dollars", "spaces", "open parentheses", "NUL", "lone surrogate", "unmatched braces"),
    *("python", "python by sympify", "python unboxed"),
]


@pytest.mark.parametrize(("path", "mode"), [("grade", "paper"), ("grade", "strict"), ("explain", "train")])
@pytest.mark.parametrize("name", ELSEWHERE)
def test_hostile_text_is_as_harmless_in_other_modes_and_explained(server, name, path, mode):
    body = json.dumps({"completion": HOSTILE[name], "gold": "17", "mode": mode, "template": "open-r1"})
    started = time.monotonic()
    response = server.client.post(f"/v1/{path}", content=body)
    assert time.monotonic() - started < LIMIT_S + SLACK_S
    assert response.status_code == 200, response.text[:500]
    assert response.json()["verdict"] in ("wrong", "no_answer", "timeout", "error")
    assert all(_address_space(pid) < MEMORY_BYTES for pid in server.graders())
    _eventually(lambda: server.client.get("/readyz").status_code == 200)
    assert not (ROOT / "pwned").exists()


@pytest.mark.parametrize(
    "text",
    [
        HANGS_EARLY,
        r"\boxed{10^{10^{10}}}",
        r"\boxed{100000000!}",
        r"\boxed{((9!)!)!}",
        r"\boxed{\binom{10^9}{5\cdot 10^8}}",
    ],
)
def test_towers_and_factorials_are_decided_without_being_computed(server, text):
    grade = server.grade(text, "17")
    assert (grade["verdict"], grade["verifier"]) == ("wrong", "math: magnitude")


def test_timeout_is_never_wrong_and_costs_only_itself(server):
    items = [{"completion": rf"\boxed{{{i}}}", "gold": str(i)} for i in range(12)]
    items[5] = {"completion": HANGS, "gold": "5", "template": "qwen-math"}
    before = server.metric('chorus_reward_server_worker_restarts_total{reason="timeout"}')
    results = server.client.post("/v1/grade/batch", json={"items": items}).json()["results"]
    assert [r["verdict"] for r in results] == ["correct"] * 5 + ["timeout"] + ["correct"] * 6
    failed = results[5]
    assert (failed["accuracy"], failed["reward"], failed["format"]) == (None, None, 1.0)
    assert server.metric('chorus_reward_server_worker_restarts_total{reason="timeout"}') == before + 1


async def test_neighbours_of_a_hostile_completion_are_not_slowed(server):
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        hostile = asyncio.create_task(client.post("/v1/grade", json={"completion": HANGS, "gold": "1"}))
        await asyncio.sleep(0.1)
        started = time.monotonic()
        clean = [client.post("/v1/grade", json={"completion": rf"\boxed{{{i}}}", "gold": "3"}) for i in range(50)]
        replies = await asyncio.gather(*clean)
        took_s = time.monotonic() - started
        assert not hostile.done()
        assert took_s < LIMIT_S - 0.1
        assert [r.json()["verdict"] for r in replies].count("correct") == 1
        assert (await hostile).json()["verdict"] == "timeout"


# --- deaths ---------------------------------------------------------------------------------------


async def test_killed_grader_is_replaced_and_its_grade_tried_again():
    with running("--workers", "1", "--timeout", "4") as server:
        # The worker and its warm spare; one that still imports would look like the one that grades.
        _eventually(lambda: len(server.graders()) == 2 and not any(map(_cpu_ticks_of_late, server.graders())))
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
            slow = asyncio.create_task(client.post("/v1/grade", json={"completion": HANGS, "gold": "1"}))
            await asyncio.sleep(0.5)
            os.kill(_busiest(server.graders()), signal.SIGKILL)
            grade = (await slow).json()
        assert grade["verdict"] == "timeout"  # the second try ran into its own limit: the kill was no verdict
        assert server.metric('chorus_reward_server_worker_restarts_total{reason="crashed"}') == 1
        assert server.grade(r"\boxed{42}")["verdict"] == "correct"


async def test_grade_whose_graders_die_twice_is_an_error():
    with running("--workers", "1", "--timeout", "30") as server:
        _eventually(lambda: len(server.graders()) == 2)
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            slow = asyncio.create_task(client.post("/v1/grade", json={"completion": HANGS, "gold": "1"}))
            while not slow.done():  # whichever grader has the job is among them
                await asyncio.sleep(0.2)
                if server.metric("chorus_reward_server_warm_workers") == 1:
                    for pid in server.graders():
                        os.kill(pid, signal.SIGKILL)
            grade = (await slow).json()
        assert (grade["verdict"], grade["accuracy"], grade["reward"]) == ("error", None, None)
        assert "died twice" in grade["reason"]


async def test_sigterm_drains_and_exits_zero():
    with running("--workers", "1", "--timeout", "2") as server:
        graders = server.graders()
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
            slow = asyncio.create_task(client.post("/v1/grade", json={"completion": HANGS, "gold": "1"}))
            await asyncio.sleep(0.3)
            server.process.send_signal(signal.SIGTERM)
            assert (await slow).json()["verdict"] == "timeout"
        assert server.process.wait(10) == 0
        _eventually(lambda: not any(map(_alive, graders)))


def test_no_grader_outlives_a_killed_server():
    with running("--workers", "2") as server:
        graders = server.graders()
        assert len(graders) >= 2
        with pytest.raises(httpx.ReadTimeout):
            server.client.post("/v1/grade", json={"completion": HANGS, "gold": "1"}, timeout=0.5)
        server.process.kill()
        _eventually(lambda: not any(map(_alive, graders)))


def _address_space(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _busiest(pids: list[int]) -> int:
    return max(pids, key=_cpu_ticks_of_late)


def _cpu_ticks_of_late(pid: int) -> int:
    def ticks() -> int:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11])

    before = ticks()
    time.sleep(0.3)
    return ticks() - before
