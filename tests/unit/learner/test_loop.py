"""The order of a step, and what a learner does beside its steps: without a model, an engine or another process."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import redis
from paperlearner import config_of, start

from chorus.protocol.run_folder import checkpoints
from chorus.protocol.run_folder.files import read_lines
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.exits import CannotGoOn


def test_a_step_is_recorded_before_it_trains_and_published_before_its_metrics_and_its_checkpoint(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    seen: list[str] = []
    config = config_of(tiny_model, tmp_path, run={"steps": 1})
    learner, _ = start(client, config, tmp_path, seen.append)
    learner.life.begin()
    seen.clear()
    learner.step()
    learner.life.settle()
    first = seen.index("record")
    assert [name for name in seen[first:] if name != "admit"] == [
        *("record", "train", "trained", "publish"),
        *("record", "manifest", "durable", "trim"),
    ]
    assert seen.index("trained") < seen.index("admit", first) < seen.index("publish"), "freed credits are used at once"


def test_what_a_steps_answers_tell_is_measured_while_it_trains(
    client: redis.Redis, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    learner, parts = start(client, config_of(tiny_model, tmp_path, run={"steps": 1}), tmp_path, seen.append)
    begin = parts.recorder.begin
    monkeypatch.setattr(parts.recorder, "begin", lambda groups: (seen.append("begin"), begin(groups)))
    learner.run()
    assert seen.index("begin") < seen.index("train")
    [record] = RunFolder(tmp_path).records()
    assert record["diversity"]["distinct_solutions"] == 1.0
    assert record["repetition"] == 0.0


def test_a_whole_run_trains_every_group_once_and_sums_itself_up(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    config = config_of(tiny_model, tmp_path, redis={"url": "redis://:wordofmouth@127.0.0.1:1/0"})
    learner, parts = start(client, config, tmp_path)
    learner.run()
    run = RunFolder(tmp_path)
    assert run.finished_steps() == 3
    assert [p for p in tmp_path.rglob("*") if p.is_file() and b"wordofmouth" in p.read_bytes()] == []
    assert [r["step"] for r in run.records()] == [1, 2, 3]
    assert [checkpoints.read_manifest(path).step for path in checkpoints.whole(run.checkpoints)] == [2, 3]
    assert sorted(parts.ranks.trained) == list(range(6))  # type: ignore[attr-defined]
    accounts = parts.ledger.accounts()
    assert (accounts.durable, accounts.outstanding, accounts.difference) == (6, 0, 0)
    assert json.loads(run.status.read_text()) == {"phase": "done", "detail": ""}


class Killed(BaseException):
    """What no handler of the learner's catches: a `kill -9`."""


@pytest.mark.parametrize("looks", [0, 2], ids=["checkpoints at once", "checkpoints beside the training"])
def test_a_learner_killed_before_any_change_of_the_world_is_followed_by_one_that_loses_and_doubles_nothing(
    client: redis.Redis, tiny_model: Path, tmp_path: Path, looks: int
) -> None:
    held = tmp_path / "held.jsonl"
    held.write_text('{"problem": "40?", "answer": "7"}\n')
    validating = {"every": 2, "validation_problems": 1, "samples": 1}
    k = 0
    while True:
        client.flushall()
        folder = tmp_path / str(k)
        config = config_of(tiny_model, folder, evaluation=validating, problems={"validation": [str(held)]})
        changes = count()

        def dies(name: str, changes: Iterator[int] = changes, last: int = k) -> None:
            if next(changes) == last:
                raise Killed(name)

        learner, _ = start(client, config, folder, dies, looks=looks)
        try:
            learner.run()
        except Killed:
            again, parts = start(client, config, folder, looks=looks)
            again.run()
        else:
            break
        assert sorted(parts.ranks.trained) == list(range(6)), f"killed before change {k}"  # type: ignore[attr-defined]
        entries = [id for path in checkpoints.whole(folder / "checkpoints") for id in _entries(path)]
        assert len(entries) == len(set(entries)) == 6
        accounts = parts.ledger.accounts()
        assert (accounts.admitted, accounts.durable, accounts.outstanding, accounts.difference) == (6, 6, 0, 0)
        assert [r["step"] for r in read_lines(RunFolder(folder).metrics)] == [1, 2, 3], "each recorded once"
        assert [v["step"] for v in parts.evaluations.validations()] == [2, 3]
        k += 1
    assert k > 20, "every change of three steps was tried"


