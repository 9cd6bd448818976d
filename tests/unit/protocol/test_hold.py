"""A run's folder and its ledger have one owner: told here by its process, elsewhere by its signs of life."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from chorus.protocol.ledger import Keys, lease
from chorus.protocol.ledger.lease import await_free, holder, leased
from chorus.protocol.run_folder import hold
from chorus.protocol.run_folder.files import read_json, write_json
from chorus.protocol.run_folder.hold import held, is_held
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.owner import Owner

ELSEWHERE = Owner(host="pod-1", boot="another boot", namespace="pid:[1]", pid=1, started=7)


@pytest.fixture
def dead() -> Owner:
    """One that ended, and whose pid was given to another process."""
    return replace(Owner.me(), started=Owner.me().started - 1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hold, "_PATIENCE_S", 0.05)
    monkeypatch.setattr(hold, "_POLL_S", 0.02)
    monkeypatch.setattr(hold, "WATCH_S", 0.3)
    monkeypatch.setattr(lease, "_POLL_S", 0.02)
    monkeypatch.setattr(lease, "LEASE_S", 0.4)


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_an_owner_is_told_by_its_pid_and_its_start(dead: Owner) -> None:
    me = Owner.me()
    assert me.is_here
    assert me.lives
    assert not dead.lives
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        ticks = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19])
        other = replace(me, pid=child.pid, started=ticks)
        assert other.lives
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not other.lives, "ended, though nobody has buried it yet"
    assert not ELSEWHERE.is_here
    assert Owner.read(me.as_dict()) == me
    assert Owner.read({"pid": 1}) is None


def test_a_second_start_is_refused_with_its_owner_and_a_first_one_that_died_is_not_in_the_way(
    tmp_path: Path, dead: Owner
) -> None:
    with held(tmp_path):
        assert is_held(tmp_path)
        with pytest.raises(CannotGoOn, match=rf"going on already, by process {os.getpid()} on host .*; stop the other"):
            held(tmp_path).__enter__()
    assert not is_held(tmp_path)
    assert not (tmp_path / hold.OWNER).exists()
    write_json(tmp_path / hold.OWNER, dead.as_dict())
    with held(tmp_path):
        assert Owner.read(read_json(tmp_path / hold.OWNER)) == Owner.me()


@pytest.mark.usefixtures("without_locks")
def test_where_the_file_system_knows_no_locks_the_owners_process_decides(tmp_path: Path, dead: Owner) -> None:
    write_json(tmp_path / hold.OWNER, dead.as_dict())
    with held(tmp_path):
        pass
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        ticks = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19])
        write_json(tmp_path / hold.OWNER, replace(Owner.me(), pid=child.pid, started=ticks).as_dict())
        assert is_held(tmp_path)
        with pytest.raises(CannotGoOn, match=f"by process {child.pid} on host"):
            held(tmp_path).__enter__()
        child.kill()


def test_an_owner_from_elsewhere_is_gone_when_its_count_stands_still(tmp_path: Path) -> None:
    write_json(tmp_path / hold.OWNER, ELSEWHERE.as_dict() | {"beats": 3})
    began = time.monotonic()
    with held(tmp_path):
        assert 0.25 < time.monotonic() - began < 2


def test_an_owner_from_elsewhere_whose_count_goes_up_keeps_the_folder(tmp_path: Path) -> None:
    write_json(tmp_path / hold.OWNER, ELSEWHERE.as_dict() | {"beats": 3})
    later = threading.Timer(0.1, write_json, (tmp_path / hold.OWNER, ELSEWHERE.as_dict() | {"beats": 4}))
    later.start()
    with pytest.raises(CannotGoOn, match="by process 1 on host pod-1"):
        held(tmp_path).__enter__()
    later.join()


def test_an_owner_of_this_kernel_whose_lock_is_free_is_gone_at_once(tmp_path: Path) -> None:
    """A container of this host: its pids are others, the lock is the same."""
    write_json(tmp_path / hold.OWNER, replace(ELSEWHERE, boot=Owner.me().boot).as_dict())
    began = time.monotonic()
    with held(tmp_path):
        assert time.monotonic() - began < 0.2


def test_the_lease_is_prolonged_while_its_owner_lives_and_let_go_at_the_end(
    client: redis.Redis, tmp_path: Path
) -> None:
    with leased(client, client, "run", tmp_path):
        time.sleep(0.6)
        assert client.pttl(Keys("run").owner) > 100
        assert holder(client, "run").endswith(f"folder {tmp_path}")
    assert not client.exists(Keys("run").owner)


def test_a_second_learner_here_is_refused_and_one_that_died_is_followed_at_once(
    client: redis.Redis, tmp_path: Path, dead: Owner
) -> None:
    text = dead.text[:-1] + ', "folder": "/runs/a"}'
    client.set(Keys("run").owner, text, px=60_000)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with child, leased(client, client, "run", tmp_path):
        ticks = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19])
        other = replace(Owner.me(), pid=child.pid, started=ticks).text
        client.set(Keys("run").owner, other[:-1] + ', "folder": "/runs/a"}')
        with pytest.raises(CannotGoOn, match=f"process {child.pid} on host .* trains it in /runs/a; stop that one"):
            await_free(client, "run", "me")
        child.kill()


def test_a_lease_from_elsewhere_is_waited_for_until_it_has_run_out(client: redis.Redis, tmp_path: Path) -> None:
    client.set(Keys("run").owner, ELSEWHERE.text, px=300)
    began = time.monotonic()
    with leased(client, client, "run", tmp_path):
        assert 0.2 < time.monotonic() - began < 2


def test_a_lease_from_elsewhere_that_is_prolonged_meanwhile_is_its_owners(client: redis.Redis) -> None:
    client.set(Keys("run").owner, ELSEWHERE.text, px=300)
    later = threading.Timer(0.1, client.set, (Keys("run").owner, ELSEWHERE.text), {"px": 400})
    later.start()
    with pytest.raises(CannotGoOn, match="process 1 on host pod-1 trains it"):
        await_free(client, "run", "me")
    later.join()
    assert client.get(Keys("run").owner) == ELSEWHERE.text.encode()
