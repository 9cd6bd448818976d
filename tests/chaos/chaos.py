"""`make chaos`: a run under random faults, ended by an audit.

    python tests/chaos/chaos.py --seconds 600 --seed 0

Three generators with scripted engines under the real launcher, learner, reward server and Valkey. Every few
seconds one role that is not itself still recovering is killed, paused, drained or cut off. Faults are dealt
from a shuffled deck, so that every kind comes about as often. Then the run trains some steps more, ends by
itself, and its folder is audited. Writes chaos-report.json; exits 1 if a group was lost or trained twice.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import httpx  # noqa: E402
import psutil  # noqa: E402
import redis  # noqa: E402
from proxy import Proxy  # noqa: E402
from scripted_run import RECIPE  # noqa: E402

from protocol.ledger import Keys  # noqa: E402
from protocol.messages import Member, MessageError  # noqa: E402

REPLICAS = 3
RECOVERY_DEADLINE_S = 90.0
STEPS_AFTER = 10
WORDS = {
    "learner": ("cli.main", "learner"),
    "reward-server": ("cli.main", "reward-server"),
    "redis": ("valkey",),
}
# A pause outlasts the sync deadline (4 s) or the lease (3 s); a cut does so too.
KINDS = [
    "kill generator", "pause generator", "drain generator", "cut generator", "freeze generator",
    "kill learner", "pause learner",
    "kill redis", "pause redis", "cut redis",
    "kill reward-server", "pause reward-server",
]  # fmt: skip


@dataclass
class Fault:
    """One fault: `over` ends it (None: it is an event), `healed` says whether its role is well again."""

    kind: str
    role: str
    started: float
    over_at: float
    over: Callable[[], None] | None
    healed: Callable[[], bool]


@dataclass
class Chaos:
    """A run, and what is done to it."""

    folder: Path
    seed: int
    every: tuple[float, float]
    pause_s: tuple[float, float]
    kinds: list[str] = field(default_factory=lambda: [*KINDS])
    say: Callable[[str], None] = print
    rss: dict[str, list[int]] = field(default_factory=dict)
    recovery: dict[str, list[float]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def start(self) -> None:
        from tinymodel import save_tiny_model

        self.random = random.Random(self.seed)
        self.proxies = [Proxy(self._redis_address) for _ in range(REPLICAS)]
        model = save_tiny_model(self.folder / "model")
        recipe = self.folder / "chaos.toml"
        recipe.write_text(RECIPE.format(runs=self.folder / "runs", steps=1_000_000, model=model, replicas=REPLICAS))
        ports = ",".join(str(proxy.port) for proxy in self.proxies)
        env = os.environ | {"PYTHONPATH": str(ROOT), "CHORUS_TEST_PROXIES": ports, "OMP_NUM_THREADS": "1"}
        env.setdefault("CHORUS_TEST_DELAY_S", "0.8")
        self.output = self.folder / "output.log"
        with self.output.open("wb") as log:
            argv = [sys.executable, str(ROOT / "tests" / "support" / "scripted_run.py"), str(recipe)]
            self.launcher = subprocess.Popen(argv, env=env, cwd=ROOT, stdout=log, stderr=log)

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
        try:
            with (self.run_dir / "metrics.jsonl").open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - 8192))
                lines = file.read().split(b"\n")[:-1]
            return json.loads(lines[-1])["step"]
        except (OSError, StopIteration, IndexError, ValueError):
            return 0

    def ready(self) -> dict[str, Member]:
        """Service name -> its newest live and ready member."""
        try:
            found: Any = self.client().hgetall(Keys(self.run_dir.name).members)
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

    def process(self, role: str) -> psutil.Process | None:
        words = WORDS.get(role, ("receiving.py", role))
        for p in psutil.Process(self.launcher.pid).children(recursive=True):
            try:
                line = p.cmdline()
            except psutil.Error:
                continue
            if not any("guard.py" in part for part in line) and all(any(w in part for part in line) for w in words):
                return p
        return None

    # -- faults -----------------------------------------------------------------------------------------

    def inject(self, kind: str, role: str) -> Fault | None:
        """None: the role has no process right now."""
        how = kind.split()[0]
        now, step = time.monotonic(), self.step()
        member = self.ready().get(role)
        pause = self.random.uniform(*self.pause_s)
        over: Callable[[], None] | None = None
        process = self.process(role) if how in ("kill", "pause", "drain") else None
        if how in ("kill", "pause", "drain") and process is None:
            return None
        if process is not None and how == "kill":
            process.kill()
        elif process is not None and how == "drain":
            process.terminate()
        elif process is not None and how == "pause":
            process.suspend()
            over = process.resume
        elif role == "redis":  # cut: every connection that is open at this moment
            self.client().client_kill_filter(_type="normal")
        else:
            proxy = self.proxies[int(role.removeprefix("gen-"))]
            (proxy.cut if how == "cut" else proxy.freeze)()
            over = proxy.restore
        gone = member.generator_id if member and how in ("kill", "drain") else ""
        self.say(f"{kind}: {role} at step {step}" + (f", for {pause:.1f} s" if over else ""))
        return Fault(kind, role, now, now + pause if over else now, over, lambda: self._healed(role, step, gone))

    def _healed(self, role: str, step: int, gone: str) -> bool:
        if role.startswith("gen-"):
            member = self.ready().get(role)
            return member is not None and member.generator_id != gone
        if self.step() <= step:
            return False
        if role == "reward-server":
            try:
                return httpx.get(self.config()["reward"]["url"] + "/readyz", timeout=2.0).status_code == 200
            except httpx.HTTPError:
                return False
        return True

    def _watch(self, fault: Fault) -> bool:
        """True once the fault's role is well again, or is given up on."""
        now = time.monotonic()
        if now >= fault.over_at and fault.over is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                fault.over()
            fault.over = None
        if fault.over is None and fault.healed():
            self.recovery.setdefault(fault.kind, []).append(time.monotonic() - fault.over_at)
            return True
        if now - fault.over_at > RECOVERY_DEADLINE_S:
            self.failures.append(f"{fault.kind} ({fault.role}): not well after {RECOVERY_DEADLINE_S:g} s")
            return True
        return False

    def torment(self, seconds: float) -> None:
        """Faults until `seconds` are over and all have healed."""
        self._until(lambda: len(self.ready()) == REPLICAS and self.step() >= 2, "the fleet at work", 120.0)
        end = time.monotonic() + seconds
        next_at, deck, open_faults = time.monotonic(), list[str](), list[Fault]()
        while open_faults or time.monotonic() < end:
            self._alive()
            self._sample_memory()
            open_faults = [fault for fault in open_faults if not self._watch(fault)]
            due = next_at <= time.monotonic() < end
            if due and (fault := self._deal(deck, {fault.role for fault in open_faults})):
                self.counts[fault.kind] += 1
                open_faults.append(fault)
                next_at = time.monotonic() + self.random.uniform(*self.every)
            time.sleep(0.25)

    def _deal(self, deck: list[str], busy: set[str]) -> Fault | None:
        """The next card whose role is not itself recovering; the others stay in the deck."""
        if not deck:
            deck += self.random.sample(self.kinds, len(self.kinds))
        for kind in deck:
            role = kind.split()[1]
            roles = [f"gen-{n}" for n in range(REPLICAS)] if role == "generator" else [role]
            free = [r for r in roles if r not in busy]
            if free and (fault := self.inject(kind, self.random.choice(free))):
                deck.remove(kind)
                return fault
        return None

    def finish(self) -> None:
        """Let the run end by itself: the next learner start finds a number of steps that can be reached."""
        config = self.config()
        config["run"]["steps"] = self.step() + STEPS_AFTER
        scratch = self.run_dir / "config.json.new"
        scratch.write_text(json.dumps(config))
        scratch.replace(self.run_dir / "config.json")
        while (learner := self.process("learner")) is None:
            self._alive()
            time.sleep(0.1)
        learner.kill()
        self.launcher.wait(180)

    def _alive(self) -> None:
        if self.launcher.poll() is not None:
            raise RuntimeError(f"the run ended by itself with status {self.launcher.returncode}: {self.tail()}")

    def _until(self, condition: Callable[[], object], what: str, deadline_s: float) -> None:
        end = time.monotonic() + deadline_s
        while not condition():
            self._alive()
            if time.monotonic() > end:
                raise RuntimeError(f"no {what} within {deadline_s:g} s: {self.tail()}")
            time.sleep(0.2)

    def tail(self) -> str:
        return self.output.read_text(errors="replace")[-2000:]

    def _sample_memory(self) -> None:
        for role in ("learner", "reward-server", "redis", *(f"gen-{n}" for n in range(REPLICAS))):
            try:
                if process := self.process(role):
                    self.rss.setdefault(role, []).append(process.memory_info().rss)
            except psutil.Error:
                continue

    def close(self) -> None:
        if self.launcher.poll() is None:
            for role in ("redis", "learner", "reward-server", *(f"gen-{n}" for n in range(REPLICAS))):
                if process := self.process(role):
                    process.resume()  # a paused one could not be asked to stop
            self.launcher.terminate()
            try:
                self.launcher.wait(60)
            except subprocess.TimeoutExpired:
                self.launcher.kill()
                self.launcher.wait()
        for proxy in self.proxies:
            proxy.close()

    # -- the audit --------------------------------------------------------------------------------------

    def report(self, seconds: float) -> dict[str, Any]:
        from cli.audit import audit_folder
        from learner.rollout_store import read_step, stored_steps

        ledger = json.loads((self.run_dir / "summary.json").read_text())["ledger"]
        groups = [r.group for _, path in stored_steps(self.run_dir) for r in read_step(path)]
        trained = Counter(group.task.index for group in groups)
        dropped = sum(ledger["dropped"].values())
        return {
            "seconds": round(seconds, 1),
            "seed": self.seed,
            "steps": max(step for step, _ in stored_steps(self.run_dir)),
            "faults": dict(sorted(self.counts.items())),
            "recovery_seconds": {
                kind: {"median": round(statistics.median(all), 1), "max": round(max(all), 1)}
                for kind, all in sorted(self.recovery.items())
            },
            "lost": ledger["admitted"] - len(trained) - dropped - ledger["outstanding"],
            "doubled": sum(n > 1 for n in trained.values()),
            "books_diff": ledger["admitted"] - ledger["trained"] - dropped - ledger["outstanding"],
            "audit": audit_folder(self.run_dir),
            "dropped": ledger["dropped"],
            "regenerated": sum(group.attempt > 1 for group in groups),
            "ungraded_samples": sum(s.grade.accuracy is None for group in groups for s in group.samples),
            "rss_mib": {role: round(max(all) / 2**20) for role, all in sorted(self.rss.items())},
            "rss_growth": {role: round(_growth(all), 2) for role, all in sorted(self.rss.items())},
            "not_recovered": self.failures,
        }


