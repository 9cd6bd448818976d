"""What vLLM's server is asked: a real HTTP server in its place, that remembers the body."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from chorus.generator.vllm_engine import VllmEngine
from chorus.protocol.config.run import RunConfig
from chorus.protocol.runtime.processes import SpawnError

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
