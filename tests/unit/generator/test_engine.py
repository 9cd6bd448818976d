"""What vLLM's server is asked: a real HTTP server in its place, that remembers the body."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from chorus.generator.vllm_engine import VllmEngine
from chorus.protocol.config.run import RunConfig

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


@pytest.mark.parametrize(("asked", "top_p"), [({}, 1.0), ({"top_p": 0.95}, 0.95)])
async def test_a_request_says_how_its_samples_are_drawn(tmp_path: Path, asked: dict[str, float], top_p: float) -> None:
    bodies: list[dict[str, Any]] = []

    async def generate(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return web.json_response({"choices": [CHOICE] * 3})

    app = web.Application()
    app.router.add_post("/inference/v1/generate", generate)
    engine = VllmEngine(CONFIG, tmp_path / "vllm.log")
    async with TestServer(app) as server, ClientSession(server.make_url("/")) as http:
        engine._http = http
        completions = await engine.generate([1, 2], 3, 0.7, 8, 10.0, **asked)
    assert [(c.token_ids, c.logprobs, c.versions) for c in completions] == [([5, 6], [-0.5, -0.25], [(1, 4, 2)])] * 3
    sampling = {"n": 3, "max_tokens": 8, "temperature": 0.7, "top_p": top_p, "logprobs": 0, "detokenize": False}
    assert bodies == [{"model": "policy", "token_ids": [1, 2], "sampling_params": sampling}]
