"""Rollouts as a data set: every bit comes back, other tools open it as it is, and no row is lost or read twice."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pyarrow.parquet as pq
import pytest
from storedrun import grade, group

from chorus.protocol.ledger import Rollout
from chorus.protocol.messages import Grade, RolloutGroup, Sample, Sampling, Shadow, Task, Timing, pack_ids
from chorus.protocol.rewards import OverlongSpec, RewardSpec, Term, compose_group
from chorus.protocol.run_folder import rollouts
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.rollout_rows import Reading, rows_of
from chorus.protocol.run_folder.rollouts import (
    UNREADABLE,
    merge,
    parts,
    read_step,
    stored_steps,
    table_of,
    tidy,
    with_columns,
    write_step,
    write_table,
)

ODD_NAN = np.array([0x7FC00001, 0xFF800000, 0x80000000], dtype="<u4").tobytes()  # a NaN with a payload, -inf, -0.0
SPEC = RewardSpec(overlong=OverlongSpec(max_tokens=4, buffer_tokens=2), terms=(Term(grader="short", weight=0.5),))
READING = Reading(
    prompts=lambda batch: [f"<{ids}>" for ids in batch],
    completions=lambda batch: [f"text {len(ids)}" for ids in batch],
    compose=partial(compose_group, SPEC),
    level=lambda id: 3,
)


EMPTY: dict[str, Any] = {"token_ids": b"", "logprobs": b"", "versions": []}


def rich(index: int) -> Rollout:
    """A group in which nothing is as usual."""
    shadow = Shadow(grader="math-verify", verdict="wrong", accuracy=0.0)
    facts: dict[str, Any] = {
        "extracted": "⅓ \x00 <b>",
        "cluster": 2,
        "ms": 0.1,
        "sub_answers": [2, 0],
        "scores": {"short": 1.0, "z": None},
        "shadow": shadow,
    }
    made = group(index, "qwen-math", [([4, 5, 6], grade(1.0, 0.75, **facts)), ([9], grade(None, reason="gone"))])
    odd = made.group.samples[0].model_copy(update={"logprobs": ODD_NAN, "versions": [(1, 3, 1), (2, 7, 2)]})
    cut = made.group.samples[1].model_copy(update={"finish_reason": "length", **EMPTY})
    task = made.group.task.model_copy(update={"row": '{"a": 1}', "tests": "[1]", "hint_ratio": 0.1, "kind": "mine"})
    task = task.model_copy(update={"opened": "<think>", "options": ["a", "b"], "sub_answers": ["1", "2"]})
    task = task.model_copy(update={"sampling": task.sampling.model_copy(update={"stop": [2, 9]})})
    timing = Timing(started=0.1, generated=0.2, graded=1 / 3)
    whole = made.group.model_copy(update={"samples": [odd, cut], "task": task, "timing": timing})
    return Rollout(replace(made.entry, payload=whole.encode()), whole)


def test_nothing_that_a_message_can_hold_is_left_out() -> None:
    """A new field of these needs a column, or replay and regrade would not see what was trained."""
    other = {"run_id", "index", "sampling", "ms", "timing", "samples", "task", "grade", "generator_id", "sub_answers"}
    other.add("exact")  # of evaluations alone; by which weights an answer came stands in its versions
    for message in (Task, Sampling, RolloutGroup, Sample, Grade):
        assert set(message.model_fields) <= {*rollouts.COLUMNS, *other}, message.__name__


def plain(index: int) -> Rollout:
    return group(index, "abel", [([index, 5], grade(1.0)), ([7], grade(0.0))])


@pytest.mark.parametrize("reading", [None, READING], ids=["bare", "read"])
def test_every_bit_of_a_group_comes_back(tmp_path: Path, reading: Reading | None) -> None:
    run, groups = RunFolder(tmp_path), [rich(3), plain(1), rich(2)]
    write_step(run, 12, groups, reading)
    back = read_step(next(where for _, where in stored_steps(run)))
    assert [(r.entry.id, r.entry.index, r.entry.payload) for r in back] == [
        (r.entry.id, r.group.task.index, r.entry.payload) for r in groups
    ]
    assert [RolloutGroup.decode(r.entry.payload) for r in back] == [r.group for r in groups]


def test_a_row_says_what_people_ask_for(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    path = write_step(run, 9, [rich(3)], READING)
    first, second = pq.read_table(path).to_pylist()
    asked = ("step", "template", "problem_id", "prompt", "text", "verdict", "level", "tokens", "staleness", "truncated")
    assert [first[key] for key in asked] == [
        *(9, "qwen-math", "math/3", "<[1]>", "<think>text 3", "correct", 3, 3),
        *(5, False),  # the weights of step 8 are trained, and its oldest token is of step 3
    ]
    assert (second["truncated"], second["staleness"], second["reason"]) == (True, None, "gone")
    # 1 for the answer, 0.75 of the format, half of a token's share of the buffer, half of the grader's 1.
    assert first["reward"] == 1.0 + 0.75 - 0.5 + 0.5
    assert (first["overlong"], first["terms"]) == (-0.5, [{"grader": "short", "paid": 0.5}])
    assert second["reward"] is None, "a verifier that failed is not a wrong answer"
    assert first["disputed"] is True
    assert first["advantage"] is None, "the step has not trained"


def test_what_the_learner_computed_is_there_after_the_step(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    table = table_of(rows_of(1, [plain(1)], READING, 5.0))
    write_table(run, 1, table)
    floats = np.array([0.5, 0.25], dtype="<f4").tobytes()
    write_table(run, 1, with_columns(table, {"advantage": [1.0, -1.0], "token_ratios": [floats, None]}))
    rows = pq.read_table(tmp_path / "rollouts").to_pylist()
    assert [(row["advantage"], row["token_ratios"]) for row in rows] == [(1.0, [0.5, 0.25]), (-1.0, None)]
    assert [row["chosen_at"] for row in rows] == [5.0, 5.0]


def many(run: RunFolder, steps: int) -> None:
    for step in range(1, steps + 1):
        write_step(run, step, [plain(step)])


def test_small_parts_are_merged_once_a_checkpoint_holds_them_and_read_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollouts, "MERGED_STEPS", 4)
    run = RunFolder(tmp_path)
    many(run, 10)
    before = [(step, read_step(where)) for step, where in stored_steps(run)]
    merge(run, durable=7)
    names = [f"step-{k:06d}.parquet" for k in range(5, 11)] + ["steps-000001-000004.parquet"]
    assert sorted(path.name for path in run.rollouts.iterdir()) == names
    assert [(step, read_step(where)) for step, where in stored_steps(run)] == before
    assert pq.read_table(run.rollouts).num_rows == 20, "a data set without a row twice"


def test_a_damaged_part_ends_no_run_that_merges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollouts, "MERGED_STEPS", 2)
    run = RunFolder(tmp_path)
    many(run, 4)
    rollouts.step_file(run, 1).write_bytes(b"nothing of the kind")
    merge(run, durable=4)
    assert [part.path.name for part in parts(run)] == [
        *("step-000001.parquet", "step-000002.parquet", "steps-000003-000004.parquet")
    ]


@pytest.mark.parametrize("listed", ["before", "between"])
def test_who_listed_the_steps_before_or_during_a_merge_reads_them_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: str
) -> None:
    monkeypatch.setattr(rollouts, "MERGED_STEPS", 4)
    run, replace = RunFolder(tmp_path), rollouts._replace
    many(run, 6)
    stored = list(stored_steps(run))
    before = [(step, read_step(where)) for step, where in stored]

    def seen(hidden: Path, chosen: Sequence[Path]) -> None:
        chosen[0].unlink()
        if listed == "between":
            stored[:] = stored_steps(run)
            assert [path.path.name[0] for _, path in stored] == [*"____ss"]
        replace(hidden, chosen)

    with monkeypatch.context() as patched:
        patched.setattr(rollouts, "_replace", seen)
        merge(run, durable=6)
    assert [(step, read_step(where)) for step, where in stored] == before
    assert rollouts.chosen_at(stored[0][1]) > 0
    with pytest.raises(FileNotFoundError):
        read_step(rollouts.StoredStep(rollouts.step_file(run, 7), 7))


@pytest.mark.parametrize("gone", [0, 2, 4])
def test_a_merge_that_a_crash_cut_is_finished_and_no_reader_sees_a_row_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: int
) -> None:
    monkeypatch.setattr(rollouts, "MERGED_STEPS", 4)
    run = RunFolder(tmp_path)
    many(run, 5)

    def crash(hidden: Path, chosen: list[Path]) -> None:
        for path in chosen[:gone]:
            path.unlink()
        raise InterruptedError

    with monkeypatch.context() as patched:
        patched.setattr(rollouts, "_replace", crash)
        with pytest.raises(InterruptedError):
            merge(run, durable=5)
    (run.rollouts / "_step-000009.parquet.partial").write_bytes(b"half")
    assert [step for step, _ in stored_steps(run)] == [1, 2, 3, 4, 5]
    assert [read_step(where)[0].entry.id for _, where in stored_steps(run)] == [f"{k}-0" for k in range(1, 6)]
    tidy(run, done=5)
    names = ["step-000005.parquet", "steps-000001-000004.parquet"]
    assert sorted(path.name for path in run.rollouts.iterdir()) == names


def test_a_run_that_goes_back_before_a_merged_part_keeps_only_what_it_will_not_train_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollouts, "MERGED_STEPS", 4)
    run = RunFolder(tmp_path)
    many(run, 4)
    merge(run, durable=4)
    tidy(run, done=2)
    assert [step for step, _ in stored_steps(run)] == [1, 2]
    write_step(run, 3, [plain(30)])
    assert [read_step(where)[0].entry.id for _, where in stored_steps(run)] == ["1-0", "2-0", "30-0"]


def test_the_shards_of_older_runs_are_read(tmp_path: Path) -> None:
    run, groups = RunFolder(tmp_path), [plain(1), rich(2)]
    run.rollouts.mkdir()
    rows = msgpack.packb([[r.entry.id, r.entry.payload] for r in groups]) or b""
    (run.rollouts / "step-000001.msgpack.gz").write_bytes(gzip.compress(rows))
    [(step, where)] = stored_steps(run)
    assert (step, read_step(where)) == (1, groups)
    write_step(run, 1, groups)
    assert [part.is_parquet for part in parts(run)] == [True], "a converted one takes its place"


def test_a_part_that_is_damaged_or_of_another_version_is_refused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    path = write_step(run, 1, [plain(k) for k in range(9)])
    whole = path.read_bytes()
    for at in (4, len(whole) // 3, len(whole) // 2, len(whole) - 6):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        with pytest.raises(UNREADABLE):
            read_step(path)
    other = table_of(rows_of(1, [plain(1)], None, 0.0))
    pq.write_table(other.replace_schema_metadata({"chorus.schema": "chorus.rollouts/2"}), path)
    with pytest.raises(ValueError, match=r"its schema is 'chorus.rollouts/2', and this version of Chorus reads"):
        read_step(path)


def test_samples_of_any_length_come_back_in_their_places(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    lengths = [0, 5, 0, 1, 300]
    made = group(1, "abel", [(list(range(n or 1)), grade(0.0)) for n in lengths])
    samples = [s if n else s.model_copy(update=EMPTY) for n, s in zip(lengths, made.group.samples, strict=True)]
    whole = Rollout(made.entry, made.group.model_copy(update={"samples": samples}))
    write_step(run, 1, [whole])
    assert [s.token_ids for s in read_step(rollouts.step_file(run, 1))[0].group.samples] == [
        pack_ids(list(range(n))) for n in lengths
    ]
