"""What vLLM's process is asked and how it is started and lost: the real loop, with an engine that computes nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import killed_engines
import numpy as np
import psutil
import pytest
import standin
from standin import GROUP, StandIn, served

from chorus.generator import vllm_engine
from chorus.generator.engine import EngineError, EngineGone
from chorus.generator.vllm_engine import VllmEngine
from chorus.protocol.config.run import RunConfig
from chorus.protocol.messages import SyncOffer, WeightCheck, pack_floats, pack_ids
from chorus.protocol.runtime.processes import Guarded, SpawnError, spawn_guarded

CONFIG = RunConfig.model_validate(
    {
        "model": {"path": "none", "context": 64},
        "problems": {"train": ["none"], "max_prompt_tokens": 16},
        "templates": {"names": ["qwen-math"]},
        "sampling": {"group_size": 2, "max_tokens": 16},
    }
)
NEVER = 10**9  # steps


@asynccontextmanager
async def answering(folder: Path, engine: StandIn) -> AsyncIterator[VllmEngine]:
    """An agent's engine whose process is that stand-in."""
    with served(engine) as link:
        ours = VllmEngine(CONFIG, folder / "vllm.log")
        link.setblocking(False)
        await ours._meet(link)
        yield ours
        await ours.stop()


# -- questions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "top_p", "stop"),
    [({}, 1.0, []), ({"top_p": 0.95}, 0.95, []), ({"stop": [3, 7]}, 1.0, [3, 7])],
)
async def test_a_request_says_how_its_samples_are_drawn_and_where_they_end(
    tmp_path: Path, asked: dict[str, Any], top_p: float, stop: list[int]
) -> None:
    engine = StandIn()
    async with answering(tmp_path, engine) as agent:
        first, second = await agent.generate([1, 2], 2, 0.7, 8, 10.0, **asked)
    assert (first.token_ids, first.logprobs, first.versions) == ([5, 6], [-0.5, -0.25], [(1, 4, 2)])
    assert (second.token_ids, second.logprobs, second.versions) == ([7], [-0.125], [(1, 4, 1)])
    assert (first.finish_reason, second.finish_reason) == ("stop", "length")
    sampling = {"n": 2, "max_tokens": 8, "temperature": 0.7, "top_p": top_p, "logprobs": 0, "stop_token_ids": stop}
    assert engine.asked == [("generate", {"prompt": pack_ids([1, 2]), "sampling": sampling})]


async def test_tokens_of_the_weights_that_the_engine_was_started_with_have_a_version_that_nobody_verifies(
    tmp_path: Path,
) -> None:
    async with answering(tmp_path, StandIn(GROUP | {"versions": [[("default", 2)], []]})) as agent:
        first, second = await agent.generate([1, 2], 2, 0.7, 8, 10.0)
    assert (first.versions, second.versions) == ([(-1, -1, 2)], [])


@pytest.mark.parametrize(
    ("top", "gaps"),
    [
        ({5: -0.5, 6: -1.5, 7: -2.0}, [0.0, 0.25]),  # 7 is none of the learner's likeliest
        ({7: -0.5, 8: -1.0}, [np.inf]),  # not one of them is likely here
    ],
)
async def test_the_weight_check_compares_the_learner_s_likeliest_tokens(
    tmp_path: Path, top: dict[int, float], gaps: list[float]
) -> None:
    engine = StandIn(GROUP | {"likeliest": [(pack_ids(list(top)), pack_floats(list(top.values())))]})
    point = WeightCheck(prefix=pack_ids([1, 2]), token_ids=pack_ids([5, 6]), logprobs=pack_floats([-0.5, -1.25]))
    async with answering(tmp_path, engine) as agent:
        assert (await agent.logprob_gaps(offer(checks=[point]))).tolist() == pytest.approx(gaps)
    sampling = {"max_tokens": 1, "temperature": 0.7, "logprobs": 2}
    assert engine.asked == [("generate", {"prompt": pack_ids([1, 2]), "sampling": sampling})]


