"""A run is what its id says: moved, copied, renamed, with its ledger lost, with an older one, with another's."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import pytest
import redis

from chorus.protocol.ledger import Keys, LearnerLedger
from chorus.protocol.ledger.identity import read_state
from chorus.protocol.run_folder.checkpoints import STATE, Manifest, folder_of, write_manifest
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.hold import held
from chorus.protocol.run_folder.identity import Identity, asked_of, identify, read_identity
from chorus.protocol.run_folder.start import look_ahead, take_up
from chorus.protocol.runtime.exits import CannotGoOn

NAME = "demo"


class Learner:
    """Starts, trains one group a step, writes a checkpoint a step, ends: what the ledger and the folder see of it."""

    def __init__(self, client: redis.Redis, folder: Path) -> None:
        self.client, self.run = client, RunFolder(folder)

    def start(self, name: str = NAME, **options: object) -> Identity:
        self.run.path.mkdir(exist_ok=True)
        settings: dict[str, object] = {"resume": True} | options
        identity = take_up(self.client, self.run, name, **settings)  # type: ignore[arg-type]
        self.ledger = LearnerLedger(self.client, name)
        self.identity = identity
        return identity

    def step(self, step: int, acknowledge: bool = True, at: float | None = None) -> None:
        first = self.ledger.admitted()
        assert self.ledger.admit(first, [b"task"], capacity=9) == 1
        keys = Keys(self.identity.name)
        [(task, _)] = self.client.xrange(keys.tasks)[-1:]  # type: ignore[index]
        self.client.xreadgroup("generators", "g", {keys.tasks: ">"}, count=1)
        self.client.xack(keys.tasks, "generators", task)
        self.client.xadd(keys.rollouts, {"i": first, "d": b"group"})
        [entry] = self.ledger.read(9, 0.1)
        self.ledger.trained(step, [entry.id])
        durable = int(self.client.hget(keys.accounts, "durable") or 0)  # type: ignore[arg-type]
        path = folder_of(self.run.checkpoints, step)
        (path / STATE).mkdir(parents=True)
        write_manifest(
            path,
            Manifest(
                *(step, self.ledger.fence, {step: [entry.id]}),
                lineage=self.identity.lineage,
                trained=durable + 1,
                admitted=self.ledger.admitted(),
                at=step * 60.0 if at is None else at,
            ),
        )
        if acknowledge:
            self.ledger.durable(step, [entry.id])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / NAME


@pytest.fixture
def learner(client: redis.Redis, folder: Path) -> Learner:
    """A run of three steps."""
    folder.parent.mkdir()
    learner = Learner(client, folder)
    learner.start()
    for step in (1, 2, 3):
        learner.step(step)
    return learner


def refusal(learner: Learner, **options: object) -> str:
    with pytest.raises(CannotGoOn) as caught:
        learner.start(**options)  # type: ignore[arg-type]
    said = str(caught.value)
    assert str(learner.run.path) in said or "--run-id" in said
    assert "\n" not in said
    return said


def test_an_id_is_made_once_and_stands_in_the_folder_and_in_the_ledger(learner: Learner, client: redis.Redis) -> None:
    first = learner.identity
    again = learner.start()
    assert again.id == first.id
    assert len(first.id) == 32
    state = read_state(client, NAME)
    assert state is not None
    assert (state.id, state.mark, state.host) == (first.id, again.marks[-1], socket.gethostname())
    assert again.marks[:-1] == first.marks
    assert read_identity(learner.run.path) == again


def test_a_renamed_folder_goes_on_under_the_name_that_its_ledger_has(
    learner: Learner, client: redis.Redis, tmp_path: Path
) -> None:
    moved = learner.run.path.rename(tmp_path / "another-name")
    assert RunFolder(moved).run_id == NAME
    identity = Learner(client, moved).start(name=RunFolder(moved).run_id)
    assert (identity.id, identity.lineage, identity.folder) == (learner.identity.id, 1, str(moved))


def test_a_copy_is_told_from_its_original_and_asks_which_it_shall_be(
    learner: Learner, client: redis.Redis, tmp_path: Path
) -> None:
    copy = Learner(client, shutil.copytree(learner.run.path, tmp_path / "copy"))
    said = refusal(copy)
    assert f"it is a copy of the run in {learner.run.path}, which is still there" in said
    assert "--take-over" in said
    assert "--new-lineage" in said
    learner.start()
    shutil.rmtree(learner.run.path)


def test_a_copy_whose_original_is_gone_has_moved(learner: Learner, client: redis.Redis, tmp_path: Path) -> None:
    copy = Learner(client, shutil.copytree(learner.run.path, tmp_path / "copy"))
    shutil.rmtree(learner.run.path)
    assert copy.start().id == learner.identity.id


def test_a_copy_that_takes_over_is_the_run_and_the_original_is_no_more(
    learner: Learner, client: redis.Redis, tmp_path: Path
) -> None:
    copy = Learner(client, shutil.copytree(learner.run.path, tmp_path / "copy"))
    with held(learner.run.path):
        assert "stop it before its copy takes it over" in refusal(copy, asked="take-over")
    assert copy.start(asked="take-over").id == learner.identity.id
    copy.start()
    assert f"this run was given up for its copy in {copy.run.path}" in refusal(learner)
    learner.start(asked="take-over")
    assert f"its ledger went on with the folder {learner.run.path}" in refusal(copy)


def test_a_copy_can_become_a_run_of_its_own_whose_indices_begin_where_the_checkpoint_ends(
    learner: Learner, client: redis.Redis, tmp_path: Path
) -> None:
    copy = Learner(client, shutil.copytree(learner.run.path, tmp_path / "copy"))
    identify(copy.run.path, "copy", "new-lineage")  # as `chorus run` does before it tells anybody the name
    assert copy.run.run_id == "copy"
    identity = copy.start(name="copy")
    assert identity.id != learner.identity.id
    assert (identity.lineage, identity.begun[-1].of) == (2, learner.identity.id)
    assert copy.ledger.admitted() == 3
    copy.step(4)
    learner.start()
    assert learner.ledger.accounts().durable == 3, "the original's ledger is as it was"


def test_a_ledger_that_went_on_with_a_copy_on_another_host_is_told_by_its_mark(
    learner: Learner, client: redis.Redis, tmp_path: Path
) -> None:
    copy = shutil.copytree(learner.run.path, tmp_path / "other-host")
    fields = json.loads((copy / "identity.json").read_text()) | {"folder": "/runs/there", "host": "there"}
    (copy / "identity.json").write_text(json.dumps(fields))
    there = Learner(client, copy)
    there.start()
    said = refusal(learner)
    assert f"its ledger went on with the folder {copy} on host {socket.gethostname()}" in said
    assert "--take-over" in said, "as yet both say the same"
    there.step(4)
    assert "--take-over" not in refusal(learner)
    assert "--new-lineage" in refusal(learner, asked="take-over")
    look_ahead(client, learner.run, "new-lineage")
    own = learner.run.run_id
    assert own != NAME
    assert learner.start(name=own, asked="new-lineage").begun[-1].first_index == 3


@pytest.mark.parametrize("steps", [0, 3])
def test_a_lost_ledger_is_refused_and_another_lineage_is_begun_when_asked(
    client: redis.Redis, folder: Path, steps: int
) -> None:
    folder.parent.mkdir()
    learner = Learner(client, folder)
    learner.start()
    for step in range(1, steps + 1):
        learner.step(step)
    learner.start()
    learner.ledger.admit(steps, [b"on its way", b"too"], capacity=9)
    fence = learner.ledger.fence
    client.flushall()
    said = refusal(learner)
    assert "Redis has no ledger of run 'demo'" in said
    assert f"a new ledger from {'checkpoint step 3' if steps else 'step 0'} on" in said
    assert client.dbsize() == 0, "nothing was changed"
    identity = learner.start(asked="new-lineage")
    assert identity.lineage == 2
    assert (identity.begun[-1].step, identity.begun[-1].first_index) == (steps, steps)
    assert learner.ledger.admitted() == steps
    assert learner.ledger.fence > fence, "generators obey the highest they have seen"
    learner.start()
    learner.step(steps + 1)
    assert learner.start().lineage == 2, "the flag is not needed again"


def test_indices_that_a_lost_ledger_took_along_are_counted(learner: Learner, client: redis.Redis) -> None:
    learner.ledger.admit(3, [b"on its way", b"too"], capacity=9)
    learner.step(4)
    client.flushall()
    begun = learner.start(asked="new-lineage").begun[-1]
    assert (begun.first_index, begun.untrained) == (6, 2)


def test_new_lineage_beside_a_whole_ledger_changes_nothing(learner: Learner) -> None:
    assert learner.start(asked="new-lineage").lineage == 1
    assert learner.ledger.accounts().durable == 3


def test_an_older_ledger_is_refused_and_a_power_cuts_last_second_is_not(learner: Learner, client: redis.Redis) -> None:
    accounts = Keys(NAME).accounts
    learner.step(4, at=181.0)  # a second after step 3
    client.hset(accounts, "durable", 2)
    learner.start()
    client.hset(accounts, "durable", 1)
    assert "its ledger on Redis is older than its checkpoint of step 4 (1 groups are durable there, 4 here)" in refusal(
        learner
    )
    client.hset(accounts, "durable", 4)
    client.set(Keys(NAME).fence, 0)
    assert "is older than its checkpoint" in refusal(learner)
    assert learner.start(asked="new-lineage").lineage == 2


def test_an_older_folder_is_refused(learner: Learner) -> None:
    shutil.rmtree(folder_of(learner.run.checkpoints, 3))
    said = refusal(learner)
    assert "knows 3 durable groups, its checkpoints 2" in said
    assert learner.start(asked="new-lineage").begun[-1].step == 2


def test_a_checkpoint_whose_acknowledgement_a_crash_cut_off_is_of_the_same_run(learner: Learner) -> None:
    learner.step(4, acknowledge=False)
    learner.start()


def test_a_name_that_is_another_runs_on_this_redis_is_refused(
    learner: Learner, client: redis.Redis, tmp_path: Path
) -> None:
    other = Learner(client, tmp_path / "new")
    said = refusal(other, resume=False)
    assert f"the name 'demo' is another run's (its folder: {learner.run.path} on host" in said
    assert "--run-id" in said
    assert other.start(name="another", resume=False).name == "another"
    learner.start()


def test_a_run_id_that_is_not_the_folders_is_refused(learner: Learner) -> None:
    assert "--run-id other: the run in" in refusal(learner, name="other")
    identity = learner.start(name="other", asked="new-lineage")
    assert (identity.name, identity.lineage) == ("other", 2)


def test_a_run_with_checkpoints_is_not_begun_again(learner: Learner) -> None:
    assert "it has a checkpoint of step 3; add --resume" in refusal(learner, resume=False)


def test_a_start_that_died_before_it_joined_its_ledger_is_no_lost_ledger(client: redis.Redis, folder: Path) -> None:
    folder.mkdir(parents=True)
    for _ in range(3):
        take_up(client, RunFolder(folder), NAME, resume=False)  # and then no memory, say


def test_a_start_that_died_between_its_two_marks_goes_on(
    learner: Learner, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("chorus.protocol.run_folder.start.write_to_ledger", dies)
        with pytest.raises(KeyboardInterrupt):
            learner.start()
    learner.start()


def test_a_run_of_before_there_were_ids_gets_one(learner: Learner, client: redis.Redis) -> None:
    client.delete(Keys(NAME).identity)
    (learner.run.path / "identity.json").unlink()
    for path in learner.run.checkpoints.glob("step-*/manifest.json"):
        fields = json.loads(path.read_text())
        path.write_text(json.dumps({k: fields[k] for k in ("step", "fence", "entries")}))
    assert learner.start().lineage == 1
    client.flushall()
    assert "make it the model.path of a new run" in refusal(learner, asked="new-lineage")


def test_an_identity_that_can_not_be_read_is_refused(learner: Learner) -> None:
    (learner.run.path / "identity.json").write_text("{")
    assert "identity.json: can't be read" in refusal(learner)


def test_the_two_options_exclude_each_other() -> None:
    assert (asked_of(False, False), asked_of(True, False), asked_of(False, True)) == ("", "new-lineage", "take-over")
    with pytest.raises(CannotGoOn, match="exclude each other"):
        asked_of(True, True)