def _entries(path: Path) -> list[str]:
    return checkpoints.read_manifest(path).all_entries


def test_what_a_checkpoint_holds_is_acknowledged_once_it_is_on_the_disk_and_training_goes_on_meanwhile(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    seen: list[str] = []
    config = config_of(tiny_model, tmp_path, run={"steps": 9}, learner={"checkpoint_every": 2})
    learner, parts = start(client, config, tmp_path, seen.append, looks=99)
    learner.life.begin()
    for _ in range(3):
        learner.step()
    assert "manifest" not in seen
    assert parts.ledger.accounts().durable == 0
    learner.step()
    assert seen.count("manifest") == 1, "the one before is waited for: there are never two on their way"
    assert parts.ledger.accounts().durable == 4
    assert checkpoints.read_manifest(checkpoints.folder_of(tmp_path / "checkpoints", 2)).all_entries


def test_a_learner_that_is_asked_to_stop_waits_for_the_checkpoint_on_its_way_and_leaves_another(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    config = config_of(tiny_model, tmp_path, run={"steps": 9}, learner={"checkpoint_every": 2})
    learner, parts = start(client, config, tmp_path, looks=99)
    learner.life.begin()
    for _ in range(3):
        learner.step()
    learner.life.leave()
    assert [checkpoints.read_manifest(p).step for p in checkpoints.whole(tmp_path / "checkpoints")] == [2, 3]
    assert (parts.ledger.accounts().durable, parts.ledger.accounts().difference) == (6, 0)


def test_a_checkpoint_that_can_t_be_written_ends_the_run_and_acknowledges_nothing(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    def full(name: str) -> None:
        if name == "manifest":
            raise OSError(errno.ENOSPC, "No space left on device")

    config = config_of(tiny_model, tmp_path, run={"steps": 9}, learner={"checkpoint_every": 2})
    learner, parts = start(client, config, tmp_path, full, looks=2)
    with pytest.raises(OSError, match="No space left"):
        learner.run()
    assert parts.done < 5, "it was looked after soon"
    accounts = parts.ledger.accounts()
    assert (accounts.durable, accounts.trained) == (0, 2 * parts.done)
    again, parts = start(client, config, tmp_path)
    again.run()
    assert sorted(parts.ranks.trained) == list(range(18)), "nothing is lost"  # type: ignore[attr-defined]


def test_a_collapse_goes_back_to_the_oldest_checkpoint_and_on_with_the_next_problems(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    alarms = {"on_collapse": "rollback", "entropy_floor": 5.0, "entropy_steps": 4, "max_rollbacks": 1}
    config = config_of(tiny_model, tmp_path, run={"steps": 6}, alarms=alarms, learner={"checkpoint_every": 2})
    learner, parts = start(client, config, tmp_path)
    _entropy_of_one(parts)
    learner.run()
    run = RunFolder(tmp_path)
    assert checkpoints.rollbacks(run.checkpoints) == [4]
    assert checkpoints.read_manifest(checkpoints.folder_of(run.checkpoints, 4)).rolled_back_to == 2
    trained = parts.ranks.trained  # type: ignore[attr-defined]
    assert sorted(trained) == [0, 1, 2, 3, *range(10, 14)], "steps 3 and 4 are undone in the weights, and come no more"
    accounts = parts.ledger.accounts()
    assert (accounts.durable, accounts.dropped) == (12, {"stale": 2}), "what the undone weights had sampled"
    assert parts.weights.published[-1].fence > parts.weights.published[0].fence  # type: ignore[attr-defined]


def test_a_collapse_that_stops_the_run_leaves_its_checkpoint(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    alarms = {"on_collapse": "stop", "entropy_floor": 5.0, "entropy_steps": 2}
    config = config_of(tiny_model, tmp_path, run={"steps": 9}, alarms=alarms, learner={"checkpoint_every": 9})
    learner, parts = start(client, config, tmp_path)
    _entropy_of_one(parts)
    with pytest.raises(
        CannotGoOn, match=r"alarms.on_collapse = stop ended the run after step 2: entropy is 1, below 5"
    ):
        learner.run()
    assert [checkpoints.read_manifest(p).step for p in checkpoints.whole(tmp_path / "checkpoints")] == [2]
    assert parts.ledger.accounts().durable == 4


def test_a_run_that_was_flat_from_its_beginning_ends_since_no_earlier_step_was_better(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    alarms = {"on_collapse": "rollback", "flat_steps": 3}
    config = config_of(tiny_model, tmp_path, run={"steps": 9}, alarms=alarms, learner={"checkpoint_every": 1})
    learner, _ = start(client, config, tmp_path, accuracies=(0.0,))
    with pytest.raises(CannotGoOn, match=r"after step 3 \(no earlier step was any better\): at least 98% of the"):
        learner.run()
    assert checkpoints.rollbacks(tmp_path / "checkpoints") == []


def test_a_collapse_goes_no_further_back_than_the_checkpoints_that_are_kept(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    """The selected one stays, however old it is: it is for using the model, not for going back to."""
    alarms = {"on_collapse": "rollback", "entropy_floor": 5.0, "entropy_steps": 6, "max_rollbacks": 1}
    config = config_of(tiny_model, tmp_path, run={"steps": 7}, alarms=alarms, learner={"checkpoint_every": 1})
    learner, parts = start(client, config, tmp_path)
    _entropy_of_one(parts)
    parts.evaluations.selected_step = lambda: 1  # type: ignore[method-assign]
    learner.run()
    folder = RunFolder(tmp_path).checkpoints
    assert checkpoints.folder_of(folder, 1) in checkpoints.loadable(folder)
    assert checkpoints.read_manifest(checkpoints.folder_of(folder, 6)).rolled_back_to == 4


@pytest.mark.parametrize(("in_a_row", "ends"), [(2, False), (3, True)])
def test_a_run_ends_for_updates_that_are_skipped_step_after_step_and_not_for_one_strange_batch(
    client: redis.Redis, tiny_model: Path, tmp_path: Path, in_a_row: int, ends: bool
) -> None:
    alarms = {"on_collapse": "stop"}
    config = config_of(tiny_model, tmp_path, run={"steps": 5}, alarms=alarms)
    learner, parts = start(client, config, tmp_path)
    recorder, skipping = parts.recorder, range(2, 2 + in_a_row)
    look = recorder.alarms.look
    recorder.alarms.look = lambda r: look(r | {"updates_skipped": int(r["step"] in skipping)})  # type: ignore
    if ends:
        with pytest.raises(CannotGoOn, match=r"ended the run after step 4: 1 update\(s\) were skipped"):
            learner.run()
    else:
        learner.run()


def _entropy_of_one(parts: object) -> None:
    """The paper model has no tokens to measure: every record says an entropy of 1 nat."""
    recorder = parts.recorder  # type: ignore[attr-defined]
    look = recorder.alarms.look
    recorder.alarms.look = lambda record: look(record | {"entropy": 1.0})


def test_a_recorded_step_that_this_configuration_can_not_train_is_refused_and_the_old_one_goes_on(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    config = config_of(tiny_model, tmp_path, learner={"checkpoint_every": 9})
    calls = iter(range(99))

    def dies_in_step_2(name: str) -> None:
        if name == "train" and next(calls) == 1:
            raise Killed

    learner, _ = start(client, config, tmp_path, dies_in_step_2)
    with pytest.raises(Killed):
        learner.run()
    uneven = {"updates_per_step": 4, "groups_per_step": 4}
    for section, changed in (("sampling", {"max_tokens": 1}), ("sampling", {"group_size": 4}), ("learner", uneven)):
        other = config_of(tiny_model, tmp_path, **{section: changed})
        with pytest.raises(CannotGoOn, match=r"step 1 was recorded before the last stop and can't be trained again"):
            start(client, other, tmp_path)
    again, parts = start(client, config, tmp_path)
    again.run()
    assert sorted(parts.ranks.trained) == list(range(6))  # type: ignore[attr-defined]