def offer(checks: list[WeightCheck]) -> SyncOffer:
    return SyncOffer(
        version="1.0", group="g", backend="gloo", store_host="127.0.0.1", store_port=1, world_size=2, timeout_s=9.0,
        bucket_bytes=4096, tensors=[], temperature=0.7, tolerance=1e-3, checks=checks,
    )  # fmt: skip


async def test_what_nobody_waits_for_any_more_is_aborted(tmp_path: Path) -> None:
    engine = StandIn(steps=NEVER)
    async with answering(tmp_path, engine) as agent:
        with pytest.raises(EngineError, match=r"no answer within 0\.05 s"):
            await agent.generate([1], 2, 0.7, 8, 0.05)
        dropped = asyncio.create_task(agent.generate([2], 2, 0.7, 8, 10.0))
        await agent._call("ping", 10.0)  # it has begun
        dropped.cancel()
        await asyncio.wait({dropped})
        await agent._call("ping", 10.0)
        assert not engine.busy
    assert [do for do, _ in engine.asked if do != "ping"] == ["generate", "abort"] * 2


async def test_an_engine_that_refuses_goes_on(tmp_path: Path) -> None:
    async with answering(tmp_path, StandIn()) as agent:
        with pytest.raises(EngineError, match="vLLM receive: RuntimeError: no such group") as refused:
            await agent.receive(offer([]))
        assert not isinstance(refused.value, EngineGone)
        assert len(await agent.generate([1], 2, 0.7, 8, 10.0)) == 2


