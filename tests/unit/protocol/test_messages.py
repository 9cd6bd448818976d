"""Messages: whoever reads one gets it whole, or a MessageError, and nothing else."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorus.protocol.messages import (
    Grade,
    Member,
    Message,
    MessageError,
    RolloutGroup,
    Sample,
    Sampling,
    SyncOffer,
    SyncReport,
    Task,
    Timing,
    WeightCheck,
    pack_floats,
    pack_ids,
)

TASK = Task(
    run_id="run", index=3, epoch=0, problem_id="p", kind="math", gold=["1"], template="t", prompt_ids=pack_ids([1]),
    group_size=1, sampling=Sampling(temperature=1.0, max_tokens=8), min_version=0, deadline_s=5.0, admitted_at=1.0,
)  # fmt: skip
GROUP = RolloutGroup(
    task=TASK,
    generator_id="g",
    attempt=1,
    samples=[
        Sample(
            token_ids=pack_ids([4, 5]),
            logprobs=pack_floats([-0.5, -1.0]),
            versions=[(1, 0, 1), (1, 1, 1)],
            finish_reason="stop",
            grade=Grade(verdict="correct", accuracy=1.0, format=1.0),
        )
    ],
    timing=Timing(started=1.0, generated=2.0, graded=3.0),
)
MEMBER = Member(
    generator_id="g", state="ready", engine=1, world_size=1, version="1.0", in_flight=0, generated_tokens=0,
    busy_seconds=0.0, uptime_seconds=1.0, last_seen=1.0,
)  # fmt: skip
OFFER = SyncOffer(
    version="1.0", group="g", backend="gloo", store_host="h", store_port=1, world_size=2, timeout_s=1.0,
    bucket_bytes=16, tensors=[], temperature=1.0, tolerance=1e-3,
    checks=[WeightCheck(prefix=pack_ids([1]), token_ids=pack_ids([2]), logprobs=pack_floats([-1.0]))],
)  # fmt: skip
REPORT = SyncReport(generator_id="g", version="1.0", group="g", ok=True)
ALL: list[Message] = [TASK, GROUP, MEMBER, OFFER, REPORT]
each = pytest.mark.parametrize("message", ALL, ids=lambda m: m.SCHEMA)


@each
def test_a_message_reads_as_it_was_written(message: Message) -> None:
    assert type(message).decode(message.encode()) == message


@each
def test_a_message_cut_short_anywhere_is_refused(message: Message) -> None:
    data = message.encode()
    for length in range(len(data)):
        with pytest.raises(MessageError):
            type(message).decode(data[:length])


@each
def test_another_schema_is_refused_by_name(message: Message) -> None:
    other = msgpack.packb({"schema": "chorus.task/99"})
    with pytest.raises(MessageError, match="another version of Chorus"):
        type(message).decode(other)


@each
def test_an_unknown_field_is_refused(message: Message) -> None:
    with pytest.raises(MessageError, match="surprise"):
        type(message).decode(msgpack.packb({**msgpack.unpackb(message.encode()), "surprise": 1}))


@given(st.binary(max_size=200))
def test_any_bytes_give_a_message_error(data: bytes) -> None:
    for message in ALL:
        with pytest.raises(MessageError):
            type(message).decode(data)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.data())
def test_a_message_with_one_forged_field_is_whole_or_refused(data: st.DataObject) -> None:
    message = data.draw(st.sampled_from(ALL))
    fields = msgpack.unpackb(message.encode())
    fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(values)
    try:
        read = type(message).decode(msgpack.packb(fields))
    except MessageError:
        return
    assert type(read).decode(read.encode()) == read


@pytest.mark.parametrize(
    ("message", "forged", "why"),
    [
        (TASK, {"group_size": 0}, "group_size"),
        (TASK, {"prompt_ids": b""}, "prompt_ids"),
        (TASK, {"prompt_ids": b"12345"}, "5 bytes long"),
        (TASK, {"sampling": {"temperature": float("nan"), "max_tokens": 1}}, "temperature"),
        (GROUP, {"samples": []}, "0 samples in a group of 1"),
        (MEMBER, {"last_seen": float("nan")}, "last_seen"),
        (MEMBER, {"version": "new"}, "version"),
        (OFFER, {"version": "1"}, "version"),
        (OFFER, {"timeout_s": -1.0}, "timeout_s"),
        (OFFER, {"checks": [{"prefix": b"", "token_ids": b"1234", "logprobs": b""}]}, "1 token ids but 0"),
        (REPORT, {"gap_mean": float("inf")}, "gap_mean"),
    ],
)
def test_what_can_not_be_meant_is_refused(message: Message, forged: dict[str, Any], why: str) -> None:
    with pytest.raises(MessageError, match=why):
        type(message).decode(msgpack.packb({**msgpack.unpackb(message.encode()), **forged}))


def test_versions_must_cover_the_tokens_one_run_after_another() -> None:
    good = GROUP.samples[0].model_dump()
    for versions in ([(1, 0, 1)], [(1, 0, 3), (1, 1, -1)], [(1, 0, 2), (1, 1, 0)]):
        with pytest.raises(ValueError, match="versions"):
            Sample.model_validate({**good, "versions": versions})


@pytest.mark.parametrize("tests", ["[1", "[" * 100_000])
def test_a_task_whose_tests_are_no_json_is_refused(tests: str) -> None:
    forged = TASK.model_copy(update={"kind": "code", "tests": tests})
    with pytest.raises(MessageError, match="tests"):
        Task.decode(forged.encode())


def test_a_task_without_stop_tokens_is_written_as_tasks_were_before_there_were_any() -> None:
    assert "stop" not in msgpack.unpackb(TASK.encode())["sampling"]
    ending = TASK.model_copy(update={"sampling": Sampling(temperature=1.0, max_tokens=8, stop=[2, 7])})
    assert Task.decode(ending.encode()) == ending


def test_a_task_tells_its_sub_answers_to_the_grader_and_one_without_is_written_as_before() -> None:
    told = TASK.model_copy(update={"sub_answers": ["7"]})
    assert Task.decode(told.encode()) == told
    assert told.grading()["sub_answers"] == ["7"]
    assert b"sub_answers" not in TASK.encode()
    assert "sub_answers" not in TASK.grading()
