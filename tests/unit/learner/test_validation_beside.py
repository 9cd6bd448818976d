"""A validation whose answers come while the learner trains on: it decides when its line says, whenever they came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis
from paperlearner import Hands, config_of, start

from chorus.learner.loop import Learner
from chorus.protocol.config.load import ConfigError
from chorus.protocol.config.run import RunConfig
from chorus.protocol.run_folder import checkpoints
from chorus.protocol.run_folder.files import read_lines
from chorus.protocol.run_folder.folder import RunFolder

NEVER = 10**6  # before it is waited for


def asking(model: Path, folder: Path, steps: int = 7, **evaluation: int) -> RunConfig:
    folder.mkdir(exist_ok=True)
    held = folder / "held.jsonl"
    held.write_text('{"problem": "40?", "answer": "7"}\n')
    asked = {"every": 3, "decides_after": 2, "validation_problems": 1, "samples": 1} | evaluation
    return config_of(model, folder, run={"steps": steps}, evaluation=asked, problems={"validation": [str(held)]})


def decisions(learner: Learner) -> list[tuple[int, int]]:
    """(step at whose end a validation decides, the step that it measures), filled while the learner runs."""
    told: list[tuple[int, int]] = []
    stages = learner.parts.admission.stages
    real = stages.take_validation

    def take(step: int, accuracy: float) -> None:
        told.append((learner.parts.done, step))
        real(step, accuracy)

    stages.take_validation = take  # type: ignore[method-assign]
    return told


@pytest.mark.parametrize("late", [0, 3, NEVER], ids=["answered at once", "later", "when it is waited for"])
@pytest.mark.parametrize("spare", [1, 0], ids=["beside training", "in turns"])
def test_a_validation_decides_at_the_step_that_its_line_names_whenever_its_answers_come(
    client: redis.Redis, tiny_model: Path, tmp_path: Path, spare: int, late: int
) -> None:
    learner, parts = start(client, asking(tiny_model, tmp_path), tmp_path, spare=spare, late=late)
    told = decisions(learner)
    learner.run()
    assert told == [(5, 3)], "that of step 6 would decide after the last one"
    lines = parts.evaluations.validations()
    assert [(line["step"], line["decides_at"]) for line in lines] == [(3, 5), (6, 8), (7, 9)]
    assert (parts.evaluations.ledger.accounts().outstanding, parts.evaluations.ledger.accounts().difference) == (0, 0)
    assert sorted(parts.ranks.trained) == list(range(14))  # type: ignore[attr-defined]


def test_training_goes_on_until_a_validation_is_to_decide_and_waits_then(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    seen: list[str] = []
    learner, parts = start(client, asking(tiny_model, tmp_path), tmp_path, seen.append, spare=1, late=NEVER)
    learner.life.begin()
    for _ in range(4):
        learner.step()
    assert seen.count("hold") == 1
    assert parts.evaluations.validations() == []
    assert isinstance(parts.weights, Hands)
    assert parts.weights.held
    assert parts.weights.held.step == 3
    learner.step()
    assert [line["step"] for line in parts.evaluations.validations()] == [3]
    assert parts.weights.held is None, "it samples for the training again"


def test_without_a_generator_to_spare_training_waits_for_the_answers(
    client: redis.Redis, tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    learner, parts = start(client, asking(tiny_model, tmp_path), tmp_path, spare=0, late=NEVER)
    learner.life.begin()
    for _ in range(3):
        learner.step()
    assert [line["step"] for line in parts.evaluations.validations()] == [3]
    assert "step 3: no generator can be spared for its validation; training waits" in caplog.messages


def test_where_all_who_had_the_weights_have_gone_they_are_given_again_under_a_new_fence(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    seen: list[str] = []
    learner, parts = start(client, asking(tiny_model, tmp_path), tmp_path, seen.append, spare=1, late=NEVER)
    fence = parts.ledger.fence
    learner.life.begin()
    for _ in range(4):
        learner.step()
    parts.weights.leaves = True  # type: ignore[attr-defined]
    while parts.done < 7:
        learner.step()
    learner.life.end()
    assert seen.count("hold again") == 1
    assert parts.ledger.fence == parts.evaluations.ledger.fence == fence + 1
    assert [line["step"] for line in parts.evaluations.validations()] == [3, 6, 7]
    assert parts.ledger.accounts().difference == 0


def test_who_was_given_the_old_weights_again_gets_the_newest_ones_after_the_answers_though_no_step_follows(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    """Under the fence at which it has the old ones: else they would be newer than the newest."""
    learner, parts = start(client, asking(tiny_model, tmp_path), tmp_path, spare=1, late=NEVER)
    fence = parts.ledger.fence
    learner.life.begin()
    for _ in range(4):
        learner.step()
    parts.weights.leaves = True  # type: ignore[attr-defined]
    learner.life.hear()
    newest = parts.weights.published[-1]  # type: ignore[attr-defined]
    assert (newest.fence, newest.step) == (fence + 1, 4)


def test_answers_from_who_stayed_make_no_other_version(client: redis.Redis, tiny_model: Path, tmp_path: Path) -> None:
    learner, parts = start(client, asking(tiny_model, tmp_path), tmp_path, spare=1, late=NEVER)
    learner.life.begin()
    for _ in range(4):
        learner.step()
    published = list(parts.weights.published)  # type: ignore[attr-defined]
    learner.life.hear()
    assert parts.weights.published == published  # type: ignore[attr-defined]


def test_a_learner_that_is_asked_to_stop_leaves_word_of_the_validation_under_way_and_the_next_one_makes_it(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    config = asking(tiny_model, tmp_path)
    learner, parts = start(client, config, tmp_path, spare=1, late=NEVER)
    learner.life.begin()
    for _ in range(4):
        learner.step()
    learner.life.leave()
    newest = checkpoints.read_manifest(checkpoints.folder_of(tmp_path / "checkpoints", 4))
    assert newest.methods["validation"] == {"step": 3, "version": 3}
    assert checkpoints.folder_of(tmp_path / "checkpoints", 3) in checkpoints.loadable(tmp_path / "checkpoints")
    again, parts = start(client, config, tmp_path, spare=1)
    told = decisions(again)
    again.life.begin()
    assert [version.step for version in parts.weights.published] == [3, 4]  # type: ignore[attr-defined]
    assert sorted(parts.ranks.trained) == list(range(8)), "the newest weights are back"  # type: ignore[attr-defined]
    while parts.done < 7:
        again.step()
    assert told == [(5, 3)]
    assert [line["step"] for line in parts.evaluations.validations()] == [3, 6, 7]


def test_a_way_back_waits_for_the_validation_under_way_and_one_that_decides_then_decides(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    config = asking(tiny_model, tmp_path, steps=6, every=2, decides_after=2)
    alarms = {"on_collapse": "rollback", "entropy_floor": 5.0, "entropy_steps": 4, "max_rollbacks": 1}
    config = RunConfig.model_validate(config.model_dump() | {"alarms": alarms})
    learner, parts = start(client, config, tmp_path, spare=1, late=NEVER)
    look = parts.recorder.alarms.look
    parts.recorder.alarms.look = lambda record: look(record | {"entropy": 1.0})  # type: ignore[method-assign]
    told = decisions(learner)
    learner.run()
    assert checkpoints.rollbacks(tmp_path / "checkpoints") == [4]
    assert told == [(4, 2), (6, 4)]
    lines = [line["step"] for line in parts.evaluations.validations()]
    assert lines == [2, 4, 6], "that of step 4 is of the weights that the run went on with"
    assert parts.ledger.accounts().difference == parts.evaluations.ledger.accounts().difference == 0


class Killed(BaseException):
    """What no handler of the learner's catches: a `kill -9`."""


