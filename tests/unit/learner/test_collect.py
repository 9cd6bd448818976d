"""The collector on a real Valkey: what is no rollout of this run is dropped with its reason, and counted."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgpack
import pytest
import redis
from tinymodel import TEMPLATE

from chorus.learner.rollouts.admission import Admission
from chorus.learner.rollouts.collector import Collector
from chorus.learner.rollouts.questions import Evaluation, Progress, Questions
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Keys, LearnerLedger, LedgerLostError
from chorus.protocol.ledger.keys import TASK_GROUP
from chorus.protocol.messages import (
    Grade,
    RolloutGroup,
    Sample,
    Task,
    Timing,
    pack_floats,
    pack_ids,
    staleness,
)
from chorus.protocol.metrics.processes import LearnerMetrics
from chorus.protocol.runtime.exits import CannotGoOn

NAN, INF = float("nan"), float("inf")


class Loop:
    """A collector, and hands that answer its tasks."""

    def __init__(
        self, client: redis.Redis, model: Path, objective: dict[str, Any] | None = None, **learner: Any
    ) -> None:
        self.client = client
        self.config = RunConfig.model_validate(
            {
                "run": {"steps": 10},
                "model": {"path": str(model), "dtype": "float32", "context": 200},
                "problems": {
                    "train": ["arithmetic:chain?max=3&split=train"],  # few, to be rendered in no time
                    "heldout": ["arithmetic:chain?max=3&split=heldout"],
                    "max_prompt_tokens": 150,
                },
                "templates": {"names": [TEMPLATE]},
                "sampling": {"group_size": 2, "max_tokens": 16},
                "staleness": {"target": 0, "max": 4},
                "objective": objective or {},
                "learner": {"groups_per_step": 2, "collect_deadline_s": 0.6, **learner},
                "evaluation": {"problems": 1, "samples": 2},
            }
        )
        self.admission = Admission(self.config, "run")
        self.ledger = LearnerLedger(client, "run")
        self.collector = Collector(self.config, self.ledger, self.admission, LearnerMetrics())
        self.keys = Keys("run")

    def tasks(self, keys: Keys | None = None) -> list[tuple[bytes, Task]]:
        """Lease all there is."""
        keys = keys or self.keys
        reply: Any = self.client.xreadgroup(TASK_GROUP, "hand", {keys.tasks: ">"}, count=99)
        entries = (reply[keys.tasks.encode()][0] if isinstance(reply, dict) else reply[0][1]) if reply else []
        return [(id, Task.decode(fields[b"d"])) for id, fields in entries]

    def commit(self, id: bytes, index: int, payload: bytes, keys: Keys | None = None) -> None:
        keys = keys or self.keys
        self.client.xack(keys.tasks, TASK_GROUP, id)
        self.client.xadd(keys.rollouts, {"i": index, "d": payload})

    def dropped(self) -> dict[str, int]:
        """After the collector has given up on one bad and one good group."""
        with pytest.raises(CannotGoOn, match=r"no usable rollout for learner.collect_deadline_s = 0.6 s"):
            self.collector.next_step(0, 1, lambda: None)
        accounts = self.ledger.accounts()
        assert accounts.difference == 0
        return accounts.dropped


@pytest.fixture
def loop(client: redis.Redis, tiny_model: Path) -> Loop:
    return Loop(client, tiny_model)


def group(task: Task, ids: tuple[int, ...] = (5, 6), logprob: float = -0.5, accuracy: float | None = 1.0) -> bytes:
    sample = Sample(
        token_ids=pack_ids(list(ids)),
        logprobs=pack_floats([logprob] * len(ids)),
        versions=[(1, 0, len(ids))],
        finish_reason="stop",
        grade=Grade(verdict="correct", accuracy=accuracy, format=1.0),
    )
    timing = Timing(started=1.0, generated=2.0, graded=3.0)
    samples = [sample] * task.group_size
    return RolloutGroup(task=task, generator_id="g", attempt=1, samples=samples, timing=timing).encode()


def with_fields(data: bytes, **fields: Any) -> bytes:
    return msgpack.packb({**msgpack.unpackb(data), **fields})


BAD = {
    "empty": lambda task: b"",
    "truncated": lambda task: group(task)[:-5],
    "another schema": lambda task: with_fields(group(task), schema="chorus.rollout-group/9"),
    "another run": lambda task: group(task.model_copy(update={"run_id": "other"})),
    "another index": lambda task: group(task.model_copy(update={"index": task.index + 7})),
    "another group size": lambda task: group(task.model_copy(update={"group_size": 3})),
    "another prompt": lambda task: group(task.model_copy(update={"prompt_ids": task.prompt_ids[:-4]})),
    "another gold": lambda task: group(task.model_copy(update={"gold": ["7"]})),
    "another template": lambda task: group(task.model_copy(update={"template": "abel"})),
    "another temperature": lambda task: group(
        task.model_copy(update={"sampling": task.sampling.model_copy(update={"temperature": 0.7})})
    ),
    "another top-p": lambda task: group(
        task.model_copy(update={"sampling": task.sampling.model_copy(update={"top_p": 0.95})})
    ),
    "ids past the vocabulary": lambda task: group(task, ids=(5, 1_000_000)),
    "negative ids": lambda task: group(task, ids=(5, -1)),
    "prompt ids past the vocabulary": lambda task: group(task.model_copy(update={"prompt_ids": pack_ids([10**6])})),
    "too long": lambda task: group(task, ids=(5,) * 17),
}


def read_beside(loop: Loop, payloads: int) -> None:
    """As it happens while a step trains."""
    deadline = time.monotonic() + 5.0
    with loop.collector.reading():
        while len(loop.collector.ahead) < payloads and time.monotonic() < deadline:
            time.sleep(0.005)


def test_what_came_while_a_step_trained_is_there_for_the_next_one(loop: Loop) -> None:
    loop.collector.admit(0, 5)
    for id, task in loop.tasks():
        loop.commit(id, task.index, group(task))
    read_beside(loop, 2)
    assert loop.ledger.accounts().unread == 0
    assert [r.group.task.index for r in loop.collector.next_step(0, 5, lambda: None)] == [0, 1]
    assert loop.collector.ahead == []


def test_reading_while_a_step_trains_drops_and_refuses_nothing_before_the_next_one(loop: Loop) -> None:
    loop.collector.admit(0, 1)
    [(bad, task), (good, other)] = loop.tasks()
    loop.commit(bad, task.index, group(task)[:-5])
    loop.commit(good, other.index, group(other))
    loop.commit(good, other.index, group(other))  # by a second writer
    read_beside(loop, 3)
    assert (loop.ledger.accounts().dropped, loop.ledger.accounts().foreign) == ({}, 0)
    assert loop.dropped() == {"corrupt": 1}
    assert loop.ledger.accounts().foreign == 1


def test_a_ledger_that_is_lost_while_a_step_trains_ends_it(loop: Loop) -> None:
    loop.client.flushall()
    with pytest.raises(LedgerLostError), loop.collector.reading():
        time.sleep(0.1)
    with pytest.raises(ZeroDivisionError), loop.collector.reading():  # whatever reading says
        time.sleep(1 // 0)


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_what_is_no_group_of_this_run_is_dropped_as_corrupt(loop: Loop, bad: Any) -> None:
    loop.collector.admit(0, 1)
    (first, task), (second, other) = loop.tasks()
    loop.commit(first, 0, bad(task))
    loop.commit(second, 1, group(other))
    assert loop.dropped() == {"corrupt": 1}


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (lambda task: group(task, logprob=NAN), "nonfinite"),
        (lambda task: group(task, logprob=-INF), "nonfinite"),
        (lambda task: group(task, accuracy=None), "ungraded"),
        (lambda task: with_fields(group(task), samples=[{**msgpack.unpackb(group(task))["samples"][0]}] * 2), None),
    ],
)
def test_a_group_with_nothing_to_learn_from_is_dropped_with_its_reason(
    loop: Loop, payload: Any, reason: str | None
) -> None:
    loop.collector.admit(0, 1)
    (first, task), (second, other) = loop.tasks()
    loop.commit(first, 0, payload(task))
    if reason is None:
        loop.commit(second, 1, group(other))
        assert len(loop.collector.next_step(0, 1, lambda: None)) == 2
    else:
        assert loop.dropped() == {reason: 1}


def test_entries_that_nobody_admitted_are_refused_and_counted_outside_the_accounts(loop: Loop) -> None:
    loop.collector.admit(0, 1)
    for id, task in loop.tasks():
        loop.client.xadd(loop.keys.rollouts, {"d": group(task)})
        loop.client.xadd(loop.keys.rollouts, {"i": "abc", "junk": "x"})
        loop.commit(id, task.index, group(task))
    assert len(loop.collector.next_step(0, 1, lambda: None)) == 2
    assert loop.ledger.accounts().foreign == 2


def test_a_copy_of_a_group_is_never_trained_again(loop: Loop) -> None:
    loop.collector.admit(0, 2)
    for id, task in loop.tasks():
        loop.commit(id, task.index, group(task))
        loop.client.xadd(loop.keys.rollouts, {"i": task.index, "d": group(task)})
    ready = loop.collector.next_step(0, 2, lambda: None)
    assert [r.group.task.index for r in ready] == [0, 1]
    accounts = loop.ledger.accounts()
    assert (accounts.dropped, accounts.foreign, accounts.difference) == ({}, 2, 0)


def test_a_forged_group_is_dropped_and_the_honest_one_after_it_leaves_the_accounts_balanced(loop: Loop) -> None:
    loop.collector.admit(0, 1)
    (first, task), (second, other) = loop.tasks()
    forged = group(task.model_copy(update={"gold": ["7"]}))
    loop.client.xadd(loop.keys.rollouts, {"i": 0, "d": forged})  # well-formed, at an index that is open
    loop.commit(second, 1, group(other))
    loop.commit(first, 0, group(task))
    assert loop.dropped() == {"corrupt": 1}
    assert loop.ledger.accounts().foreign == 1


def test_a_copy_of_a_group_that_a_crash_will_train_again_is_not_trained_beside_it(
    client: redis.Redis, tiny_model: Path
) -> None:
    first = Loop(client, tiny_model)
    first.collector.admit(0, 9)
    for id, task in first.tasks():
        first.commit(id, task.index, group(task))
    ids = [r.entry.id for r in first.collector.next_step(0, 9, lambda: None)]
    first.ledger.record(1, ids)
    for _, fields in first.client.xrange(first.keys.rollouts):  # type: ignore[union-attr]
        first.client.xadd(first.keys.rollouts, fields)  # a second writer
    first.ledger.read(9, 0.01)
    again = Loop(client, tiny_model)
    again.ledger.rewind(0)
    again.collector.restore(0)
    assert [r.entry.id for r in again.collector.next_step(0, 9, lambda: None)] == ids
    assert again.collector.window.ready == {}
    assert again.ledger.accounts().foreign == 2


def test_a_group_older_than_the_bound_is_dropped_and_one_at_it_is_trained(
    client: redis.Redis, tiny_model: Path
) -> None:
    """The bound is 4; a group is as old as its oldest token."""
    loop = Loop(client, tiny_model, collect_deadline_s=30.0)

    def answer() -> None:
        for id, task in loop.tasks():
            loop.commit(id, task.index, mixed(task, oldest=0 if task.index == 0 else 1))

    trained = loop.collector.next_step(5, 2, answer)
    assert [(r.group.task.index, staleness(r.group, 5)) for r in trained] == [(1, 4), (2, 4)]
    accounts = loop.ledger.accounts()
    assert (accounts.dropped, accounts.difference) == ({"stale": 1}, 0)


def test_a_group_that_would_be_too_old_a_version_later_is_waited_for_though_fewer_steps_have_passed(
    client: redis.Redis, tiny_model: Path
) -> None:
    """Each of the two steps so far has made two versions, as those with a supervised update do."""
    loop = Loop(client, tiny_model, collect_deadline_s=30.0)
    staleness = loop.config.staleness.model_copy(update={"target": 1})
    config = loop.config.model_copy(update={"staleness": staleness})
    loop.collector = Collector(config, loop.ledger, loop.admission, LearnerMetrics())
    loop.collector.admit(0, 9, 0)
    (late, head), *others = loop.tasks()
    for id, task in others:
        loop.commit(id, task.index, group(task))
    looks = iter(range(99))

    def check() -> None:
        if next(looks) == 2:
            loop.commit(late, head.index, group(head))

    trained = loop.collector.next_step(2, 9, check, version=4)
    assert [r.group.task.index for r in trained] == [0, 1]
    assert loop.ledger.accounts().dropped == {}


def mixed(task: Task, oldest: int) -> bytes:
    """A group whose first tokens are of this step's weights, and whose last are of step 4's."""
    fields = msgpack.unpackb(group(task, ids=(5, 6, 7)))
    samples = [{**sample, "versions": [(1, oldest, 2), (1, 4, 1)]} for sample in fields["samples"]]
    return with_fields(msgpack.packb(fields), samples=samples)


def test_after_a_crash_only_the_steps_beyond_the_checkpoint_come_again_and_in_their_order(
    client: redis.Redis, tiny_model: Path
) -> None:
    first = Loop(client, tiny_model)
    first.collector.admit(0, 9)
    ids = []
    for step in (1, 2, 3):
        first.collector.admit(step - 1, 9)
        for id, task in first.tasks():
            first.commit(id, task.index, group(task))
        groups = first.collector.next_step(step - 1, 9, lambda: None)
        ids.append([r.entry.id for r in groups])
        first.ledger.record(step, ids[-1])
        first.ledger.trained(step, ids[-1])
        for r in groups:
            first.collector.window.forget(r.group.task.index)
    again = Loop(client, tiny_model)
    again.ledger.rewind(1)  # the checkpoint holds step 1, and its groups are not acknowledged yet
    again.collector.restore(1)
    assert [[r.entry.id for r in step] for step in again.collector.forced] == ids[1:]


def test_what_undone_weights_have_sampled_is_stale_whatever_its_step(client: redis.Redis, tiny_model: Path) -> None:
    """The tokens of index 0 are of fence 1, the others of the fence after the way back; all are of the newest step."""
    loop = Loop(client, tiny_model, collect_deadline_s=30.0)
    loop.collector.undo(2)

    def answer() -> None:
        for id, task in loop.tasks():
            fields = msgpack.unpackb(group(task, ids=(5, 6)))
            samples = [{**s, "versions": [(1 + (task.index > 0), 5, 2)]} for s in fields["samples"]]
            loop.commit(id, task.index, with_fields(msgpack.packb(fields), samples=samples))

    assert [r.group.task.index for r in loop.collector.next_step(5, 2, answer)] == [1, 2]
    assert loop.ledger.accounts().dropped == {"stale": 1}


def test_groups_tell_with_the_step_that_they_come_to_also_after_a_crash(client: redis.Redis, tiny_model: Path) -> None:
    """What a step's record says of the probe is of its own groups, and what nobody has trained yet comes after them."""
    first = Loop(client, tiny_model)
    for step in (1, 2, 3):
        first.collector.admit(step - 1, 9)
        for id, task in first.tasks():
            first.commit(id, task.index, group(task))
        if step < 3:
            groups = first.collector.next_step(step - 1, 9, lambda: None)
            first.ledger.record(step, [r.entry.id for r in groups])
            first.ledger.trained(step, [r.entry.id for r in groups])
            first.collector.trained(groups)
    first.ledger.read(9, 0.01)
    again = Loop(client, tiny_model)
    again.ledger.rewind(0)
    told: list[int] = []
    again.collector.admission.observe = lambda group: told.append(group.task.index)  # type: ignore[method-assign]
    again.collector.restore(0)
    assert told == []
    for step in (1, 2, 3):
        groups = again.collector.next_step(step - 1, 9, lambda: None)
        assert {*told[-len(groups) :]} == {r.group.task.index for r in groups}, step
        again.collector.trained(groups)


