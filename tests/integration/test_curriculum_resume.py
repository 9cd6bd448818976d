"""kill -9 of the learner in a run with stages: the one that follows goes on in the stage that had begun."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from liverun import end_run
from scriptedlive import start_scripted_run

from chorus.learner.rollouts.admission import Admission
from chorus.protocol.config.load import load_config
from chorus.protocol.run_folder.rollouts import read_step, stored_steps

STEPS = 9
STAGES: list[dict[str, Any]] = [
    {"name": "easy", "levels": [1], "steps": 1},
    {"name": "hinted", "levels": [2], "hint_ratio": 0.5, "max_tokens": 12},
]
pytestmark = pytest.mark.slow


def test_a_killed_learner_resumes_in_the_right_stage_with_the_same_draws(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {
            "id": f"p{k}",
            "problem": f"{k}?",
            "answer": "7",
            "level": 1 + k % 2,
            "solution": "Three and four make 7",
        }
        for k in range(20)
    ]
    source = tmp_path / "train.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("CHORUS_PROBLEMS__TRAIN", json.dumps([str(source)]))
    monkeypatch.setenv("CHORUS_CURRICULUM", json.dumps({"stages": STAGES, "hints": {"probe_share": 0}}))
    run = start_scripted_run(tmp_path, tiny_model, steps=STEPS, replicas=1)
    try:
        # Before the checkpoint of step 5, so that the steps since the stage began are undone and trained again.
        run.wait_step(1, 240)
        run.until(lambda: (run.folder / "stages.json").is_file(), "the second stage", 60)
        begun = json.loads((run.folder / "stages.json").read_text())
        run.wait_step(2, 60)
        (learner,) = run.processes("chorus.cli.main", "learner")
        learner.kill()
        run.until(lambda: run.processes("chorus.cli.main", "learner", "--resume"), "a second learner", 60)
        assert run.finish(180) == 0, run.tail()
    finally:
        end_run(run)
    assert json.loads((run.folder / "stages.json").read_text()) == begun
    assert [s["name"] for s in begun] == ["easy", "hinted"]

    admission = Admission(load_config(run.folder / "config.json"), run.folder.name)
    admission.open(run.folder)
    tasks = [r.group.task for _, path in stored_steps(run.folder) for r in read_step(path)]
    assert set(Counter(t.index for t in tasks).values()) == {1}
    assert len(tasks) == STEPS * 4
    for task in tasks:
        expected = admission.task(task.index, 0)
        assert (task.problem_id, task.prompt_ids, task.hint_ratio) == (
            expected.problem_id,
            expected.prompt_ids,
            expected.hint_ratio,
        )
        late = task.index >= begun[1]["index"]
        assert task.hint_ratio == (0.5 if late else 0.0)
        assert int(task.problem_id[1:]) % 2 == late
        assert task.sampling.max_tokens == (12 if late else 16)
    stages = [json.loads(line)["stage_number"] for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert len(stages) == STEPS
    assert stages == sorted(stages)
    assert set(stages) == {0, 1}
