"""Clusters of equal answers travel with the group where the objective needs them; where they fail, verdicts stand."""

from __future__ import annotations

import json

import httpx
from rollouts import ready, sample

from generator.groups import RewardServer
from protocol.messages import RolloutGroup, Task

GRADES = [{"verdict": "correct", "accuracy": 1.0, "format": 1.0, "reward": 2.0}] * 4
TEXTS = ["a", "b", "c", "d"]


def task() -> Task:
    return ready([sample()] * 4).group.task


def server(clusters: bool, answer: httpx.Response) -> tuple[RewardServer, list[str]]:
    """A reward server that grades, and answers /v1/cluster with `answer`; and the paths that it was asked for."""
    asked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        if request.url.path == "/v1/cluster":
            assert json.loads(request.content) == {"completions": TEXTS, "kind": "math"}
            return answer
        return httpx.Response(200, json={"results": GRADES})

    made = RewardServer("http://reward", 5.0, clusters)
    made._http = httpx.AsyncClient(transport=httpx.MockTransport(handle))
    return made, asked


async def test_equal_answers_share_a_number_and_each_missing_answer_has_its_own() -> None:
    answer = {"clusters": [0, 1, 1, 0], "extracted": ["7", None, None, "7.0"], "method": "equivalence"}
    made, _ = server(True, httpx.Response(200, json=answer))
    numbers = [g.cluster for g in await made.grade(task(), TEXTS)]
    assert numbers[0] == numbers[3]
    assert len(set(numbers)) == 3
    assert None not in numbers


async def test_nobody_is_asked_where_the_objective_does_not_need_clusters() -> None:
    made, asked = server(False, httpx.Response(500))
    assert [g.cluster for g in await made.grade(task(), TEXTS)] == [None] * 4
    assert asked == ["/v1/grade/batch"]


async def test_verdicts_stand_though_the_clusters_failed() -> None:
    short = httpx.Response(200, json={"clusters": [0], "extracted": ["7"]})
    for answer in (httpx.Response(500), httpx.Response(200, text="no json"), short):
        made, _ = server(True, answer)
        grades = await made.grade(task(), TEXTS)
        assert [(g.accuracy, g.cluster) for g in grades] == [(1.0, None)] * 4


def test_clusters_are_part_of_the_message_and_an_older_message_has_none() -> None:
    group = ready([sample(cluster=0), sample(cluster=3)]).group
    assert [s.grade.cluster for s in RolloutGroup.decode(group.encode()).samples] == [0, 3]
    fields = group.samples[0].grade.model_dump()
    del fields["cluster"]
    assert type(group.samples[0].grade).model_validate(fields).cluster is None
