"""`chorus rollouts`: a run's answers in the terminal."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import msgpack
import pyarrow.parquet as pq
import pytest
from viewedrun import TEXTS, evaluate, made, viewed_run, write

from chorus.cli.main import main
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.rollouts import read_step, stored_steps
from chorus.protocol.runtime.exits import CANNOT_GO_ON


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return viewed_run(tmp_path_factory.mktemp("runs") / "demo", steps=3)


def test_answers_are_printed_by_filters_and_move_no_cursor(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollouts", str(run.path), "--verdict", "no_answer", "--step", "2:"]) == 0
    text = capsys.readouterr().out
    assert text.count(TEXTS[1]) == 2
    assert text.endswith("2 of 2\n")
    for more in ([], ["--full"]):
        assert main(["rollouts", str(run.path), "--template", "formal", "abel", *more]) == 0
        text = capsys.readouterr().out
        assert "12 of 12" in text
        assert "DROP TABLE" in text
        assert "\x1b" not in text
        assert "\u202e" not in text


def test_json_is_what_the_page_is_given(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollouts", str(run.path), "--sort", "-reward", "--limit", "1", "--json"]) == 0
    page = json.loads(capsys.readouterr().out)
    assert (page["total"], page["rollouts"][0]["text"]) == (12, TEXTS[0])


def test_sql_reads_the_rollouts_and_nothing_else(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    sql = "SELECT template, avg(accuracy) AS right FROM rollouts GROUP BY 1 ORDER BY 1"
    assert main(["rollouts", str(run.path), "--sql", sql]) == 0
    assert capsys.readouterr().out == "template\tright\nabel\t0.5\nformal\t0\n"
    before = sorted(run.path.rglob("*"))
    for bad in (
        f"SELECT * FROM read_csv('{secret}')",
        f"SELECT * FROM '{secret}'",
        f"COPY rollouts TO '{run.rollouts}/more.csv'",
        f"ATTACH '{tmp_path}/a.db'",
        "SET enable_external_access = true",
        "SELECT 1; COPY (SELECT 1) TO 'x.csv'",
        "SELEC",
    ):
        assert main(["rollouts", str(run.path), "--sql", bad]) == CANNOT_GO_ON
        assert capsys.readouterr().err.count("\n") == 1
    assert sorted(run.path.rglob("*")) == before


def test_what_the_filters_let_through_is_written(run: RunFolder, tmp_path: Path) -> None:
    for name in ("out.parquet", "out.jsonl"):
        assert main(["rollouts", str(run.path), "--step", "1", "3", "--export", str(tmp_path / name)]) == 0
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 8
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 8
    assert main(["rollouts", str(run.path), "--export", str(tmp_path / "out.txt")]) == CANNOT_GO_ON


@pytest.fixture
def older(tmp_path: Path) -> RunFolder:
    """Steps 1 and 2 as earlier versions wrote them, and step 3, which a resume has trained since."""
    run = viewed_run(tmp_path / "old", steps=0, problems={"train": ["any"]}, templates={"names": ["abel"]})
    run.rollouts.mkdir()
    for step in (1, 2):
        rows = msgpack.packb([[r.entry.id, r.group.encode()] for r in made(step)]) or b""
        (run.rollouts / f"step-{step:06d}.msgpack.gz").write_bytes(gzip.compress(rows))
    write(run, 3)
    return run


def test_older_shards_and_parts_are_read_as_one(older: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(older.path.rglob("*"))
    assert main(["rollouts", str(older.path), "--sort", "step", "--json"]) == 0
    page = json.loads(capsys.readouterr().out)
    assert [(row["step"], row["group"]) for row in page["rollouts"]] == [
        (step, group) for step in (1, 2, 3) for group in (10 * step, 10 * step, 10 * step + 1, 10 * step + 1)
    ]
    assert (page["total"], page["damaged"]) == (12, {})
    assert sorted(older.path.rglob("*")) == before, "nothing of the run is changed"


def test_an_older_shard_that_is_damaged_is_named_and_the_others_are_shown(
    older: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    (older.rollouts / "step-000001.msgpack.gz").write_bytes(b"nothing of the kind")
    assert main(["rollouts", str(older.path), "--json"]) == 0
    page = json.loads(capsys.readouterr().out)
    assert (page["total"], list(page["damaged"])) == (8, ["step-000001.msgpack.gz"])


def test_an_older_run_is_converted_and_reads_the_same(older: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollouts", str(older.path), "--convert"]) == 0
    assert "2 steps converted" in capsys.readouterr().out
    assert sorted(path.suffix for path in older.rollouts.iterdir()) == [".parquet"] * 3
    assert [[r.group for r in read_step(at)] for _, at in stored_steps(older)] == [
        [r.group for r in made(step)] for step in (1, 2, 3)
    ]


def test_the_answers_of_an_evaluation_are_asked_by_the_same_filters(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(run, "before", 0)
    assert main(["rollouts", str(run.path), "--of", "before", "--greedy", "true", "--level", "1", "--json"]) == 0
    page = json.loads(capsys.readouterr().out)
    assert [(row["problem_id"], row["text"], row["staleness"]) for row in page["rollouts"]] == [("p0", TEXTS[0], 1)]
    assert main(["rollouts", str(run.path), "--of", "after"]) == CANNOT_GO_ON
    assert "there are before" in capsys.readouterr().err