def test_a_run_that_drops_everything_ends(loop: Loop) -> None:
    started = time.monotonic()
    loop.collector.admit(0, 9)
    read = loop.ledger.read

    def answer_first(count: int, block_s: float) -> Any:
        for id, task in loop.tasks():
            loop.commit(id, task.index, group(task, accuracy=None))
        return read(count, block_s)

    loop.ledger.read = answer_first  # type: ignore[method-assign]
    with pytest.raises(CannotGoOn, match=r"no usable rollout .*dropped so far: \{'ungraded': \d+\}"):
        loop.collector.next_step(0, 9, lambda: None)
    assert time.monotonic() - started < 10


def test_a_wiped_redis_ends_the_collection_at_once(loop: Loop) -> None:
    loop.collector.admit(0, 1)
    loop.client.flushall()
    started = time.monotonic()
    with pytest.raises(LedgerLostError, match="was the server flushed or replaced"):
        loop.collector.next_step(0, 1, lambda: None)
    assert time.monotonic() - started < 5


def evaluated(loop: Loop, ledger: LearnerLedger, answer: Progress) -> Evaluation:
    asked = Questions(loop.admission, ledger, 0, 0, loop.admission.evaluation_tasks)
    asked.wait(answer)
    return asked.result()


def test_an_evaluation_that_nobody_graded_is_no_accuracy_of_zero(loop: Loop) -> None:
    keys = Keys("run", "eval")
    ledger = LearnerLedger(loop.client, "run", "eval", loop.ledger.fence)

    def answer(_: str) -> None:
        for id, task in loop.tasks(keys):
            loop.commit(id, task.index, group(task, accuracy=None), keys)

    with pytest.raises(CannotGoOn, match=r"none came back graded .* is the reward server alive"):
        evaluated(loop, ledger, answer)


