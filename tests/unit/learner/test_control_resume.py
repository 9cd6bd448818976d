"""Gates, coefficients and resets of a run that is killed and resumed are those that its steps give in their order."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import redis
from paperlearner import config_of, start

from chorus.learner.training.control import Control
from chorus.protocol.config.run import RunConfig
from chorus.protocol.run_folder.files import read_lines
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.rollouts import read_step, stored_steps

SECTIONS: dict[str, dict[str, Any]] = {
    "run": {"steps": 6},
    "model": {"context": 900},
    "templates": {"names": ["interleaved"]},
    "objective": {"name": "grpo", "kl_coefficient": 0.1},
    "reference": {"every": 2},
    "reward": {"short": {}, "interleaved": {}},
    "learner": {"groups_per_step": 2, "collect_deadline_s": 5.0, "checkpoint_every": 3},
}
TOLD = ("short_gate", "interleaved_gate", "accuracy_best", "reference_reset", "reference_resets", "reference_age")
# Steps of accuracy 1, 0.5, 0, 1, 0.5, 0: each gate opens and closes.
RIGHT = {0: (1.0,), 1: (1.0,), 2: (1.0, 0.0), 3: (1.0, 0.0), 4: (0.0,), 5: (0.0,)}


class Killed(BaseException):
    """What no handler of the learner's catches."""


def told(run: RunFolder, config: RunConfig) -> list[tuple[Any, ...]]:
    """What the run's steps are told where nothing comes between them."""
    control = Control(config, lambda _: [])
    found = []
    for step, path in stored_steps(run):
        figures = control.figures(step, control.at(step, read_step(path)))
        found.append(tuple(figures[name] for name in TOLD))
    return found


@pytest.mark.parametrize("name", ["none", "record", "train", "trained", "publish", "manifest", "durable", "reset"])
def test_a_killed_run_has_the_decisions_and_the_reference_of_an_unbroken_one(
    client: redis.Redis, tiny_model: Path, tmp_path: Path, name: str
) -> None:
    hops = tmp_path / "hops.jsonl"
    rows = [{"id": f"p{k}", "problem": f"{k}?", "answer": "7", "sub_answers": ["3"]} for k in range(40)]
    hops.write_text("".join(json.dumps(row) + "\n" for row in rows))
    problems = {"train": [str(hops)], "max_prompt_tokens": 800}
    config = config_of(tiny_model, tmp_path, **SECTIONS, problems=problems)
    seen: Counter[str] = Counter()

    def dies(change: str) -> None:
        """In the fifth step, which is trained after the checkpoint of the third, or where the second of a kind is."""
        seen[change] += 1
        if change == name and (seen[change] == 2 if name in ("manifest", "durable", "reset") else seen["train"] == 5):
            raise Killed

    learner, parts = start(client, config, tmp_path, dies, lambda index: RIGHT[index % 6])
    if name == "none":
        learner.run()
    else:
        with pytest.raises(Killed):
            learner.run()
        learner, parts = start(client, config, tmp_path, accuracies=lambda index: RIGHT[index % 6])
        learner.run()
    run = RunFolder(tmp_path)
    records = read_lines(run.metrics)
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert [tuple(record[key] for key in TOLD) for record in records] == told(run, config)
    assert [record["step"] for record in records if record["reference_reset"]] == [3, 5]
    assert {record["short_gate"] for record in records} == {record["interleaved_gate"] for record in records} == {0, 1}
    trained: list[int] = parts.ranks.trained  # type: ignore[attr-defined]
    assert parts.ranks.reference_is == trained[:8], "as it was after step 4"  # type: ignore[attr-defined]
