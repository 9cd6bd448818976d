"""Clusters of equal answers travel with the group where the objective needs them; where they fail, verdicts stand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from rollouts import ready, sample

from chorus.generator.reward_client import RewardServer
from chorus.protocol.messages import RolloutGroup, Task

GRADES = [{"verdict": "correct", "accuracy": 1.0, "format": 1.0, "reward": 2.0}] * 4
TEXTS = ["a", "b", "c", "d"]


def task() -> Task:
    return ready([sample()] * 4).group.task


Server = Callable[[bool, web.Response], Awaitable[tuple[RewardServer, list[str]]]]


@pytest.fixture
async def serve() -> AsyncIterator[Server]:
    """Start a server that grades and answers /v1/cluster with a given response; it notes what it was asked for."""
    closing: list[Callable[[], Awaitable[object]]] = []

    async def start(clusters: bool, answer: web.Response) -> tuple[RewardServer, list[str]]:
        asked: list[str] = []

        async def handle(request: web.Request) -> web.Response:
            asked.append(request.path)
            if request.path == "/v1/cluster":
                assert await request.json() == {"completions": TEXTS, "kind": "math"}
                return answer
            return web.json_response({"results": GRADES})

        app = web.Application()
        app.router.add_post("/{path:.*}", handle)
        server = TestServer(app)
        await server.start_server()
        made = RewardServer(str(server.make_url("")), 5.0, clusters)
        closing.extend((made.close, server.close))
        return made, asked

    yield start
    for close in closing:
        await close()


async def test_equal_answers_share_a_number_and_each_missing_answer_has_its_own(serve: Server) -> None:
    answer = {"clusters": [0, 1, 1, 0], "extracted": ["7", None, None, "7.0"], "method": "equivalence"}
    made, _ = await serve(True, web.json_response(answer))
    numbers = [g.cluster for g in await made.grade(task(), TEXTS)]
    assert numbers[0] == numbers[3]
    assert len(set(numbers)) == 3
    assert None not in numbers


async def test_nobody_is_asked_where_the_objective_does_not_need_clusters(serve: Server) -> None:
    made, asked = await serve(False, web.Response(status=500))
    assert [g.cluster for g in await made.grade(task(), TEXTS)] == [None] * 4
    assert asked == ["/v1/grade/batch"]


async def test_verdicts_stand_though_the_clusters_failed(serve: Server) -> None:
    short = web.json_response({"clusters": [0], "extracted": ["7"]})
    for answer in (web.Response(status=500), web.Response(text="no json"), short):
        made, _ = await serve(True, answer)
        grades = await made.grade(task(), TEXTS)
        assert [(g.accuracy, g.cluster) for g in grades] == [(1.0, None)] * 4


@pytest.mark.parametrize("mode", ["paper", "train"])
async def test_the_recipes_mode_goes_with_grades_and_clusters_and_the_usual_one_is_not_named(mode: str) -> None:
    bodies = []

    async def handle(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return web.json_response({"results": GRADES, "clusters": [0, 0, 0, 0], "extracted": ["7"] * 4})

    app = web.Application()
    app.router.add_post("/{path:.*}", handle)
    async with TestServer(app) as server:
        made = RewardServer(str(server.make_url("")), 5.0, clusters=True, mode=mode)
        await made.grade(task(), TEXTS)
        await made.close()
    graded, clustered = bodies
    sent = {item.get("mode") for item in [*graded["items"], clustered]}
    assert sent == ({"paper"} if mode == "paper" else {None})


def test_clusters_are_part_of_the_message_and_an_older_message_has_none() -> None:
    group = ready([sample(cluster=0), sample(cluster=3)]).group
    assert [s.grade.cluster for s in RolloutGroup.decode(group.encode()).samples] == [0, 3]
    fields = group.samples[0].grade.model_dump()
    del fields["cluster"]
    assert type(group.samples[0].grade).model_validate(fields).cluster is None
