"""The head of a run on Slurm: Redis and the reward server, on whatever node it has come to.

    claim ──▶ the older start has left ──▶ Redis, reward server ──▶ config.json, slurm/head ──▶ watched
                                                                     (addresses)               until `slurm/stop`

Its Redis keeps an append-only file in the run's folder: on another node it comes back with all that it held. Two of
them must never write to that file, so a head whose start is not the newest ends itself, and the newest waits for it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import redis

from chorus.deploy.services import chorus_command, service_environment, valkey_binary
from chorus.deploy.slurm.run import Files
from chorus.deploy.supervisor import Service, ServiceFailed, Supervisor
from chorus.protocol.ledger import Keys
from chorus.protocol.messages import Member, MessageError
from chorus.protocol.run_folder.files import read_json, write_whole
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.hold import held
from chorus.protocol.runtime.environment import with_caches
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.redis import await_redis, glance, server_time

log = logging.getLogger("chorus.slurm")
POLL_S = 0.5
OLDER_S = 60.0  # until the head before this one has left: on another node it must first have read its claim
LAST_S = 180.0  # until the others have left, once the run is over
SILENT_S = 15.0  # who was not seen for so long is gone
REDIS_DEADLINE_S = 300.0  # a long append-only file is read first


def serve(run: RunFolder, host: str, start: str) -> int:
    """Until the run is over (0), or the job is asked to leave its node (143). Raises CannotGoOn."""
    files = Files(run)
    with _signals() as asked, _alone(run.path, asked):
        supervisor = Supervisor(run.logs, log.warning)
        try:
            url, over_since = "", 0.0
            while not asked and (files.folder / "claim-head").read_text().strip() == start:
                url = url or _start(supervisor, files, host, start)
                supervisor.tick()
                if files.stop.exists():
                    over_since = over_since or time.monotonic()
                    if _is_quiet(url, run.run_id) or time.monotonic() - over_since > LAST_S:
                        return os.EX_OK
                time.sleep(POLL_S)
        except ServiceFailed as failure:
            raise CannotGoOn(str(failure)) from None
        finally:
            supervisor.stop()
    log.warning("the head leaves %s: %s", host, "it is asked to" if asked else "a newer start of its job is there")
    return 128 + asked[0] if asked else os.EX_OK


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Those that have come."""
    came: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in numbers}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _alone(folder: Path, asked: list[int]) -> Iterator[None]:
    """Hold the run's folder, as `chorus run` does. Raises CannotGoOn where another has it for longer than OLDER_S."""
    end = time.monotonic() + OLDER_S
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(held(folder))
                break
            except CannotGoOn:
                if time.monotonic() > end or asked:
                    raise
        yield


def _start(supervisor: Supervisor, files: Files, host: str, start: str) -> str:
    """Start what the run has of its own, and tell where it answers. Returns Redis' address."""
    files.head.unlink(missing_ok=True)
    run = files.run
    fields = read_json(run.config)
    note = read_json(run.note)
    environment = with_caches(service_environment(), run.path / "cache")
    redis_section, reward = fields.setdefault("redis", {}), fields.setdefault("reward", {})
    if note.get("own_redis"):
        port = _free_port(host, redis_section.get("url", ""))
        password = files.password.read_text().strip()
        redis_section["url"] = f"redis://:{password}@{_in_url(host)}:{port}/0"
        supervisor.start(_redis(files, host, port, password, environment))
    url = redis_section["url"]
    await_redis(url, REDIS_DEADLINE_S)
    if note.get("own_reward_server"):
        port = _free_port(host, reward.get("url", ""))
        reward["url"] = f"http://{_in_url(host)}:{port}"
    write_whole(run.config, json.dumps(fields, indent=2) + "\n", private=True)
    if note.get("own_reward_server"):
        argv = chorus_command("reward-server", "--host", host, "--port", str(port), "--recipe", str(run.config))
        token = {"CHORUS_REWARD_TOKEN": files.token.read_text().strip()}
        supervisor.start(Service("reward-server", "reward-server", argv, environment | token))
    where = urlsplit(url)
    write_whole(files.head, f"{where.hostname} {where.port or 6379} {start}\n")
    return url


def _redis(files: Files, host: str, port: int, password: str, environment: dict[str, str]) -> Service:
    """Its settings are a file: the password stands neither among its arguments nor in its environment."""
    data = files.run.redis
    data.mkdir(exist_ok=True)
    settings = {
        "bind": host,
        "port": port,
        "dir": json.dumps(str(data.resolve())),
        "requirepass": password,
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": '""',
        "maxmemory-policy": "noeviction",
    }
    path = files.folder / "redis.conf"
    write_whole(path, "".join(f"{name} {value}\n" for name, value in settings.items()), private=True)
    return Service("redis", "redis", (valkey_binary(), str(path)), environment)


def _free_port(host: str, before: str) -> int:
    """The port of last time where it is free: who knows the address then needs no other."""
    with contextlib.suppress(ValueError):
        wanted = urlsplit(before).port or 0
        for port in (wanted, 0):
            with contextlib.suppress(OSError), socket.create_server((host, port)) as probe:
                return probe.getsockname()[1]
    raise CannotGoOn(f"--host {host}: can't listen there; give an address of this node that the others reach")


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_quiet(url: str, run_id: str) -> bool:
    """Nobody trains or samples any more."""
    try:
        with glance(url) as client:
            now = server_time(client)
            if client.exists(Keys(run_id).owner):
                return False
            members: dict[bytes, bytes] = client.hgetall(Keys(run_id).members)  # type: ignore[assignment]
    except redis.RedisError:
        return False
    for data in members.values():
        with contextlib.suppress(MessageError):
            if now - Member.decode(data).last_seen < SILENT_S:
                return False
    return True
