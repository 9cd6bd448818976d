"""Runs by their folder: what is listed, how a live one's Redis is found, and what the files say without it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import redis
from freeport import free_port
from samples import MEMBER, TASK

from chorus.cli.main import main
from chorus.protocol.ledger import Keys, LearnerLedger
from chorus.protocol.metrics.waits import WaitReport
from chorus.protocol.run_folder.hold import held
from chorus.protocol.runtime.exits import CannotGoOn

LEDGER = {"admitted": 12, "trained": 9, "dropped": {"stale": 2}, "outstanding": 1}


def make_run(folder: Path, url: str = "", steps: int = 3, trained: int = 2, ended: bool = False) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"run": {"steps": steps}, "redis": {"url": url}}))
    (folder / "run.json").write_text(json.dumps({"started_at": 1_700_000_000.0}))
    records = [{"step": n, "steps": steps, "time": 1_700_000_000.0 + n, "accuracy": 0.25 * n} for n in range(1, 9)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records[:trained]))
    (folder / "status.json").write_text(json.dumps({"phase": "waiting", "detail": "for rollouts"}))
    if ended:
        (folder / "summary.json").write_text(json.dumps({"steps": trained, "ledger": LEDGER}))
    return folder


@pytest.fixture
def gone() -> str:
    """The address of a server that has ended."""
    return f"redis://127.0.0.1:{free_port()}/0"


@pytest.fixture
def alive(redis_url: str, client: redis.Redis, tmp_path: Path) -> Path:
    """The folder of a run whose ledger is on a real server, which only its config.json names."""
    folder = make_run(tmp_path / "alive", redis_url)
    ledger = LearnerLedger(client, "alive")
    ledger.admit(0, [TASK.encode(), TASK.encode()], capacity=9)
    client.hset(Keys("alive").members, MEMBER.generator_id, MEMBER.encode())
    report = WaitReport(process="learner", at=time.time(), waits=[])
    client.hset(Keys("alive").waits, "learner", report.encode())
    LearnerLedger(client, "other")  # a neighbour on the same server
    return folder


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_runs_are_listed_the_newest_first_with_state_step_and_metrics(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "ended", trained=3, ended=True)
    make_run(tmp_path / "cut", trained=2)
    going = make_run(tmp_path / "going", trained=1)
    make_run(tmp_path / "more", steps=5, trained=4, ended=True)  # resumed with more steps, and cut
    (tmp_path / ".cache").mkdir()
    (tmp_path / "notes.txt").touch()
    with held(going):
        assert main(["runs", str(tmp_path)]) == 0
    rows = [line.split() for line in lines(capsys)]
    assert [row[:6] for row in rows] == [
        ["more", "stopped", "step", "4/5", "accuracy", "1.000"],
        ["ended", "finished", "step", "3/3", "accuracy", "0.750"],
        ["cut", "stopped", "step", "2/3", "accuracy", "0.500"],
        ["going", "running", "step", "1/3", "accuracy", "0.250"],
    ]
    assert rows[0][6:] == time.strftime("%Y-%m-%d %H:%M", time.localtime(1_700_000_004)).split()


def test_runs_are_listed_as_json_and_a_folder_without_runs_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", str(tmp_path)]) == 0
    assert "there is no run in it yet" in lines(capsys)[0]
    make_run(tmp_path / "a")
    assert main(["runs", str(tmp_path), "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["run"], told["state"], told["step"]) == (str(tmp_path / "a"), "stopped", 2)
    assert main(["runs", str(tmp_path / "nowhere")]) == 3


def test_a_half_written_run_hides_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "whole")
    broken = make_run(tmp_path / "broken")
    for name in ("config.json", "run.json", "status.json"):
        (broken / name).write_text("{")
    assert main(["runs", str(tmp_path)]) == 0
    assert {line.split()[0] for line in lines(capsys)} == {"whole", "broken"}


def test_status_why_and_audit_find_the_redis_of_a_run_by_its_folder(
    alive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", str(alive)]) == 0
    status = capsys.readouterr().out
    assert status.startswith("run alive: balanced\n  admitted    2\n")
    assert MEMBER.generator_id in status
    assert main(["audit", str(alive)]) == 0
    assert "2 queued" in capsys.readouterr().out
    assert main(["why", str(alive)]) == 0
    why = capsys.readouterr().out
    assert "run alive: 2 queued" in why
    assert "learner waits for nothing" in why
    assert main(["trace", "0", str(alive)]) == 0
    assert "admitted group 0" in capsys.readouterr().out
    assert "other" not in status + why


def test_a_folder_is_found_from_within_it(
    alive: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(alive)
    assert main(["status", "."]) == 0
    assert capsys.readouterr().out.startswith("run alive: balanced")


def test_with_redis_a_folder_and_its_name_mean_the_same_run(
    alive: Path, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--redis", redis_url, "alive"]) == 0
    by_name = capsys.readouterr().out
    assert main(["status", "--redis", redis_url, str(alive)]) == 0
    assert capsys.readouterr().out.splitlines()[:6] == by_name.splitlines()[:6]


@pytest.mark.parametrize("command", ["status", "why"])
def test_of_a_run_that_was_cut_short_the_files_say_where_it_stands_and_how_it_goes_on(
    command: str, gone: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "cut", gone)
    assert main([command, str(run)]) == 0
    said = capsys.readouterr().out
    assert "run cut: stopped at step 2 of 3, " in said
    assert "step 2/3  " in said
    assert "its learner last said: waiting for rollouts" in said
    assert f"go on with: chorus run --resume {run}" in said
    assert f"redis.url {gone}: Error 111" in said


def test_of_a_finished_run_the_files_have_the_accounts(
    gone: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", str(make_run(tmp_path / "ended", gone, trained=3, ended=True))]) == 0
    said = capsys.readouterr().out
    assert "run ended: finished at step 3 of 3" in said
    assert "12 admitted = 9 trained + 2 dropped + 1 outstanding" in said
    assert "--resume" not in said


def test_another_server_at_the_run_s_old_address_is_not_taken_for_its_own(
    redis_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", str(make_run(tmp_path / "cut", redis_url))]) == 0
    said = capsys.readouterr().out
    assert "run cut: stopped at step 2 of 3" in said
    assert "run 'cut' has no ledger on this Redis" in said


@pytest.mark.parametrize("argv", [[], ["nowhere"], ["."]])
@pytest.mark.parametrize("command", ["status", "why"])
def test_what_is_no_run_is_one_line_with_what_to_give(
    command: str, argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([command, *argv]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"chorus {command}: ")
    assert "or --redis URL" in line


def test_a_run_that_is_going_on_is_not_carried_out_twice(tmp_path: Path) -> None:
    with held(tmp_path), pytest.raises(CannotGoOn, match="is going on already"), held(tmp_path):
        pass
    with held(tmp_path):
        pass  # it was let go


def test_a_process_that_dies_lets_its_run_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "a")
    ready, tell = os.pipe()
    if (child := os.fork()) == 0:
        with held(tmp_path / "a"):
            os.write(tell, b".")
            time.sleep(60)
        os._exit(0)
    os.read(ready, 1)
    assert main(["runs", str(tmp_path)]) == 0
    assert lines(capsys)[0].split()[1] == "running"
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert main(["runs", str(tmp_path)]) == 0
    assert lines(capsys)[0].split()[1] == "stopped"
