"""A guarded command leaves nothing behind, whichever process of its chain is killed, and however."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from chorus.protocol.runtime.processes import Guarded, SpawnError, bind_tree, spawn_guarded

# A family that is hard to get rid of: a child that ignores SIGTERM, and below it one that has also left for a
# session of its own behind a father who is dead. Each process writes its pid into the folder.
FAMILY = """
import os, signal, sys, time
folder = sys.argv[1]
def here(role):
    open(f"{folder}/{role}.new", "w").write(str(os.getpid()))
    os.rename(f"{folder}/{role}.new", f"{folder}/{role}.pid")
if sys.argv[2] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        os.setsid()
        if os.fork() > 0:
            os._exit(0)
        here("daemon")
        time.sleep(600)
    here("child")
    time.sleep(600)
here("command")
time.sleep(600)
"""

PARENT = """
import sys, time
from pathlib import Path
from chorus.protocol.runtime.processes import spawn_guarded
child = spawn_guarded(sys.argv[1:], name="family", grace_s=0.5)
time.sleep(600)
"""

ROLES = ("command", "child", "daemon")


def family(folder: Path, manner: str = "polite") -> list[str]:
    return [sys.executable, "-c", FAMILY, str(folder), manner]


def eventually(condition: Callable[[], bool], what: str, deadline_s: float = 15.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        time.sleep(0.02)


def pids_of(folder: Path) -> list[int]:
    eventually(lambda: all((folder / f"{role}.pid").exists() for role in ROLES), "the family is complete")
    return [int((folder / f"{role}.pid").read_text()) for role in ROLES]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def all_gone(pids: list[int]) -> None:
    eventually(lambda: not any(alive(pid) for pid in pids), "all processes are gone")


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[Guarded, list[int]]]:
    process = spawn_guarded(family(tmp_path), name="family")
    pids = pids_of(tmp_path)
    assert pids[0] == process.pid
    yield process, pids
    process.kill()
    all_gone(pids)


@pytest.mark.parametrize("manner", ["polite", "stubborn"])
def test_the_family_dies_with_a_parent_that_is_killed(tmp_path: Path, manner: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, *family(tmp_path, manner)])
    pids = pids_of(tmp_path)
    guard = parent_of(pids[0])
    pids += [guard, parent_of(guard)]
    parent.kill()
    parent.wait()
    all_gone(pids)


def test_the_family_dies_with_a_killed_guard(guarded: tuple[Guarded, list[int]]) -> None:
    process, pids = guarded
    os.kill(parent_of(process.pid), signal.SIGKILL)
    assert process.wait(15) == -signal.SIGKILL
    all_gone(pids)


def test_the_family_dies_with_a_killed_reaper(guarded: tuple[Guarded, list[int]]) -> None:
    process, pids = guarded
    guard = parent_of(process.pid)
    os.kill(parent_of(guard), signal.SIGKILL)
    assert process.wait(15) == -signal.SIGKILL
    all_gone([*pids, guard])


def test_the_family_dies_with_a_killed_command(guarded: tuple[Guarded, list[int]]) -> None:
    process, pids = guarded
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(15) == -signal.SIGKILL
    all_gone(pids)


def test_stop_kills_what_ignores_sigterm_after_the_grace_period(tmp_path: Path) -> None:
    process = spawn_guarded(family(tmp_path, "stubborn"), name="family")
    pids = pids_of(tmp_path)
    started = time.monotonic()
    assert process.stop(grace_s=0.5) == -signal.SIGKILL
    assert 0.5 <= time.monotonic() - started < 5
    all_gone(pids)


def test_kill_does_not_wait(guarded: tuple[Guarded, list[int]]) -> None:
    process, pids = guarded
    started = time.monotonic()
    process.kill()
    assert time.monotonic() - started < 3
    all_gone(pids)


def test_stop_lets_the_command_finish_and_reports_its_status(tmp_path: Path) -> None:
    script = 'trap \'sleep 0.3; echo done > "$0"; exit 7\' TERM; echo ready > "$0"; while :; do sleep 0.05; done'
    note = tmp_path / "note"
    process = spawn_guarded(["sh", "-c", script, str(note)], name="finisher")
    eventually(note.exists, "the command is ready")
    assert process.poll() is None
    assert process.stop(grace_s=10) == 7
    assert note.read_text() == "done\n"
    assert process.poll() == 7


def test_a_guard_holds_on_to_its_own_parent_only(tmp_path: Path) -> None:
    """The second guard must not keep the first one's socket open, or the first would never see the end."""
    first = spawn_guarded(["sleep", "600"], name="first", grace_s=1)
    second = spawn_guarded(["sleep", "600"], name="second", grace_s=1)
    pid = first.pid
    del first
    all_gone([pid])
    assert second.poll() is None
    second.kill()


def test_the_command_outlives_the_thread_that_started_it() -> None:
    started: list[Guarded] = []
    thread = threading.Thread(target=lambda: started.append(spawn_guarded(["sleep", "600"], name="sleeper")))
    thread.start()
    thread.join()
    time.sleep(0.3)
    assert started[0].poll() is None
    started[0].kill()


def test_a_command_that_ends_at_once_is_seen_to_end() -> None:
    processes = [spawn_guarded(["true"], name="hasty") for _ in range(20)]
    assert [process.wait(10) for process in processes] == [0] * 20


async def test_it_can_be_awaited() -> None:
    assert await spawn_guarded(["sh", "-c", "exit 5"], name="five").wait_async() == 5


def test_output_environment_and_cores_are_the_given_ones(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = "import os; print(os.environ['VOICE'], os.sched_getaffinity(0), sorted(os.listdir('/proc/self/fd')))"
    core = max(os.sched_getaffinity(0))
    process = spawn_guarded(
        [sys.executable, "-c", code], name="child", env={**os.environ, "VOICE": "alto"}, log=log, cpus={core}
    )
    assert process.wait(10) == 0
    voice, cores, files = log.read_text().strip().split(" ", 2)
    assert (voice, cores) == ("alto", f"{{{core}}}")
    # The fourth is listdir's own: the command inherits neither the socket nor the guard's pipe.
    assert files == "['0', '1', '2', '3']"


def test_a_command_that_does_not_exist_is_one_clear_error() -> None:
    with pytest.raises(SpawnError, match=r"^ghost can't be started: .*no-such-command"):
        spawn_guarded(["no-such-command"], name="ghost")


def test_waiting_has_a_deadline(guarded: tuple[Guarded, list[int]]) -> None:
    with pytest.raises(TimeoutError, match=r"family \(pid \d+\) still runs after 0.1 s"):
        guarded[0].wait(0.1)


TREE = """
import os, subprocess, sys, threading, time
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
child = subprocess.Popen([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"])
time.sleep(60)
"""


def test_a_whole_tree_can_be_bound_to_a_core_after_its_start(tmp_path: Path) -> None:
    log = tmp_path / "tree.log"
    tree = spawn_guarded([sys.executable, "-c", TREE], name="tree", log=log)
    try:
        end = time.monotonic() + 20
        while "up" not in log.read_text():
            assert time.monotonic() < end
            time.sleep(0.05)
        core = min(os.sched_getaffinity(0))
        bind_tree(tree.pid, {core})
        processes = [psutil.Process(tree.pid), *psutil.Process(tree.pid).children(recursive=True)]
        threads = [thread.id for process in processes for thread in process.threads()]
        assert (len(processes), len(threads)) == (2, 3)
        assert all(os.sched_getaffinity(thread) == {core} for thread in threads)
    finally:
        tree.stop(1.0)
    bind_tree(tree.pid, {core})  # it has ended: nothing to bind, and no error