def test_an_evaluation_drops_what_is_corrupt(loop: Loop) -> None:
    keys = Keys("run", "eval")
    ledger = LearnerLedger(loop.client, "run", "eval", loop.ledger.fence)

    def answer(_: str) -> None:
        for id, task in loop.tasks(keys):
            loop.commit(id, task.index, group(task, ids=(5, 10**6) if task.index else (5, 6)), keys)

    assert evaluated(loop, ledger, answer).accuracy == 1.0
    assert ledger.accounts().dropped == {"corrupt": 1}


def graded(task: Task, *accuracies: float) -> bytes:
    """A group whose samples have these accuracies, in turn."""
    whole = RolloutGroup.decode(group(task))
    grades = [Grade(verdict="any", accuracy=a, format=1.0) for a in accuracies]
    samples = [s.model_copy(update={"grade": g}) for s, g in zip(whole.samples, grades, strict=True)]
    return whole.model_copy(update={"samples": samples}).encode()


def answering(loop: Loop, accuracies: Any) -> None:
    """Generators that answer whatever is admitted, with `accuracies(index)`."""
    read = loop.ledger.read

    def answer_first(count: int, block_s: float) -> Any:
        for id, task in loop.tasks():
            loop.commit(id, task.index, graded(task, *accuracies(task.index)))
        return read(count, block_s)

    loop.ledger.read = answer_first  # type: ignore[method-assign]