def test_killed_before_a_change_of_the_world_each_validation_is_made_once_and_decides_as_it_would_have(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    """A stage that ends by a plateau of validations: where it ends shows what they have decided, and when. Every
    seventh change is tried, of which there are other ones in each step."""
    k, ends = 0, set()
    while True:
        client.flushall()
        folder = tmp_path / str(k)
        config = asking(tiny_model, folder, steps=4, every=1, decides_after=1)
        plateau = {"figure": "validation_accuracy", "window": 1, "gain": 0.0}
        stages = [{"name": "first", "plateau": plateau}, {"name": "second"}]
        config = RunConfig.model_validate(config.model_dump() | {"curriculum": {"stages": stages}})
        changes = iter(range(10**6))

        def dies(name: str, changes: Any = changes, last: int = k) -> None:
            if next(changes) == last:
                raise Killed(name)

        learner, parts = start(client, config, folder, dies, spare=1, late=3)
        died = False
        try:
            learner.run()
        except Killed:
            died = True
            again, parts = start(client, config, folder, spare=1, late=3)
            again.run()
        lines = read_lines(RunFolder(folder).validations)
        assert [(v["step"], v["decides_at"]) for v in lines] == [(s, s + 1) for s in range(1, 5)], f"change {k}"
        assert sorted(parts.ranks.trained) == list(range(8)), f"change {k}"  # type: ignore[attr-defined]
        accounts = parts.ledger.accounts()
        assert (accounts.durable, accounts.outstanding, accounts.difference) == (8, 0, 0)
        ends.add(tuple(begun.step for begun in parts.admission.stages.starts))
        if not died:
            break
        k += 7
    assert k > 35
    assert len(ends) == 1, "the stage ends where it would have"
    assert len(next(iter(ends))) == 2


def test_a_validation_that_would_decide_after_the_next_one_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, ValueError), match=r"evaluation.decides_after \(4\) is more than .+ \(3\)"):
        asking(tiny_model, tmp_path, decides_after=4)
