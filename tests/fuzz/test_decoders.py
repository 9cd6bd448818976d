"""Whatever bytes arrive, a decoder hands on a whole message or its one kind of error."""

from __future__ import annotations

import gzip
from pathlib import Path

import hypothesis.strategies as st
import msgpack
import pytest
from forge import damaged, forged_bytes, forged_json, inputs
from hypothesis import given
from samples import ALL, GRADES, GROUP

from chorus.generator.reward_client import GradeRefused, read_grades
from chorus.protocol.ledger import Entry, Rollout
from chorus.protocol.messages import MAX_MESSAGE_BYTES, Grade, Message, MessageError
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.rollouts import UNREADABLE, read_step, write_step
from chorus.reward_server.graders.task import GradeResult
from chorus.reward_server.pool.frames import Dropped, Frames, pack

each = pytest.mark.parametrize("message", ALL, ids=lambda m: m.SCHEMA)


@each
def test_forged_bytes_are_a_whole_message_or_a_message_error(message: Message) -> None:
    @inputs()
    @given(forged_bytes(message.encode()))
    def check(data: bytes) -> None:
        try:
            read = type(message).decode(data)
        except MessageError as error:
            said = str(error)
        else:
            said = ""
            assert type(read).decode(read.encode()) == read
        assert len(said) < 1000, "an error that fits a log"

    check()


@each
def test_an_oversized_message_is_refused_unread(message: Message) -> None:
    with pytest.raises(MessageError, match="more than"):
        type(message).decode(bytes(MAX_MESSAGE_BYTES + 1))


def test_a_forged_answer_of_the_reward_server_is_grades_or_a_refusal() -> None:
    @inputs()
    @given(forged_json({"results": GRADES}), st.sampled_from([200, 200, 200, 204, 302, 401, 422, 429, 500, 503]))
    def check(body: bytes, status: int) -> None:
        try:
            grades = read_grades("http://reward", status, body, len(GRADES))
        except GradeRefused:
            return
        if grades is None:
            assert status in (429, 503)
        else:
            assert len(grades) == len(GRADES)
            assert all(isinstance(g, Grade) for g in grades)

    check()


def test_a_forged_shard_of_an_older_run_is_groups_or_an_error_that_the_audit_names(tmp_path: Path) -> None:
    path = tmp_path / "step-000001.msgpack.gz"
    rows = msgpack.packb([["1-1", GROUP.encode()], ["1-2", GROUP.encode()]])
    _read_or_refused(path, st.one_of(forged_bytes(rows).map(gzip.compress), damaged(gzip.compress(rows))))


def test_a_damaged_part_of_stored_rollouts_is_groups_or_an_error_that_the_audit_names(tmp_path: Path) -> None:
    path = write_step(RunFolder(tmp_path), 1, [Rollout(Entry("1-1", 0, b""), GROUP)])
    _read_or_refused(path, damaged(path.read_bytes()))


def _read_or_refused(path: Path, contents: st.SearchStrategy[bytes]) -> None:
    @inputs()
    @given(contents)
    def check(data: bytes) -> None:
        path.write_bytes(data)
        try:
            groups = read_step(path)
        except UNREADABLE:
            return
        assert all(isinstance(r.entry.id, str) for r in groups)

    check()


def test_forged_frames_from_a_grader_give_messages_or_wait_for_more() -> None:
    valid = pack(GradeResult("correct", 1.0, "math: exact", ms=1.0)) + pack(Dropped())

    @inputs()
    @given(damaged(valid), st.integers(1, 40))
    def check(data: bytes, size: int) -> None:
        frames, found = Frames(), []
        try:
            for start in range(0, len(data), size):
                found += list(frames.feed(data[start : start + size]))
        except (ValueError, UnicodeError, RecursionError):
            return  # the grader's connection ends with it
        assert len(found) <= len(data) / 5  # no message is shorter than its length and an array

    check()
