"""Whatever is sent to the reward server, it answers with a grade or one sentence, and counts what it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import hypothesis.strategies as st
import pytest
from fastapi import FastAPI
from forge import forged_json, inputs
from hypothesis import given

from chorus.reward_server.api.app import create_app
from chorus.reward_server.api.settings import Settings
from chorus.reward_server.graders.task import Clusters, Extracted, GradeResult, GradeTask, Reply
from chorus.reward_server.pool.pool import GraderPool

ITEM = {"completion": "The answer is \\boxed{2}.", "gold": "2", "kind": "math", "template": "qwen-math"}
BODIES: dict[str, Any] = {
    "/v1/grade": ITEM,
    "/v1/grade/batch": {"items": [ITEM, {**ITEM, "gold": ["2", "3"], "mode": "strict"}]},
    "/v1/explain": ITEM,
    "/v1/cluster": {"completions": ["\\boxed{1}", "\\boxed{2}"], "kind": "math"},
    "/v1/render": {"template": "qwen-math", "problem": "1 + 1"},
}
MAX_BODY = 4 << 10
Answer = tuple[int, bytes]


async def scripted_run(_: GraderPool, tasks: Sequence[GradeTask]) -> list[Reply]:
    """In place of the graders: the request is what is forged here, not the algebra."""
    return [_reply(task) for task in tasks]


def _reply(task: GradeTask) -> Reply:
    if task.task == "cluster":
        return Clusters(tuple(range(len(task.answers))))
    if task.task == "extract":
        return Extracted("2", "2")
    return GradeResult("correct", 1.0, "math: exact", extracted="2", ms=0.1)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    monkeypatch.setattr(GraderPool, "run", scripted_run)
    return create_app(Settings(max_body_bytes=MAX_BODY, token="secret"))


async def send(app: FastAPI, path: str, body: bytes, headers: dict[bytes, bytes], pieces: int = 1) -> Answer:
    """One request as a server would hand it over, in `pieces`."""
    size = max(1, -(-len(body) // pieces))
    parts = [body[k : k + size] for k in range(0, len(body), size)] or [b""]
    messages = [{"type": "http.request", "body": p, "more_body": p is not parts[-1]} for p in parts]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": [*headers.items()],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
    }  # fmt: skip
    answer: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def reply(message: Any) -> None:
        answer.append(message)

    await app(scope, receive, reply)
    assert answer[0]["type"] == "http.response.start"
    return answer[0]["status"], b"".join(m.get("body", b"") for m in answer[1:])


def counted(app: FastAPI, loop: asyncio.AbstractEventLoop) -> float:
    """Refused requests so far, as /metrics tells them."""
    scope = {"type": "http", "method": "GET", "path": "/metrics", "headers": [], "query_string": b"", "root_path": ""}
    answer: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def reply(message: Any) -> None:
        answer.append(message)

    loop.run_until_complete(app(scope, receive, reply))
    lines = answer[1]["body"].decode().splitlines()
    name = "chorus_reward_server_refused_requests_total"
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + "{"))


@pytest.mark.parametrize("path", BODIES)
def test_a_forged_request_is_answered_or_refused_with_a_sentence_and_counted(
    path: str, app: FastAPI, loop: asyncio.AbstractEventLoop
) -> None:
    refused = 0
    token = st.sampled_from([b"Bearer secret"] * 8 + [b"", b"Bearer ", b"Bearer secre", b"Basic secret", b"\xff"])
    kind = st.sampled_from([b"application/json"] * 4 + [b"text/plain", b"\xff\x00"])
    declared = st.sampled_from([None] * 6 + [b"-1", b"x", b"9" * 5000, str(MAX_BODY + 1).encode(), b"0"])

    @inputs(few=60)
    @given(forged_json(BODIES[path]), token, kind, declared, st.integers(1, 3))
    def check(body: bytes, authorization: bytes, content_type: bytes, length: bytes | None, pieces: int) -> None:
        nonlocal refused
        headers = {b"content-type": content_type, b"authorization": authorization}
        if length is not None:
            headers[b"content-length"] = length
        status, answer = loop.run_until_complete(send(app, path, body, headers, pieces))
        assert status in (200, 401, 413, 422), answer[:200]
        assert (status == 401) == (authorization != b"Bearer secret")
        if status != 200:
            refused += 1
            assert b'"detail"' in answer
            assert len(answer) < 2000
        assert status != 200 or len(body) <= MAX_BODY

    check()
    assert refused
    assert counted(app, loop) == refused


def test_a_request_that_is_sent_again_is_graded_again_and_leaves_nothing_behind(
    app: FastAPI, loop: asyncio.AbstractEventLoop
) -> None:
    """The server keeps no state of a request: a replay costs one more grade, and can't change another one's."""
    import json

    body, headers = (
        json.dumps(ITEM).encode(),
        {b"content-type": b"application/json", b"authorization": b"Bearer secret"},
    )
    answers = {loop.run_until_complete(send(app, "/v1/grade", body, headers)) for _ in range(50)}
    assert len(answers) == 1
    assert next(iter(answers))[0] == 200
