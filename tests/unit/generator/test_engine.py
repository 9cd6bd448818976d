"""What vLLM's server is asked and how it is started: a real HTTP server in its place, that remembers the body."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from chorus.generator import vllm_engine
from chorus.generator.vllm_engine import VllmEngine
from chorus.protocol.config.run import RunConfig
from chorus.protocol.messages import SyncOffer, WeightCheck, pack_floats, pack_ids
from chorus.protocol.runtime.processes import Guarded, SpawnError, spawn_guarded

CONFIG = RunConfig.model_validate(
    {
        "model": {"path": "none", "context": 64},
        "problems": {"train": ["none"], "max_prompt_tokens": 16},
        "templates": {"names": ["qwen-math"]},
        "sampling": {"group_size": 2, "max_tokens": 16},
    }
)
CHOICE = {
    "token_ids": [5, 6],
    "logprobs": {"content": [{"logprob": -0.5}, {"logprob": -0.25}]},
    "weight_versions": [{"version": "1.4", "start": 0, "end": 2}],
    "finish_reason": "stop",
}


@asynccontextmanager
async def answering(
    folder: Path, choices: list[dict[str, Any]]
) -> AsyncIterator[tuple[VllmEngine, list[dict[str, Any]]]]:
    """An engine whose server gives these choices to everybody, and the bodies of what it was asked."""
    bodies: list[dict[str, Any]] = []

    async def generate(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return web.json_response({"choices": choices})

    app = web.Application()
    app.router.add_post("/inference/v1/generate", generate)
    engine = VllmEngine(CONFIG, folder / "vllm.log")
    async with TestServer(app) as server, ClientSession(server.make_url("/")) as http:
        engine._http = http
        yield engine, bodies


@pytest.mark.parametrize(
    ("asked", "top_p", "stop"),
    [({}, 1.0, []), ({"top_p": 0.95}, 0.95, []), ({"stop": [3, 7]}, 1.0, [3, 7])],
)
async def test_a_request_says_how_its_samples_are_drawn_and_where_they_end(
    tmp_path: Path, asked: dict[str, Any], top_p: float, stop: list[int]
) -> None:
    async with answering(tmp_path, [CHOICE] * 3) as (engine, bodies):
        completions = await engine.generate([1, 2], 3, 0.7, 8, 10.0, **asked)
    assert [(c.token_ids, c.logprobs, c.versions) for c in completions] == [([5, 6], [-0.5, -0.25], [(1, 4, 2)])] * 3
    sampling = {"n": 3, "max_tokens": 8, "temperature": 0.7, "top_p": top_p, "logprobs": 0, "detokenize": False}
    sampling["stop_token_ids"] = stop
    assert bodies == [{"model": "policy", "token_ids": [1, 2], "sampling_params": sampling}]


async def test_vllm_gets_the_environment_less_what_harms_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, str] = {}

    def spawn(argv: list[str], *, env: dict[str, str], **_: Any) -> None:
        given.update(env)
        raise SpawnError("not today")

    monkeypatch.setattr("chorus.generator.vllm_engine.spawn_guarded", spawn)
    long = tmp_path / ("x" * 90)
    long.mkdir()
    for name, value in {
        "VLLM_API_KEY": "secret",
        "VLLM_PLUGINS": "theirs",
        "WORLD_SIZE": "2",
        "HF_HOME": "/hub",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setenv("HOME", "/proc/nobody")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(SpawnError):
        await VllmEngine(CONFIG, tmp_path / "logs" / "vllm.log").start()
    assert "VLLM_API_KEY" not in given
    assert "WORLD_SIZE" not in given
    assert (given["VLLM_PLUGINS"], given["HF_HOME"], given["TMPDIR"]) == ("theirs,chorus", "/hub", str(long))
    assert given["PYTHONSAFEPATH"] == "1"
    assert len(given["VLLM_RPC_BASE_PATH"]) <= 70
    assert given["XDG_CACHE_HOME"] == str(tmp_path / "logs" / "cache")


async def test_tokens_of_the_weights_that_the_server_was_started_with_have_a_version_that_nobody_verifies(
    tmp_path: Path,
) -> None:
    unversioned = {**CHOICE, "weight_versions": [{"version": "default", "start": 0, "end": 2}]}
    async with answering(tmp_path, [unversioned]) as (engine, _):
        (completion,) = await engine.generate([1, 2], 1, 0.7, 8, 10.0)
    assert completion.versions == [(-1, -1, 2)]


@pytest.mark.parametrize(
    ("top", "gaps"),
    [
        ({5: -0.5, 6: -1.5, 7: -2.0}, [0.0, 0.25]),  # 7 is none of the learner's likeliest
        ({7: -0.5, 8: -1.0}, [np.inf]),  # not one of them is likely here
    ],
)
async def test_the_weight_check_compares_the_learner_s_likeliest_tokens(
    tmp_path: Path, top: dict[int, float], gaps: list[float]
) -> None:
    content = [{"logprob": -0.5, "top_logprobs": [{"token_id": id, "logprob": value} for id, value in top.items()]}]
    point = WeightCheck(prefix=pack_ids([1, 2]), token_ids=pack_ids([5, 6]), logprobs=pack_floats([-0.5, -1.25]))
    offer = SyncOffer(
        version="1.0", group="g", backend="gloo", store_host="127.0.0.1", store_port=1, world_size=2, timeout_s=9.0,
        bucket_bytes=4096, tensors=[], temperature=0.7, tolerance=1e-3, checks=[point],
    )  # fmt: skip
    async with answering(tmp_path, [{**CHOICE, "logprobs": {"content": content}}]) as (engine, bodies):
        assert (await engine.logprob_gaps(offer)).tolist() == pytest.approx(gaps)
    sampling = {"max_tokens": 1, "temperature": 0.7, "logprobs": 2, "detokenize": False}
    assert bodies == [{"model": "policy", "token_ids": [1, 2], "sampling_params": sampling}]


# Stands in for vLLM's server: healthy at once, with a process of its own below it.
SERVER = """
import http.server, subprocess, sys
below = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"world_size": 1}')
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="on one core everything is bound to it")
async def test_a_started_engine_runs_with_all_its_processes_on_its_own_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spawn(argv: Sequence[str], **how: Any) -> Guarded:
        assert argv[1:3] == ["-m", "vllm.entrypoints.openai.api_server"]
        return spawn_guarded([sys.executable, "-c", SERVER, argv[list(argv).index("--port") + 1]], **how)

    monkeypatch.setattr(vllm_engine, "spawn_guarded", spawn)
    all_cores = os.sched_getaffinity(0)
    own = {max(all_cores)}
    engine = VllmEngine(CONFIG, tmp_path / "vllm.log", own)
    try:
        await engine.start()
        assert engine.pid is not None
        server = psutil.Process(engine.pid)
        family = [server, *server.children(recursive=True)]
        assert len(family) == 2
        assert [set(process.cpu_affinity() or ()) for process in family] == [own, own]
        assert os.sched_getaffinity(0) == all_cores, "the agent runs where it may"
    finally:
        await engine.stop()
