"""What a generator makes of the reward server's answers: grades, another try, or a refusal with its reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rollouts import ready, sample

from chorus.generator.reward_client import GradeRefused, RewardServer, read_grades

RIGHT = {"verdict": "correct", "accuracy": 1.0, "format": 1.0, "reward": 2.0, "refused": False}
REFUSED = {"verdict": "error", "accuracy": None, "format": None, "reward": None, "refused": True, "reason": "no gold"}


def body(*results: dict[str, Any]) -> bytes:
    return json.dumps({"results": results}).encode()


def test_a_sample_that_could_not_be_graded_has_no_accuracy() -> None:
    grades = read_grades("http://reward", 200, body(RIGHT, REFUSED), 2)
    assert grades is not None
    assert [(g.verdict, g.accuracy) for g in grades] == [("correct", 1.0), ("error", None)]


def test_a_group_of_which_nothing_can_be_graded_is_refused_with_the_reason() -> None:
    with pytest.raises(GradeRefused, match="http://reward: no gold"):
        read_grades("http://reward", 200, body(REFUSED, REFUSED), 2)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_asked_again(status: int) -> None:
    assert read_grades("http://reward", status, b"", 2) is None


async def test_a_reward_server_that_stays_away_gives_no_accuracy() -> None:
    server = RewardServer("http://127.0.0.1:9", deadline_s=0.1)  # where nobody listens
    try:
        grades = await server.grade(ready([sample()] * 2).group.task, ["a", "b"])
    finally:
        await server.close()
    assert [(g.verdict, g.accuracy, g.format) for g in grades] == [("error", None, None)] * 2
