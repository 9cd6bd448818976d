"""Generators, Redis and the reward server come, go, hang and return in one run with scripted engines.

The tests are steps of one story, in order; the last one reads the accounts. Its siblings with the real vLLM are
in test_kill.py.
"""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
from liverun import ROOT, LiveRun, end_run
from otherhost import OtherHost, listening
from scriptedlive import start_generator, start_scripted_run

from chorus.cli.main import main
from chorus.protocol.ledger import Accounts
from chorus.protocol.ledger.keys import TASK_GROUP, Keys
from chorus.protocol.messages import Member
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.rollouts import read_step, stored_steps
from chorus.protocol.runtime.exits import CANNOT_GO_ON

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[LiveRun]:
    folder = tmp_path_factory.mktemp("elastic")
    run = start_scripted_run(folder, tiny_model, overrides=['learner.fan_out="relay"'])
    yield run
    if run.process.poll() is None:
        for process in processes(run):  # a test that failed half-way may have left one suspended
            process.resume()
    end_run(run)


def find(run: LiveRun, name: str) -> Member | None:
    """The live member of a generator's name."""
    found = [m for m in run.members() if m.generator_id.startswith(name) and time.time() - m.last_seen < 3]
    return max(found, key=lambda m: m.last_seen, default=None)


def ready(run: LiveRun, name: str) -> Member | None:
    member = find(run, name)
    return member if member is not None and member.state == "ready" else None


def goes_on(run: LiveRun, steps: int = 3, deadline_s: float = 60.0) -> None:
    run.wait_step(run.step() + steps, deadline_s)


def trained_by(run: LiveRun) -> Counter[str]:
    by: Counter[str] = Counter()
    for _, path in stored_steps(RunFolder(run.folder)):
        try:
            by.update(r.group.generator_id for r in read_step(path))
        except (OSError, EOFError, gzip.BadGzipFile):
            continue  # being written
    return by


def leased(run: LiveRun, consumer: str) -> int:
    pending = run.client.xpending_range(Keys(run.folder.name).tasks, TASK_GROUP, "-", "+", 999, consumername=consumer)
    return len(pending)  # type: ignore[arg-type]


def processes(run: LiveRun, *words: str) -> list[psutil.Process]:
    """Below the launcher, with all `words` somewhere in the command line; a server that renames itself included."""
    lines = [(p, " ".join(p.cmdline())) for p in run.processes()]
    return [p for p, line in lines if all(word in line for word in words)]


def the_process(run: LiveRun, *words: str) -> psutil.Process:
    (process,) = processes(run, *words)
    return process


def test_a_generator_started_in_mid_run_gets_the_weights_and_serves_and_nobody_pauses(story: LiveRun) -> None:
    story.wait_step(3, 120)
    late = start_generator(story, "late")
    try:
        story.until(lambda: find(story, "late"), "the new member", 60)
        steps, since = story.step(), time.monotonic()
        story.until(lambda: ready(story, "late"), "the new member at work", 30)
        joined_s = time.monotonic() - since
        goes_on(story)
        story.until(lambda: any(id.startswith("late") for id in trained_by(story)), "its groups in a step", 60)
        records = [json.loads(line) for line in (story.folder / "metrics.jsonl").read_text().splitlines()]
        around = [r["seconds"] for r in records if steps - 1 <= r["step"] <= steps + 3]
        assert max(around) < joined_s + 5.0, "nobody waited for the newcomer"
        member = ready(story, "late")
        assert member is not None

        late.send_signal(signal.SIGTERM)  # it drains
        assert late.wait(30) == 0
        assert leased(story, member.generator_id) == 0, "what it held is committed or given back"
        assert find(story, "late") is None
    finally:
        late.kill()
        late.wait()
    goes_on(story)


def test_a_hanging_generator_costs_its_own_leases_time_and_may_come_back(story: LiveRun) -> None:
    story.until(lambda: ready(story, "gen-0") and ready(story, "gen-1"), "two generators at work")
    member = ready(story, "gen-1")
    assert member is not None
    process = the_process(story, "receiving.py", "gen-1")
    process.suspend()
    try:
        # Its leases expire, gen-0 claims them; its syncs fail at their deadline, of which the learner takes no notice.
        goes_on(story, steps=6)
        story.until(lambda: leased(story, member.generator_id) == 0, "its work in other hands", 30)
        log = story.folder / "logs" / "learner.log"
        story.until(lambda: f"to {member.generator_id} failed" in log.read_text(), "its sync given up", 30)
    finally:
        process.resume()
    story.until(lambda: ready(story, "gen-1"), "the hanging one back at work", 60)
    assert story.accounts().difference == 0


