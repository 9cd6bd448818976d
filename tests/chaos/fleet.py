"""A run in processes of its own, with scripted engines but for the first few, as the chaos runner sees it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import redis
from proxy import Proxy
from scripted_run import RECIPE
from scriptedlive import environment

from chorus.protocol.ledger import Keys
from chorus.protocol.messages import Member, MessageError
from chorus.protocol.run_folder.folder import RunFolder

ROOT = Path(__file__).parents[2]
REPLICAS = 3
GENERATORS = [f"gen-{n}" for n in range(REPLICAS)]
VLLM = "vllm"  # of the first generator, if that is a real one
# What stands in a process's command line, the first that fits. Valkey renames itself.
WORDS = [
    ("guard", ("guard.py",)),
    ("learner", ("chorus.cli.main", "learner")),
    ("reward-server", ("chorus.cli.main", "reward-server")),
    ("grader", ("chorus.reward_server.pool.worker",)),
    ("redis", ("valkey",)),
    (VLLM, ("generator.vllm_process",)),
    *((name, ("generator", name)) for name in GENERATORS),
]
# vLLM takes its time: to start, and beside two others on one core to receive and to answer.
SLOWER = ["learner.sync_deadline_s=10.0", 'generator.vllm_args=["--enforce-eager"]']


@dataclass
class Fleet:
    """The run in `folder`; every generator reaches Redis through a proxy of its own."""

    folder: Path
    real: int = 0  # generators with vLLM
    rss: dict[str, list[int]] = field(default_factory=dict)  # bytes by role, two a second

    def start(self) -> None:
        from tinymodel import save_tiny_model

        self.proxies = [Proxy(self._redis_address) for _ in range(REPLICAS)]
        model = save_tiny_model(self.folder / "model", 64 if self.real else 16)
        self.recipe = self.folder / "chaos.toml"
        text = RECIPE.format(runs=self.folder / "runs", steps=1_000_000, model=model, replicas=REPLICAS)
        self.recipe.write_text(text)
        self.output = self.folder / "output.log"
        self.launcher = self._launch(*(f"--set={item}" for item in (SLOWER if self.real else ())))

    def _launch(self, *more: str) -> subprocess.Popen[bytes]:
        ports = ",".join(str(proxy.port) for proxy in self.proxies)
        env = environment(float(os.environ.get("CHORUS_TEST_DELAY_S", "0.8"))) | {"CHORUS_TEST_PROXIES": ports}
        argv = [sys.executable, str(ROOT / "tests" / "support" / "scripted_run.py"), str(self.recipe)]
        with self.output.open("ab") as log:
            return subprocess.Popen([*argv, "--real", str(self.real), *more], env=env, cwd=ROOT, stdout=log, stderr=log)

    # -- what is done to the run as a whole -----------------------------------------------------------------------

    def resume(self, *overrides: str, name: str = "") -> None:
        """Kill the launcher, rename the folder, and go on with other keys."""
        children = psutil.Process(self.launcher.pid).children(recursive=True)
        self.launcher.kill()
        self.launcher.wait()
        _, left = psutil.wait_procs(children, timeout=30)
        if left:
            raise RuntimeError(f"left behind by a killed launcher: {left}")
        if name:
            self.run_dir.rename(self.run_dir.with_name(name))
        self.launcher = self._launch("--resume", str(self.run_dir), *(f"--set={item}" for item in overrides))

    def start_twice(self) -> int:
        """The exit status of a second start of the run that is going on."""
        second = self._launch("--resume", str(self.run_dir))
        try:
            return second.wait(60)
        finally:
            second.kill()

    # -- what can be seen of the run ------------------------------------------------------------------

    @property
    def run_dir(self) -> Path:
        return next((self.folder / "runs").glob("*/run.json")).parent

    def config(self) -> dict[str, Any]:
        return json.loads((self.run_dir / "config.json").read_text())

    def _redis_address(self) -> tuple[str, int]:
        url = urlsplit(self.config()["redis"]["url"])
        return str(url.hostname), int(url.port or 0)

    def client(self) -> redis.Redis:
        host, port = self._redis_address()
        return redis.Redis(host, port, socket_timeout=2.0, socket_connect_timeout=2.0)

    def step(self) -> int:
        return self.record().get("step", 0)

    def record(self) -> dict[str, Any]:
        """The newest one; empty before the first step."""
        try:
            with (self.run_dir / "metrics.jsonl").open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - 8192))
                lines = file.read().split(b"\n")[:-1]
            return json.loads(lines[-1])
        except (OSError, StopIteration, IndexError, ValueError):
            return {}

    def ready(self) -> dict[str, Member]:
        """Service name -> its newest live and ready member."""
        try:
            found: Any = self.client().hgetall(Keys(RunFolder(self.run_dir).run_id).members)
        except (redis.RedisError, OSError, StopIteration):
            return {}
        members: dict[str, Member] = {}
        for data in found.values():
            try:
                member = Member.decode(data)
            except MessageError:
                continue
            if member.state == "ready" and time.time() - member.last_seen < 3:
                members[member.generator_id.rpartition("-")[0]] = member
        return members

    def processes(self) -> dict[str, psutil.Process]:
        """Role -> its process, of those that live; where a role has several, the one nearest to the launcher."""
        found: dict[str, psutil.Process] = {}
        for role, p in self._all():
            found.setdefault(role, p)
        return found

    def _all(self) -> Iterator[tuple[str, psutil.Process]]:
        for p in psutil.Process(self.launcher.pid).children(recursive=True):
            try:
                line = p.cmdline()
            except psutil.Error:
                continue
            yield next((r for r, words in WORDS if all(any(w in part for part in line) for w in words)), "other"), p

    def sample_memory(self) -> None:
        """Of every process; of the largest one where a role has several."""
        now = {"launcher": psutil.Process(self.launcher.pid).memory_info().rss}
        for role, process in self._all():
            with contextlib.suppress(psutil.Error):
                now[role] = max(now.get(role, 0), process.memory_info().rss)
        for role, rss in now.items():
            self.rss.setdefault(role, []).append(rss)

    def check_alive(self) -> None:
        if self.launcher.poll() is not None:
            raise RuntimeError(f"the run ended by itself with status {self.launcher.returncode}: {self.tail()}")

    def until(self, condition: Callable[[], object], what: str, deadline_s: float) -> None:
        end = time.monotonic() + deadline_s
        while not condition():
            self.check_alive()
            if time.monotonic() > end:
                raise RuntimeError(f"no {what} within {deadline_s:g} s: {self.tail()}")
            time.sleep(0.2)

    def tail(self) -> str:
        logs = [self.output, *sorted(self.folder.glob("runs/*/logs/*.log"))]
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}" for log in logs)

    def close(self) -> None:
        if self.launcher.poll() is None:
            for process in self.processes().values():
                process.resume()  # a paused one could not be asked to stop
            self.launcher.terminate()
            try:
                self.launcher.wait(60)
            except subprocess.TimeoutExpired:
                self.launcher.kill()
                self.launcher.wait()
        for proxy in self.proxies:
            proxy.close()