DAPO = {"name": "dapo"}


def test_dynamic_sampling_replaces_groups_that_are_all_right_or_all_wrong(
    client: redis.Redis, tiny_model: Path
) -> None:
    loop = Loop(client, tiny_model, DAPO, collect_deadline_s=30)
    answers = {0: (1.0, 1.0), 1: (0.0, 0.0), 2: (0.0, 0.0)}
    answering(loop, lambda index: answers.get(index, (1.0, 0.0)))
    trained = loop.collector.next_step(0, 2, lambda: None)
    assert [r.group.task.index for r in trained] == [3, 4]
    assert loop.collector.take_filtered() == {"all_right": 1, "all_wrong": 2}
    loop.ledger.trained(1, [r.entry.id for r in trained])
    accounts = loop.ledger.accounts()
    assert accounts.dropped == {"filtered": 3}
    assert accounts.difference == 0


def test_dynamic_sampling_looks_at_accuracy_not_at_the_reward(client: redis.Redis, tiny_model: Path) -> None:
    loop = Loop(client, tiny_model, DAPO, collect_deadline_s=30)
    loop.collector.admit(0, 1)
    (id, task), (second, other) = loop.tasks()
    loop.commit(second, other.index, graded(other, 1.0, 0.0))
    whole = RolloutGroup.decode(graded(task, 1.0, 1.0))
    worse = whole.samples[0].model_copy(update={"grade": whole.samples[0].grade.model_copy(update={"format": 0.0})})
    payload = whole.model_copy(update={"samples": [worse, whole.samples[1]]}).encode()
    loop.commit(id, task.index, payload)  # rewards 1 and 2, both right
    answering(loop, lambda index: (1.0, 0.0))
    loop.collector.next_step(0, 1, lambda: None)
    assert loop.ledger.accounts().dropped == {"filtered": 1}