def why(run: LiveRun) -> str:
    return subprocess.run(
        [sys.executable, "-m", "chorus.cli.main", "why", str(run.folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def no_more_to_come(accounts: Accounts) -> bool:
    """Every group admitted is with a generator, but for those of a step begun that were graded in time."""
    return accounts.outstanding == 8 and not accounts.queued and accounts.leased > 4


def test_a_reward_server_that_hangs_makes_groups_wait_and_nothing_is_scored_0(story: LiveRun) -> None:
    server = the_process(story, "chorus.cli.main", "reward-server")
    server.suspend()
    try:
        story.until(lambda: no_more_to_come(story.accounts()), "all credits in groups that wait for a grade", 30)
        time.sleep(1.5)  # heartbeats tell it
        admitted = story.accounts().admitted
        told = why(story)
        time.sleep(2.0)
        assert story.accounts().admitted == admitted, "credits stop the admission"
    finally:
        server.resume()
    assert "for grades from reward server" in told
    assert "learner waits" in told
    assert "for rollouts from generators" in told
    goes_on(story)
    records = [json.loads(line) for line in (story.folder / "metrics.jsonl").read_text().splitlines()]
    assert sum(r["samples_masked"] for r in records) == 0
    assert set(story.accounts().dropped) <= {"stale"}, "of age, never for want of a grade"


def test_a_reward_server_that_is_killed_costs_no_grade(story: LiveRun) -> None:
    the_process(story, "chorus.cli.main", "reward-server").kill()
    goes_on(story)
    assert set(story.accounts().dropped) <= {"stale"}


def test_a_redis_that_stands_still_longer_than_any_lease_or_read_is_waited_for(story: LiveRun) -> None:
    valkey = the_process(story, "valkey")
    valkey.suspend()
    time.sleep(11.0)  # a lease lives 3 s, a socket waits 10 s
    valkey.resume()
    goes_on(story, deadline_s=90)
    assert story.accounts().difference == 0


def test_a_redis_that_is_killed_comes_back_with_its_append_only_file(story: LiveRun) -> None:
    before = story.accounts().admitted
    the_process(story, "valkey").kill()

    def back() -> bool:
        try:
            return story.accounts().admitted >= before
        except redis.RedisError:
            return False

    story.until(back, "its accounts")
    goes_on(story, deadline_s=90)


def test_connections_that_are_cut_cost_nothing(story: LiveRun) -> None:
    for _ in range(5):
        story.client.client_kill_filter(_type="normal")
        time.sleep(0.3)
    goes_on(story)
    assert story.accounts().difference == 0


def test_a_full_redis_is_waited_for_while_somebody_makes_room(story: LiveRun) -> None:
    client = story.client
    client.config_set("maxmemory", "1mb")
    time.sleep(3.0)
    client.config_set("maxmemory", "0")
    goes_on(story, deadline_s=90)
    assert story.accounts().difference == 0
    logs = "".join(log.read_text() for log in story.folder.glob("logs/*.log"))
    assert "is gone from Redis" not in logs, "full is not gone"


def test_nothing_of_a_run_on_one_machine_can_be_reached_from_another_host(
    story: LiveRun, other_host: OtherHost
) -> None:
    ports = listening(*psutil.Process(story.process.pid).children(recursive=True))
    assert len(ports) >= 3, "Redis, the reward server, the weight store"
    assert other_host.reaches(ports) == set()


def test_the_running_run_is_listed_and_its_redis_is_found_by_its_folder(
    story: LiveRun, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", str(story.folder.parent)]) == 0
    assert capsys.readouterr().out.startswith(f"{story.folder.name}  running  step ")
    for command in ("status", "audit"):
        assert main([command, str(story.folder)]) == 0
        assert f"run {story.folder.name}: balanced" in capsys.readouterr().out
    assert main(["run", "--resume", str(story.folder)]) == CANNOT_GO_ON
    assert "this run is going on already" in capsys.readouterr().err


def test_trace_tells_a_group_s_life_from_the_running_run(story: LiveRun) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "chorus.cli.main", "trace", "0", str(story.folder)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    order = ["admitted group 0", "began to sample", "sampled 4 x", "graded: ", "committed as ", "trained in step "]
    positions = [told.index(word) for word in order]
    assert positions == sorted(positions), told
    assert "durable in checkpoint step-000005" in told


def test_a_step_of_the_running_run_replays_to_the_same_loss(story: LiveRun) -> None:
    whole = [
        p.parent for p in (story.folder / "checkpoints").glob("step-*/manifest.json") if (p.parent / "state").is_dir()
    ]
    step = int(min(whole).name.removeprefix("step-")) + 2  # two steps after a checkpoint that may be pruned any moment
    story.wait_step(step)
    os.kill(the_process(story, "chorus.cli.main", "learner").pid, signal.SIGSTOP)  # so that it keeps the checkpoint
    try:
        told = subprocess.run(
            [sys.executable, "-m", "chorus.cli.main", "replay", str(story.folder), "--step", str(step)],
            cwd=ROOT, capture_output=True, text=True,
        )  # fmt: skip
    finally:
        os.kill(the_process(story, "chorus.cli.main", "learner").pid, signal.SIGCONT)
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.count("the same") == 2
    goes_on(story)


def test_the_run_ends_with_every_group_trained_exactly_once(story: LiveRun, capsys: pytest.CaptureFixture[str]) -> None:
    config = story.config
    config["run"]["steps"] = story.step() + 3
    (story.folder / "config.json").write_text(json.dumps(config))
    the_process(story, "chorus.cli.main", "learner").kill()  # its next start finds the new number of steps
    assert story.finish(120) == 0, story.tail()
    ledger = story.summary()["ledger"]
    trained = Counter(r.entry.index for _, path in stored_steps(RunFolder(story.folder)) for r in read_step(path))
    assert set(trained.values()) == {1}
    assert ledger["outstanding"] == 0
    assert main(["runs", str(story.folder.parent)]) == 0
    assert capsys.readouterr().out.startswith(f"{story.folder.name}  finished  step ")
    for command in ("status", "audit"):
        assert main([command, str(story.folder)]) == 0
        assert (
            f"{ledger['trained']} trained + {sum(ledger['dropped'].values())} dropped + 0 outstanding"
            in capsys.readouterr().out
        )
    assert ledger["admitted"] == len(trained) + sum(ledger["dropped"].values())
