"""`chorus why` and `chorus trace` from Redis alone, and the board on which every process notes its waits."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from pathlib import Path

import pytest
import redis
from prometheus_client import CollectorRegistry, Gauge
from samples import GROUP, MEMBER, TASK
from strictrecord import strict_record

from chorus.cli.inspect.trace import format_events, from_redis
from chorus.cli.inspect.why import explain
from chorus.cli.main import main
from chorus.protocol.ledger import Keys, LearnerLedger, read_accounts
from chorus.protocol.ledger.keys import TASK_GROUP
from chorus.protocol.metrics.waits import WaitReport, Waits, watch_event_loop
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.redis import server_time

KEYS = Keys("run")


def told(client: redis.Redis, ahead_s: float = 0.0) -> str:
    return "\n".join(explain(client, "run", read_accounts(client, KEYS), time.time() + ahead_s))


def board() -> tuple[Waits, CollectorRegistry]:
    registry = CollectorRegistry()
    return Waits("chorus_test", registry), registry


def test_an_open_wait_says_for_what_on_whom_since_when_and_how_long_it_may_last(client: redis.Redis) -> None:
    LearnerLedger(client, "run")
    waits, _ = board()
    with waits.on("rollouts", "generators", 600.0, "step 7"):
        client.hset(KEYS.waits, "learner", waits.report("learner", time.time()).encode())
    assert "learner waits 0.0 s for rollouts from generators, 600 s left (step 7)" in told(client)
    assert "learner waits 4.0 s for rollouts from generators, 596 s left" in told(client, ahead_s=4.0)
    later = told(client, ahead_s=700.0)
    assert "learner has been silent for 700 s; it then waited for:" in later
    assert "OVERDUE by 100 s" in later


def test_a_wait_is_a_metric_while_it_lasts_and_a_sum_afterwards() -> None:
    waits, registry = board()
    with waits.on("grades", "reward server", 5.0):
        time.sleep(0.05)
        age = registry.get_sample_value("chorus_test_waiting_seconds", {"what": "grades"})
        assert age is not None
        assert age >= 0.05
    assert registry.get_sample_value("chorus_test_waiting_seconds", {"what": "grades"}) == 0.0
    waited = registry.get_sample_value("chorus_test_waited_seconds_total", {"what": "grades"})
    assert waited is not None
    assert waited >= 0.05
    assert waits.report("x", time.time()).waits == []


def test_a_wait_that_ends_by_an_error_leaves_the_board() -> None:
    waits, _ = board()
    with pytest.raises(ValueError, match="no"), waits.on("grades", "reward server", 5.0):
        raise ValueError("no")
    assert waits.report("x", time.time()).waits == []


def test_a_gone_generator_that_holds_leases_and_a_queue_that_nobody_serves_are_named(client: redis.Redis) -> None:
    ledger = LearnerLedger(client, "run")
    ledger.admit(0, [TASK.encode(), TASK.encode()], capacity=9)
    client.xreadgroup(TASK_GROUP, "gen-0-beef", {KEYS.tasks: ">"}, count=1)
    gone = MEMBER.model_copy(update={"generator_id": "gen-0-beef", "last_seen": time.time() - 60})
    client.hset(KEYS.members, "gen-0-beef", gone.encode())
    text = told(client)
    assert "gen-0-beef has not been seen for 60 s" in text
    assert "1 groups are queued and no generator is ready" in text
    assert "1 groups are leased by gen-0-beef, which is gone" in text


def test_a_quarantined_generator_is_named(client: redis.Redis) -> None:
    LearnerLedger(client, "run")
    sick = MEMBER.model_copy(update={"state": "quarantined", "last_seen": time.time()})
    client.hset(KEYS.members, "g", sick.encode())
    assert "g is quarantined, so it leases nothing" in told(client)


def test_what_can_not_be_read_hides_nothing_else(client: redis.Redis) -> None:
    LearnerLedger(client, "run")
    client.hset(KEYS.waits, "forged", b"\xff")
    client.hset(KEYS.waits, "learner", WaitReport(process="learner", at=time.time(), waits=[]).encode())
    assert "learner waits for nothing" in told(client)


def test_a_wait_is_told_by_redis_clock_whatever_the_process_own_says(client: redis.Redis) -> None:
    LearnerLedger(client, "run")
    waits, _ = board()
    now = time.time()
    with pytest.MonkeyPatch.context() as clock:
        clock.setattr(time, "time", lambda: now - 3600)
        with waits.on("rollouts", "generators", 600.0):
            clock.setattr(time, "time", lambda: now - 3598)
            client.hset(KEYS.waits, "learner", waits.report("learner", server_time(client)).encode())
    assert "learner waits 2.0 s for rollouts from generators, 598 s left" in told(client)


async def test_an_event_loop_that_stands_still_for_more_than_a_second_warns(caplog: pytest.LogCaptureFixture) -> None:
    registry = CollectorRegistry()
    lag = Gauge("chorus_test_event_loop_lag_seconds", "How late the event loop was last", registry=registry)
    watch = asyncio.create_task(watch_event_loop(lag, logging.getLogger("chorus.test")))
    await asyncio.sleep(0.1)
    time.sleep(1.7)
    await asyncio.sleep(0.1)
    watch.cancel()
    assert "the event loop stood still for 1." in caplog.text
    lag_s = registry.get_sample_value("chorus_test_event_loop_lag_seconds")
    assert lag_s is not None
    assert lag_s > 1.0


def test_a_trace_follows_a_group_from_stream_to_stream(client: redis.Redis) -> None:
    ledger = LearnerLedger(client, "run")
    now = time.time()
    task = TASK.model_copy(update={"admitted_at": now})
    ledger.admit(0, [task.encode()], capacity=9)
    assert ["admitted group 0" in e.what for e in from_redis(client, "run", 0)] == [True]
    reply = client.xreadgroup(TASK_GROUP, "gen-0", {KEYS.tasks: ">"}, count=1)
    assert reply
    leased = from_redis(client, "run", 0)[-1]
    assert (leased.who, leased.what) == ("gen-0", "leased or renewed, delivery 1")

    timing = GROUP.timing.model_copy(update={"started": now + 0.001, "generated": now + 0.002, "graded": now + 0.003})
    group = GROUP.model_copy(update={"task": task, "timing": timing})
    client.xadd(KEYS.rollouts, {"i": 0, "d": group.encode()}, id=f"{int(now * 1000) + 10}-0")
    (entry,) = ledger.read(1, 0.1)
    ledger.trained(3, [entry.id])
    lines = format_events(from_redis(client, "run", 0))
    assert [line.split("s  ", 1)[-1].split()[0] for line in lines[:2]] == ["learner", "g"]
    assert "graded: 2 correct" in lines[3]
    assert re.search(r"\+0\.0(09|10)s", lines[4]), "an entry's id has whole milliseconds"
    assert "committed as" in lines[4]
    assert "trained in step 3, not yet durable" in lines[5]


def test_a_group_that_nobody_knows_is_one_line(
    redis_url: str, client: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    LearnerLedger(client, "run")
    assert main(["trace", "99", "run", "--redis", redis_url]) == 3
    assert "nobody knows a group 99" in capsys.readouterr().err


def test_what_the_newest_step_was_told_is_said_of_a_runs_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path)
    run.config.write_text("{}")
    told = {"accuracy": 0.5, "accuracy_best": 0.75, "reference_reset": None}
    open_, closed = (dict.fromkeys(("short_gate", "interleaved_gate", "cosine_gate"), gate) for gate in (1, 0))
    run.append_record(strict_record(1, **told, **open_, reference_resets=0))
    assert main(["why", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "reference" not in said
    assert "paid nothing" not in said
    why = "stall: no gain over 0.350 in 3 validations"
    run.append_record(strict_record(2, **told | open_ | {"reference_resets": 1, "reference_reset": why}))
    run.append_record(strict_record(3, **told, **closed, reference_resets=1))
    assert main(["why", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert f"  the reference policy was reset 1 time, last before step 2 ({why})\n" in out
    assert "  step 3 paid nothing for short answers: accuracy is 0.500, and has been 0.750\n" in out
    assert "  step 3 paid nothing for sub-answers: accuracy, 0.500, had fallen from the step before\n" in out
    assert "  step 3 paid nothing for few tokens: the cosine term is off for now\n" in out