def test_accuracy_bounds_filter_more_than_the_extremes(client: redis.Redis, tiny_model: Path) -> None:
    loop = Loop(client, tiny_model, {"name": "dapo", "accuracy_bounds": [0.0, 0.4]}, collect_deadline_s=30)
    answering(loop, lambda index: (1.0, 0.0) if index == 0 else (0.6, 0.0))
    assert [r.group.task.index for r in loop.collector.next_step(0, 1, lambda: None)] == [1, 2]
    assert loop.collector.take_filtered() == {"outside": 1}


def test_after_its_refills_a_step_takes_the_groups_that_come(client: redis.Redis, tiny_model: Path) -> None:
    loop = Loop(client, tiny_model, {"name": "dapo", "max_refills": 3}, collect_deadline_s=30)
    answering(loop, lambda index: (1.0, 1.0))
    trained = loop.collector.next_step(0, 9, lambda: None)
    assert len(trained) == 2
    assert loop.collector.take_filtered() == {"all_right": 6}  # 3 refills of 2 groups
    assert loop.ledger.accounts().dropped == {"filtered": 6}
    assert loop.ledger.accounts().difference == 0


def test_a_step_that_was_recorded_comes_again_though_it_would_be_filtered_now(
    client: redis.Redis, tiny_model: Path
) -> None:
    first = Loop(client, tiny_model, {"name": "dapo", "max_refills": 1}, collect_deadline_s=30)
    answering(first, lambda index: (1.0, 1.0))
    ids = [r.entry.id for r in first.collector.next_step(0, 9, lambda: None)]
    first.ledger.record(1, ids)
    # The learner was killed; its successor reads the same accounts.
    again = Loop(client, tiny_model, DAPO, collect_deadline_s=30)
    again.ledger.rewind(0)
    again.collector.restore(0)
    assert [r.entry.id for r in again.collector.next_step(0, 9, lambda: None)] == ids


def test_without_dynamic_sampling_nothing_is_filtered(loop: Loop) -> None:
    answering(loop, lambda index: (1.0, 1.0))
    assert len(loop.collector.next_step(0, 1, lambda: None)) == 2
    assert loop.ledger.accounts().dropped == {}