def _growth(samples: list[int]) -> float:
    """Largest memory of the last quarter of the run over that of the second quarter; starts are left out."""
    n = len(samples) // 4
    return max(samples[-n:]) / max(samples[n : 2 * n]) if n else 1.0


def torment(
    folder: Path,
    seconds: float,
    seed: int,
    every: tuple[float, float],
    pause: tuple[float, float],
    kinds: list[str] | None = None,
) -> dict[str, Any]:
    """A whole chaos run in `folder`; returns its report."""
    started = time.monotonic()
    chaos = Chaos(folder, seed, every, pause, kinds or [*KINDS])
    chaos.start()
    try:
        chaos.torment(seconds)
        chaos.finish()
        if chaos.launcher.returncode != 0:
            raise RuntimeError(f"the run ended with status {chaos.launcher.returncode}: {chaos.tail()}")
        return chaos.report(time.monotonic() - started)
    finally:
        chaos.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=float, nargs=2, default=(10.0, 20.0), metavar=("MIN", "MAX"))
    parser.add_argument("--pause", type=float, nargs=2, default=(4.0, 8.0), metavar=("MIN", "MAX"))
    parser.add_argument(
        "--only", choices=KINDS, action="append", help="this kind of fault (again for more; default: all)"
    )
    parser.add_argument("--report", type=Path, default=Path("chaos-report.json"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chorus-chaos-") as folder:
        report = torment(Path(folder), args.seconds, args.seed, tuple(args.every), tuple(args.pause), args.only)
    args.report.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    bad = report["lost"] or report["doubled"] or report["books_diff"] or report["audit"] or report["not_recovered"]
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
