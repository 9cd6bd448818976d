"""A real run as a process of its own, seen from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import redis

from chorus.protocol.ledger import Accounts, Keys, read_accounts
from chorus.protocol.messages import Member

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "recipes" / "demo.toml"
# Eager: the tests start vLLM often and sample little.
QUICK = ('generator.vllm_args=["--enforce-eager"]', "evaluation.problems=0", "learner.groups_per_step=8")


@dataclass
class LiveRun:
    """A `chorus run` in progress, seen from outside."""

    process: subprocess.Popen[bytes]
    runs: Path
    output: Path

    @property
    def folder(self) -> Path:
        return next(self.runs.glob("*/run.json")).parent

    @property
    def config(self) -> dict[str, Any]:
        return json.loads((self.folder / "config.json").read_text())

    @property
    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.config["redis"]["url"])

    def step(self) -> int:
        try:
            lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        except (OSError, StopIteration):
            return 0
        return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)

    def wait_step(self, step: int, deadline_s: float = 180.0) -> None:
        self.until(lambda: self.step() >= step, f"step {step}", deadline_s)

    def until(self, condition: Callable[[], object], what: str, deadline_s: float = 60.0) -> None:
        end = time.monotonic() + deadline_s
        while not condition():
            assert self.process.poll() is None, f"the run ended before {what}:\n{self.tail()}"
            assert time.monotonic() < end, f"no {what} within {deadline_s:g} s:\n{self.tail()}"
            time.sleep(0.1)

    def tail(self) -> str:
        logs = [self.output, *sorted(self.folder.glob("logs/*.log"))]
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-2500:]}" for log in logs)

    def accounts(self) -> Accounts:
        return read_accounts(self.client, Keys(self.folder.name))

    def members(self) -> list[Member]:
        found: Any = self.client.hgetall(Keys(self.folder.name).members)
        return [Member.decode(data) for data in found.values()]

    def processes(self, *words: str) -> list[psutil.Process]:
        """Processes of this run, below its launcher, whose command line holds all `words`; no guards."""
        found = []
        for p in psutil.Process(self.process.pid).children(recursive=True):
            try:
                line = p.cmdline()
            except psutil.Error:
                continue
            if all(word in line for word in words) and not any("guard.py" in part for part in line):
                found.append(p)
        return found

    def finish(self, deadline_s: float = 300.0) -> int:
        try:
            return self.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the run did not end within {deadline_s:g} s:\n{self.tail()}") from None

    def summary(self) -> dict[str, Any]:
        return json.loads((self.folder / "summary.json").read_text())


def start_run(runs: Path, *overrides: str, driver: str | None = None, resume: Path | None = None) -> LiveRun:
    """`chorus run` of the demo with `overrides`; `driver` is Python that stands in for the command."""
    sets = [f"run.dir={runs}", *overrides]
    arguments = ["--resume", str(resume)] if resume else [str(DEMO)]
    for item in () if resume else sets:
        arguments += ["--set", item]
    command = ["-c", driver] if driver else ["-m", "chorus.cli.main", "run"]
    output = runs / "output.log"
    runs.mkdir(parents=True, exist_ok=True)
    with output.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, *command, *arguments], cwd=ROOT, stdout=file, stderr=file, env=dict(os.environ)
        )
    return LiveRun(process, runs, output)


def end_run(run: LiveRun) -> None:
    """Whatever a test left running is stopped by its id."""
    if run.process.poll() is None:
        run.process.send_signal(signal.SIGTERM)
        try:
            run.process.wait(60)
        except subprocess.TimeoutExpired:
            run.process.kill()
            run.process.wait()
