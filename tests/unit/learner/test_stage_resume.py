"""A learner that is killed at any point of a run with stages goes on in the right one: every step trains with the
settings that it would have had."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis
from paperlearner import RUN, config_of, start

from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.start import take_up

STAGES = [
    {"name": "math", "steps": 2, "lr": 1e-6},
    {"name": "code", "steps": 2, "lr": 5e-6, "group_size": 3, "temperature": 0.6, "reset_optimizer": True},
    {"name": "rest", "lr": 2e-6, "group_size": 4},
]


class Killed(BaseException):
    """What no handler of the learner's catches."""


def run(client: redis.Redis, model: Path, folder: Path, stop_at: int | None = None) -> list[dict[str, Any]] | None:
    """The settings of its steps, or None where it was killed at the `stop_at`-th change of the world."""
    world = count(1)

    def hook(name: str) -> None:
        if next(world) == stop_at:
            raise Killed(name)

    config = config_of(model, folder, run={"steps": 7}, curriculum={"stages": STAGES})
    take_up(client, RunFolder(folder), RUN, resume=True)
    learner, parts = start(client, config, folder, hook)
    try:
        learner.run()
    except Killed:
        return None
    return parts.ranks.settings  # type: ignore[attr-defined]


@pytest.fixture
def whole(client: redis.Redis, tiny_model: Path, tmp_path: Path) -> list[dict[str, Any]]:
    found = run(client, tiny_model, tmp_path / "whole")
    client.flushall()
    assert found is not None
    return found


def test_rates_follow_the_plan_in_order_and_the_optimizer_is_forgotten_once(whole: list[dict[str, Any]]) -> None:
    rates = [settings["lr"] for settings in whole]
    assert list(dict.fromkeys(rates)) == [1e-6, 5e-6, 2e-6]
    assert rates.count(1e-6) >= 2
    resets = [settings["reset_optimizer"] for settings in whole]
    assert resets.index(True) == rates.index(5e-6)
    assert sum(resets) == 1


@pytest.mark.parametrize("stop_at", [12, 20, 24, 27, 30, 33, 38, 44])
def test_killed_anywhere_it_trains_every_step_as_it_would_have(
    client: redis.Redis, tiny_model: Path, tmp_path: Path, whole: list[dict[str, Any]], stop_at: int
) -> None:
    folder = tmp_path / "cut"
    assert run(client, tiny_model, folder, stop_at) is None
    again = run(client, tiny_model, folder)
    assert again == whole
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 7