async def test_an_engine_that_hangs_up_is_gone_for_everybody(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    agent = VllmEngine(CONFIG, tmp_path / "vllm.log")
    ours.setblocking(False)
    await agent._meet(ours)
    waiting = [asyncio.create_task(agent.generate([n], 2, 0.7, 8, 10.0)) for n in range(3)]
    await asyncio.sleep(0)
    theirs.close()
    for task in waiting:
        with pytest.raises(EngineGone, match="hung up"):
            await task
    async with asyncio.timeout(5.0):  # who comes later is told at once, not after a deadline of its own
        with pytest.raises(EngineGone, match="hung up"):
            await agent.generate([1], 2, 0.7, 8, 10.0)
    await agent.stop()
    with pytest.raises(EngineGone, match="not running"):
        await agent.generate([1], 2, 0.7, 8, 10.0)


# -- a process -------------------------------------------------------------------------------------


def stand_in(monkeypatch: pytest.MonkeyPatch, program: Sequence[str] = (standin.__file__,)) -> list[list[str]]:
    """Have `program` started where vLLM's process would be; what that would have been told is in the list."""
    told: list[list[str]] = []

    def spawn(argv: Sequence[str], **how: Any) -> Guarded:
        told.append(list(argv))
        return spawn_guarded([sys.executable, *program, argv[3]], **how)

    monkeypatch.setattr(vllm_engine, "spawn_guarded", spawn)
    return told


async def test_vllm_gets_the_environment_less_what_harms_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, str] = {}

    def spawn(argv: list[str], *, env: dict[str, str], **_: Any) -> None:
        given.update(env, socket=argv[3])
        raise SpawnError("not today")

    monkeypatch.setattr("chorus.generator.vllm_engine.spawn_guarded", spawn)
    long = tmp_path / ("x" * 90)
    long.mkdir()
    for name, value in {"VLLM_PLUGINS": "theirs", "WORLD_SIZE": "2", "HF_HOME": "/hub"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setenv("HOME", "/proc/nobody")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(SpawnError):
        await VllmEngine(CONFIG, tmp_path / "logs" / "vllm.log").start()
    assert "WORLD_SIZE" not in given
    assert (given["VLLM_PLUGINS"], given["HF_HOME"], given["TMPDIR"]) == ("theirs,chorus", "/hub", str(long))
    assert given["PYTHONSAFEPATH"] == "1"
    assert given["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert len(given["VLLM_RPC_BASE_PATH"]) <= 70
    assert Path(given["socket"]).parent.parent == Path(given["VLLM_RPC_BASE_PATH"])
    assert given["XDG_CACHE_HOME"] == str(tmp_path / "logs" / "cache")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="on one core everything is bound to it")
async def test_a_started_engine_runs_with_all_its_processes_on_its_own_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = stand_in(monkeypatch)
    all_cores = os.sched_getaffinity(0)
    own = {max(all_cores)}
    engine = VllmEngine(CONFIG, tmp_path / "vllm.log", own)
    try:
        await engine.start()
        assert engine.world_size == 3
        assert engine.pid is not None
        process = psutil.Process(engine.pid)
        family = [process, *process.children(recursive=True)]
        assert len(family) == 2
        assert [set(member.cpu_affinity() or ()) for member in family] == [own, own]
        assert os.sched_getaffinity(0) == all_cores, "the agent runs where it may"
    finally:
        await engine.stop()
    ((_, _, module, path, *arguments),) = told
    assert module == "chorus.generator.vllm_process"
    assert not Path(path).parent.exists(), "once the two have met nobody else can come"
    assert arguments[:4] == ["--model", "none", "--dtype", "bfloat16"]


async def test_the_socket_waits_in_a_folder_for_its_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []

    def spawn(argv: Sequence[str], **_: Any) -> None:
        modes.append(stat.S_IMODE(Path(argv[3]).parent.stat().st_mode))
        raise SpawnError("not today")

    monkeypatch.setattr(vllm_engine, "spawn_guarded", spawn)
    before = os.umask(0)
    try:
        with pytest.raises(SpawnError):
            await VllmEngine(CONFIG, tmp_path / "vllm.log").start()
    finally:
        os.umask(before)
    assert modes == [0o700]


@pytest.mark.parametrize(("number", "at_once"), [(signal.SIGKILL, True), (signal.SIGSTOP, False)])
async def test_an_engine_that_was_killed_or_stopped_is_found_and_another_one_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, at_once: bool
) -> None:
    stand_in(monkeypatch)
    monkeypatch.setattr(vllm_engine, "_PING_S", 0.1)
    monkeypatch.setattr(vllm_engine, "_SILENCE_S", 0.5)
    engine = VllmEngine(CONFIG, tmp_path / "vllm.log")
    try:
        await engine.start()
        dead = asyncio.create_task(engine.wait_dead())
        await asyncio.sleep(0.3)
        assert not dead.done(), "it answers"
        assert engine.pid is not None
        os.kill(engine.pid, number)
        begin = time.monotonic()
        await asyncio.wait_for(dead, 10.0)
        assert at_once or time.monotonic() - begin >= 0.4, "a loop that is late once is not dead"
        await engine.start()
        assert engine.starts == 2
        assert len(await engine.generate([1], 2, 0.7, 8, 10.0)) == 2
    finally:
        await engine.stop()


async def test_a_process_that_ends_before_it_is_healthy_leaves_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, ("-c", "raise ValueError('no such model')"))
    with pytest.raises(EngineError, match=r"ended with status 1 while starting \(ValueError: no such model\)"):
        await VllmEngine(CONFIG, tmp_path / "vllm.log").start()


async def test_a_process_that_never_gets_healthy_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, ("-c", "import time; time.sleep(60)"))
    late = CONFIG.model_copy(update={"generator": CONFIG.generator.model_copy(update={"start_deadline_s": 0.3})})
    engine = VllmEngine(late, tmp_path / "vllm.log")
    with pytest.raises(EngineError, match=r"not healthy after generator\.start_deadline_s = 0\.3 s"):
        await engine.start()
    await engine.stop()


def test_twenty_killed_engines_leave_no_descriptor_no_thread_and_no_memory(tmp_path: Path) -> None:
    argv = [sys.executable, killed_engines.__file__, str(tmp_path)]
    held = json.loads(subprocess.run(argv, check=True, capture_output=True, timeout=60).stdout)
    (first_fds, first_threads, first_rss), (fds, threads, rss) = held
    assert (fds, threads) == (first_fds, first_threads)
    assert rss - first_rss < 2 * 2**20
