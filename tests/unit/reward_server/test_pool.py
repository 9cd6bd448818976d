"""The pool, seen from its own loop: real processes and pipes; the algebra in them is real where a test says so."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
from hostile import HANGS

from chorus.reward_server.graders.task import Clusters, Extracted, GradeResult, GradeTask, Program
from chorus.reward_server.pool.frames import Drop, Dropped, Ended, Frames, Message, Ready, Started, Unusable, Work, pack
from chorus.reward_server.pool.pool import GraderPool, PoolFailedError, QueueFullError
from chorus.reward_server.pool.template import COMMAND, Template
from chorus.reward_server.pool.worker import _guarded

STUB = (sys.executable, str(Path(__file__).parents[2] / "support" / "stub_worker.py"))


def _item(completion: str, gold: str = "4") -> GradeTask:
    return GradeTask("math", completion, (gold,))


@asynccontextmanager
async def _pool(workers: int = 2, timeout_s: float = 1.0, real: bool = False, **fields) -> AsyncIterator[GraderPool]:
    """A pool with its spare, warm. `real`: with the real graders, which take seconds to import."""
    settings = {"memory_bytes": 3 << 29, "max_queue": 1000} | fields
    pool = GraderPool(workers=workers, timeout_s=timeout_s, **settings)
    command = patch("chorus.reward_server.pool.template.COMMAND", COMMAND if real else STUB)
    command.start()
    pool.start()
    try:
        deadline = time.monotonic() + 30
        while not (pool.ready and pool._spares):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        yield pool
    finally:
        await pool.close()
        command.stop()
        await asyncio.sleep(0.1)  # the loop reaps them


def test_messages_survive_any_cut_and_lone_surrogates():
    program = Program("[]", "landlock", 5.0, "fractional", "longest")
    messages: list[Message] = [
        Work((GradeTask("math", "\ud800", ("x" * 1000,)), GradeTask("code", program=program, options=("a",)))),
        Work((GradeTask("mine", row='{"a": 1}'), GradeTask("text", task="cluster", answers=("1", None)))),
        Drop(),
        Dropped(),
        Started(7),
        Ready(),
        Ended(-9),
        Unusable("no such file"),
        GradeResult("correct", 1.0, "math: exact", explanation={"comparisons": ()}, parts={"a": 0.5}, ms=1.5),
        Extracted(None, ""),
        Clusters((0, 1, 0)),
    ]
    data = b"".join(map(pack, messages))
    frames = Frames()
    received = [message for byte in data for message in frames.feed(bytes([byte]))]
    assert received == messages
    assert not frames.partial


async def test_hostile_item_costs_itself_alone_and_the_spare_steps_in():
    restarts: list[str] = []
    async with _pool(on_restart=restarts.append, real=True) as pool:
        started = time.monotonic()
        results = await pool.run([_item(r"\boxed{4}"), _item(HANGS), _item(r"\boxed{5}")])
        took_s = time.monotonic() - started
        assert [r.verdict for r in results] == ["correct", "timeout", "wrong"]
        assert 1.0 <= took_s < 1.5
        assert restarts == ["timeout"]
        assert pool.ready  # from the spare: no worker was missing for a moment


async def test_items_behind_a_hostile_one_are_handed_back_to_other_graders():
    async with _pool(timeout_s=3.0) as pool:
        hostile = asyncio.create_task(pool.run([_item(HANGS)] + [_item(r"\boxed{4}")] * 7))
        await asyncio.sleep(0.6)
        assert pool.unfinished == 1  # the seven neighbours are done, long before the limit
        hostile.cancel()


async def test_no_job_is_lost_when_a_grader_wakes_later_than_the_hand_back(monkeypatch):
    monkeypatch.setattr(
        "chorus.reward_server.pool.grader_process.SLOW_S", 0.0
    )  # every chunk is handed back while it is under way
    async with _pool(timeout_s=5.0) as pool:
        for _ in range(30):
            results = await asyncio.wait_for(pool.run([_item(rf"\boxed{{{i}}}") for i in range(12)]), 10)
            assert [r.extracted for r in results] == [str(i) for i in range(12)]


async def test_a_slow_grade_goes_on_at_the_lowest_priority():
    async with _pool(workers=1, timeout_s=1.5) as pool:
        grader = _pid(pool)
        hostile = asyncio.ensure_future(pool.run([_item(HANGS)]))
        deadline = time.monotonic() + 1.4
        while os.getpriority(os.PRIO_PROCESS, grader) != 19 and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        assert os.getpriority(os.PRIO_PROCESS, grader) == 19
        assert not hostile.done()
        assert (await hostile)[0].verdict == "timeout"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may raise a priority again")
async def test_a_grader_that_was_slow_once_gets_its_priority_back(monkeypatch):
    monkeypatch.setattr("chorus.reward_server.pool.grader_process.YIELD_S", 0.0)
    changes: list[int] = []
    setpriority = os.setpriority
    monkeypatch.setattr(os, "setpriority", lambda *args: (changes.append(args[2]), setpriority(*args)))
    async with _pool(workers=1, real=True) as pool:
        for k in range(20):
            await pool.run([_item(rf"\boxed{{x^2+{k}}}", f"{k}+x^2")])
        assert 19 in changes
        assert os.getpriority(os.PRIO_PROCESS, _pid(pool)) == os.getpriority(os.PRIO_PROCESS, 0)


async def test_many_hostile_items_each_get_their_own_limit():
    async with _pool(workers=2, timeout_s=0.5) as pool:
        results = await pool.run([_item(HANGS)] * 4)
        assert [r.verdict for r in results] == ["timeout"] * 4
        assert (await pool.run([_item(r"\boxed{4}")]))[0].verdict == "correct"


async def test_memory_limit_ends_in_a_verdict():
    async with _pool(workers=1, timeout_s=5.0, memory_bytes=1 << 29, real=True) as pool:
        [result] = await pool.run([_item(r"\boxed{2^{10^{11}}+1}")])
        assert result.verdict in ("error", "wrong")
        assert (await pool.run([_item(r"\boxed{4}")]))[0].verdict == "correct"


def test_a_grader_whose_server_hangs_ends_by_its_own_limit_of_processor_time():
    template = Template(timeout_s=0.5, memory_bytes=3 << 29, grader=None)
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            template.fork(theirs)
        frames = Frames()
        ours.sendall(pack(Work((_item(r"\boxed{4}"),))))
        seen: list[Message] = []
        while len(seen) < 3:
            data = ours.recv(1 << 16)
            assert data, "the grader has ended"
            seen += frames.feed(data)
        assert seen[2].verdict == "correct"  # the limit is for one grade, not for the imports and all grades
        ours.sendall(pack(Work((_item(HANGS),))))
        ours.settimeout(60)
        [end] = frames.feed(ours.recv(1 << 16))
        assert end == Ended(-signal.SIGXCPU)
        assert ours.recv(1) == b""
    finally:
        ours.close()
        template.kill()


async def test_a_grader_that_was_killed_is_replaced_at_once_and_a_lost_template_within_its_imports():
    async with _pool(workers=1, real=True) as pool:
        for _ in range(3):  # the spare alone would serve for one
            started = time.monotonic()
            os.kill(_pid(pool), signal.SIGKILL)
            await asyncio.sleep(0)
            assert (await pool.run([_item(r"\boxed{4}")]))[0].verdict == "correct"
            while not (pool.ready and pool._spares):
                await asyncio.sleep(0.01)
            assert time.monotonic() - started < 1.0
        os.kill(pool.template._process.pid, signal.SIGKILL)
        await asyncio.sleep(0.5)
        os.kill(pool.template._process.pid, signal.SIGKILL)  # with all graders only starting
        [reply] = await asyncio.wait_for(pool.run([_item(r"\boxed{4}")]), 30)
        assert reply.verdict == "correct", reply.reason


@pytest.mark.parametrize("error", [MemoryError, RecursionError, ZeroDivisionError])
def test_what_a_grade_raises_is_an_error_and_never_wrong(error):
    def run(_):
        raise error

    assert _guarded(run, _item("x")).verdict == "error"


async def test_full_queue_refuses_and_takes_nothing():
    async with _pool(workers=1, max_queue=2) as pool:
        with pytest.raises(QueueFullError):
            await pool.run([_item("x")] * 3)
        assert pool.unfinished == 0


async def test_graders_that_never_start_fail_the_pool_with_a_message(monkeypatch):
    monkeypatch.setattr("chorus.reward_server.pool.template.COMMAND", ("/bin/false",))
    pool = GraderPool(workers=1, timeout_s=1.0, memory_bytes=3 << 29, max_queue=10)
    pool.start()
    waiting = asyncio.create_task(pool.run([_item("x")]))
    [result] = await asyncio.wait_for(waiting, 10)
    assert result.verdict == "error"
    with pytest.raises(PoolFailedError, match="end before they are ready"):
        await pool.run([_item("x")])
    await pool.close()


async def test_close_kills_every_grader():
    others = _my_graders()  # an earlier test's may still be ending
    async with _pool():
        pids = _my_graders() - others
        assert len(pids) == 4  # a template and its graders
    deadline = time.monotonic() + 5
    while any(_is_my_grader(Path(f"/proc/{pid}")) for pid in pids):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def _pid(pool: GraderPool) -> int:
    """Of its only active grader."""
    (grader,) = pool._active
    assert grader._pid is not None
    return grader._pid


def _my_graders() -> set[int]:
    return {int(p.name) for p in Path("/proc").glob("[0-9]*") if _is_my_grader(p)}


def _is_my_grader(process: Path) -> bool:
    try:
        arguments = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return STUB[1].encode() in arguments and str(os.getpid()).encode() in arguments
