"""The service before its graders: composition, refusals, the body's limit, the token. No process, no socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence

import pytest
from ingrading import InlinePool, inline_server

from chorus.reward_server.api.settings import Settings
from chorus.reward_server.graders.task import Failure, GradeResult, GradeTask
from chorus.reward_server.main import _settings, main

FOUR = {"completion": r"\boxed{4}", "gold": "4"}
FIVE = FOUR | {"completion": r"\boxed{5}"}


def settings_of(arguments: list[str]) -> Settings:
    """What the command makes of its arguments."""
    params = main.make_context("reward-server", arguments).params
    return _settings(**{name: value for name, value in params.items() if name not in ("host", "port")})


async def test_the_reward_follows_the_composition_of_the_settings() -> None:
    arguments = ["--reward-json", '{"compose": "format_gated", "format_weight": 0.5}']
    settings = settings_of(arguments)
    async with inline_server(reward=settings.reward) as http:
        right = (await http.post("/v1/grade", json=FOUR | {"template": "qwen-math"})).json()
        wrong = (await http.post("/v1/grade", json=FIVE | {"template": "qwen-math"})).json()
    assert (right["verdict"], right["reward"]) == ("correct", 1.5)
    assert (wrong["verdict"], wrong["reward"]) == ("wrong", 0.0)


@pytest.mark.parametrize("verdict", ["timeout", "error"])
async def test_a_verifier_that_failed_gives_no_accuracy_and_no_reward(
    verdict: Failure, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(self: InlinePool, tasks: Sequence[GradeTask]) -> list[GradeResult]:
        return [GradeResult.failed("math: pool", "why", verdict) for _ in tasks]

    monkeypatch.setattr(InlinePool, "run", fails)
    async with inline_server() as http:
        grade = (await http.post("/v1/grade", json=FOUR | {"template": "qwen-math"})).json()
    assert (grade["verdict"], grade["accuracy"], grade["reward"]) == (verdict, None, None)
    assert (grade["format"], grade["reason"]) == (1.0, "why")


async def test_a_recipe_gives_the_composition_the_limit_and_the_templates_and_options_go_before_it(tmp_path) -> None:
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\ncategory = "free-form"\nsystem = "Solve."\nmarkers = ["<end>"]\nanswer_place = "in a box"\n'
    )
    (tmp_path / "recipe.toml").write_text(
        '[model]\npath = "any"\n[problems]\ntrain = ["any"]\n[reward]\ncompose = "format_gated"\ntimeout_s = 3\n'
        f'[templates]\nnames = ["mine"]\nfiles = ["{tmp_path}/mine.toml"]\n'
    )
    recipe = ["--recipe", str(tmp_path / "recipe.toml")]
    settings = settings_of(recipe)
    assert (settings.workers, settings.timeout_s) == (1, 3.0)
    mine, wrong = {"completion": r"\boxed{4}<end>", "gold": "4", "template": "mine"}, {"completion": r"\boxed{5}<end>"}
    async with inline_server(**settings.model_dump()) as http:
        assert (await http.get("/readyz")).json()["workers"] == 1
        assert (await http.post("/v1/grade", json=mine)).json()["reward"] == 2.0
        assert (await http.post("/v1/grade", json=mine | wrong)).json()["reward"] == 0.0
    more = ["--workers", "2", "--reward-json", "{}", "--templates", f"{tmp_path}/mine.toml"]
    settings = settings_of([*recipe, *more])
    async with inline_server(**settings.model_dump()) as http:
        assert (await http.get("/readyz")).json()["workers"] == 2
        assert (await http.post("/v1/grade", json=mine | wrong)).json()["reward"] == 1.0


async def test_a_full_queue_is_429_with_retry_after() -> None:
    async with inline_server(max_queue=4) as http:
        response = await http.post("/v1/grade/batch", json={"items": [FOUR] * 5})
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) >= 1
        assert "queue is full" in response.json()["detail"]
        assert (await http.post("/v1/grade/batch", json={"items": [FOUR] * 4})).status_code == 200
        metrics = (await http.get("/metrics")).text
    assert 'chorus_reward_server_refused_requests_total{reason="queue_full"} 1.0' in metrics


async def test_a_bearer_token_guards_v1_and_leaves_the_probes_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHORUS_REWARD_TOKEN", "secret")
    async with inline_server(token=settings_of([]).token) as http:
        assert (await http.post("/v1/grade", json=FOUR)).status_code == 401
        wrong, right = ({"authorization": f"Bearer {word}"} for word in ("secre", "secret"))
        assert (await http.post("/v1/grade", json=FOUR, headers=wrong)).status_code == 401
        assert (await http.post("/v1/grade", json=FOUR, headers=right)).json()["verdict"] == "correct"
        assert (await http.get("/metrics")).status_code == 200


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_the_limit_is_413_whether_its_length_was_declared_or_not(declared: bool) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(21):
            yield b" " * 100

    async with inline_server(max_body_bytes=2000) as http:
        response = await http.post("/v1/grade", content=b" " * 2001 if declared else parts())
        assert response.status_code == 413
        assert "larger than this server's limit of 2000 bytes" in response.json()["detail"]
        assert (await http.post("/v1/grade", json=FOUR)).json()["verdict"] == "correct"


async def test_a_group_of_16_answers_of_32k_tokens_is_within_the_limit_even_as_escaped_json() -> None:
    thought = "\u4e00" * 49_152  # a token holds one such character or two, and JSON takes six bytes for each
    items = [{"completion": f"{thought} \\boxed{{{k}}}", "gold": "4", "template": "qwen-math"} for k in range(16)]
    async with inline_server() as http:
        headers = {"content-type": "application/json"}
        response = await http.post("/v1/grade/batch", content=json.dumps({"items": items}), headers=headers)
    verdicts = [result["verdict"] for result in response.json()["results"]]
    assert verdicts == ["correct" if k == 4 else "wrong" for k in range(16)]


async def test_of_interleaved_blocks_the_last_answer_is_graded_and_earlier_ones_are_found() -> None:
    two = "<think>3 + 4 = 7</think><answer>7</answer><think>7 - 5 = 2</think><answer>\\boxed{2}</answer>"
    asked = {"completion": two, "gold": "2", "template": "interleaved", "sub_answers": ["7", "3"]}
    async with inline_server() as http:
        right = (await http.post("/v1/grade", json=asked)).json()
        wrong = (await http.post("/v1/grade", json=asked | {"gold": "7"})).json()
        broken = (await http.post("/v1/grade", json=asked | {"completion": two + "<think>"})).json()
        plain = (await http.post("/v1/grade", json=FOUR)).json()
    assert (right["verdict"], right["format"], right["sub_answers"]) == ("correct", 1.0, [1, 0])
    assert wrong["verdict"] == "wrong"
    assert (broken["format"], broken["sub_answers"]) == (0.0, [0, 0])
    assert plain.get("sub_answers") is None
