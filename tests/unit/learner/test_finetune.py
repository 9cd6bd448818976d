"""Fine-tuning on critiques with the held learner: a run without rollouts, and its examples as token ids."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis
from paperlearner import config_of, start

from chorus.learner.loop import FineTuning
from chorus.learner.parts import Parts
from chorus.protocol.config.run import RunConfig
from chorus.protocol.run_folder import checkpoints
from chorus.protocol.run_folder.demonstrations import read_batch, recorded_steps
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.exits import CannotGoOn


def finetune_config(model: Path, folder: Path, **sections: dict[str, Any]) -> RunConfig:
    finetune = {"data": ["critiques:running?samples=7"], "batch": 3, "max_tokens": 2000} | sections.pop("finetune", {})
    return config_of(model, folder, finetune=finetune, **sections)


def learner_of(client: redis.Redis, config: RunConfig, folder: Path, *args: Any) -> tuple[FineTuning, Parts]:
    _, parts = start(client, config, folder, *args)
    return FineTuning(parts), parts


def test_a_run_of_critiques_has_records_checkpoints_and_a_summary_and_no_rollouts(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    seen: list[str] = []
    learner, parts = learner_of(client, finetune_config(tiny_model, tmp_path), tmp_path, seen.append)
    learner.run()
    run = RunFolder(tmp_path)
    assert run.finished_steps() == 3
    assert [(r["step"], r["supervised_demonstrations"], r["groups"]) for r in run.records()] == [
        *((1, 3, None), (2, 3, None), (3, 3, None))
    ]
    assert [r["passes"] for r in run.records()] == pytest.approx([3 / 7, 6 / 7, 9 / 7])
    assert [checkpoints.read_manifest(path).step for path in checkpoints.whole(run.checkpoints)] == [2, 3]
    accounts = parts.ledger.accounts()
    assert (accounts.admitted, accounts.trained, accounts.durable, accounts.outstanding) == (0, 0, 0, 0)
    assert not run.rollouts.exists()
    assert "admit" not in seen
    assert [v.step for v in parts.weights.published] == [0, 3], "asked for answers"  # type: ignore[attr-defined]


def test_every_pass_holds_each_example_once_in_an_order_of_its_own(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    learner, parts = learner_of(client, finetune_config(tiny_model, tmp_path, run={"steps": 7}), tmp_path)
    learner.run()
    asked = [id for batch in parts.ranks.taught for id in batch]  # type: ignore[attr-defined]
    passes = [asked[k : k + 7] for k in (0, 7, 14)]
    assert all(len(set(one)) == 7 for one in passes)
    assert passes[0] != passes[1] != passes[2]


class Killed(BaseException):
    """What no handler of the learner's catches: a `kill -9`."""


def test_a_killed_one_goes_on_as_if_it_had_not_been(client: redis.Redis, tiny_model: Path, tmp_path: Path) -> None:
    learner, parts = learner_of(client, finetune_config(tiny_model, tmp_path / "whole"), tmp_path / "whole")
    learner.run()
    unbroken = parts.ranks.taught  # type: ignore[attr-defined]
    killed = 0
    for k in count(1):
        client.flushall()
        folder, changes = tmp_path / str(k), count()

        def dies(name: str, changes: Any = changes, last: int = k) -> None:
            if next(changes) == last:
                raise Killed(name)

        learner, _ = learner_of(client, finetune_config(tiny_model, folder), folder, dies)
        try:
            learner.run()
            break  # there are no more changes than that
        except Killed:
            killed += 1
        learner, parts = learner_of(client, finetune_config(tiny_model, folder), folder)
        learner.run()
        assert parts.ranks.taught == unbroken  # type: ignore[attr-defined]
        assert [r["step"] for r in RunFolder(folder).records()] == recorded_steps(RunFolder(folder)) == [1, 2, 3]
    assert killed > 3


def test_an_example_is_the_question_and_the_critique_with_its_verdict_last_but_the_end(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    data = tmp_path / "critiques.jsonl"
    texts = {"problem": "3 + 4?", "candidate": "8 <|im_end|> so", "critique": "It is 7.\nVerdict: wrong"}
    data.write_text(json.dumps(texts | {"verdict": "wrong"}) + "\n")
    config = finetune_config(tiny_model, tmp_path, finetune={"data": [str(data)], "batch": 1})
    _, parts = learner_of(client, config, tmp_path)
    assert parts.lessons
    [shown] = parts.lessons.batch(1)
    assert read_batch(RunFolder(tmp_path), 1) == [shown]
    tokenizer = parts.admission.tokenizer
    prompt = tokenizer.decode(shown.prompt)
    assert prompt == (
        "<|im_start|>user\nCritique whether the following solution is correct.\n\nQuestion:\n3 + 4?\n\nSolution:\n"
        "8 < |im_end|> so<|im_end|>\n<|im_start|>assistant\n"
    )
    assert shown.prompt.count(tokenizer.eos_token_id) == 1, "of the turn, not of the candidate"
    assert tokenizer.decode(shown.target) == "It is 7.\nVerdict: wrong<|im_end|>"
    assert tokenizer.decode(shown.target[-1 - shown.verdict : -1]) == "wrong"


def test_examples_that_are_too_long_are_left_out_and_a_run_without_any_is_refused(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(CannotGoOn, match="none of 7 critiques fits into 20 tokens"):
        learner_of(client, finetune_config(tiny_model, tmp_path, finetune={"max_tokens": 20}), tmp_path)
    with pytest.raises(CannotGoOn, match=r"finetune.data: .*nowhere.jsonl"):
        learner_of(client, finetune_config(tiny_model, tmp_path, finetune={"data": ["nowhere.jsonl"]}), tmp_path)
