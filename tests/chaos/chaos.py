"""`make chaos`: a run under random faults, ended by an audit.

    python tests/chaos/chaos.py --seconds 600 --seed 0 --real 1

Three generators under the real launcher, learner, reward server and Valkey; the first `--real` of them have a real
vLLM, the others scripted engines. Every few seconds one role that is not itself still recovering is killed, paused,
drained, filled or cut off, or the run as a whole is renamed, changed or started twice. Faults are dealt from a shuffled
deck, so that every kind comes about as often, until the time is over and every kind has come `--at-least` times. Then
the run trains some steps more, ends by itself, and its folder is audited. Writes chaos-report.json; exits 1 if a group
was lost or trained twice, if a role did not recover, if hardly anything was trained meanwhile, or if the memory of a
process grew.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / "support"), str(Path(__file__).parent)]

import httpx  # noqa: E402
import psutil  # noqa: E402
import redis  # noqa: E402
from fleet import GENERATORS, REPLICAS, VLLM, Fleet  # noqa: E402

from chorus.protocol.runtime.exits import CANNOT_GO_ON  # noqa: E402

RECOVERY_DEADLINE_S = 90.0
VLLM_RECOVERY_DEADLINE_S = 500.0  # a start on one core that others use as well
STEPS_AFTER = 10
MAX_GROWTH = 1.5  # of a process's memory, last quarter of the run against the second
# A pause outlasts the sync deadline (4 s) or the lease (3 s); a cut does so too.
KINDS = [
    "kill generator", "pause generator", "drain generator", "cut generator", "freeze generator",
    "kill learner", "pause learner",
    "kill redis", "pause redis", "cut redis", "fill redis",
    "kill reward-server", "pause reward-server",
]  # fmt: skip
REAL_KINDS = ["kill vllm", "pause vllm"]
# Of the run as a whole, while nothing else is wrong with it: the launcher is killed, and the run resumed under another
# name or with another key; a second start of it is refused.
RUN_KINDS = ["rename run", "change run", "double run"]
LEARNING_RATES = (1e-3, 7e-4, 4e-4)


@dataclass
class Fault:
    """One fault: `over` ends it (None: it is an event), `healed` says whether its role is well again."""

    kind: str
    role: str
    started: float
    over_at: float
    over: Callable[[], object] | None
    healed: Callable[[], bool]


@dataclass
class Chaos:
    """What is done to a fleet."""

    fleet: Fleet
    seed: int
    every: tuple[float, float]
    pause_s: tuple[float, float]
    kinds: list[str] = field(default_factory=lambda: [*KINDS])
    at_least: int = 0  # of each kind
    say: Callable[[str], None] = print
    recovery: dict[str, list[float]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    steps: int = 0  # trained meanwhile
    seconds: float = 0.0  # that faults were dealt

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.patience_s = VLLM_RECOVERY_DEADLINE_S if self.fleet.real else RECOVERY_DEADLINE_S

    # -- faults -----------------------------------------------------------------------------------------

    def inject(self, kind: str, role: str) -> Fault | None:
        """None: the role has no process right now."""
        how, what = kind.split()
        if what == "run":
            return self._to_the_run(how)
        now, step = time.monotonic(), self.fleet.step()
        member = self.fleet.ready().get(role)
        pause = self.random.uniform(*self.pause_s)
        over: Callable[[], object] | None = None
        name = VLLM if what == VLLM else role
        process = self.fleet.processes().get(name) if how in ("kill", "pause", "drain") else None
        if how in ("kill", "pause", "drain") and process is None:
            return None
        if process is not None and how == "kill":
            process.kill()
        elif process is not None and how == "drain":
            process.terminate()
        elif process is not None and how == "pause":
            paused = [process, *(process.children(recursive=True) if what == VLLM else ())]
            for p in paused:
                p.suspend()
            over = lambda: [p.resume() for p in paused]  # noqa: E731
        elif how == "fill":
            client = self.fleet.client()
            client.config_set("maxmemory", "1mb")
            over = lambda: client.config_set("maxmemory", "0")  # noqa: E731
        elif role == "redis":  # cut: every connection that is open at this moment
            self.fleet.client().client_kill_filter(_type="normal")
        else:
            proxy = self.fleet.proxies[int(role.removeprefix("gen-"))]
            (proxy.cut if how == "cut" else proxy.freeze)()
            over = proxy.restore
        gone = (member.generator_id, member.engine) if member and how in ("kill", "drain") else None
        self.say(f"{kind}: {role} at step {step}" + (f", for {pause:.1f} s" if over else ""))
        return Fault(kind, role, now, now + pause if over else now, over, lambda: self._healed(role, step, gone))

    def _to_the_run(self, how: str) -> Fault:
        fleet, step, lr = self.fleet, self.fleet.step(), None
        if how == "rename":
            fleet.resume(name=f"renamed-{self.counts['rename run']}")
        elif how == "change":
            lr = LEARNING_RATES[(self.counts["change run"] + 1) % len(LEARNING_RATES)]
            fleet.resume(f"learner.lr={lr}")
        elif (status := fleet.start_twice()) != CANNOT_GO_ON:
            self.failures.append(f"double run: the second start ended with {status}")
        self.say(f"{how} run: at step {step}" + (f", learner.lr = {lr}" if lr else ""))
        now = time.monotonic()

        def healed() -> bool:
            record = fleet.record()
            return record.get("step", 0) > step and lr in (None, record["lr"]) and len(fleet.ready()) == REPLICAS

        return Fault(f"{how} run", "run", now, now, None, healed)

    def _healed(self, role: str, step: int, gone: tuple[str, int] | None) -> bool:
        if role.startswith("gen-"):
            member = self.fleet.ready().get(role)
            return member is not None and (member.generator_id, member.engine) != gone
        if self.fleet.step() <= step:
            return False
        if role == "reward-server":
            try:
                return httpx.get(self.fleet.config()["reward"]["url"] + "/readyz", timeout=2.0).status_code == 200
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
        if now - fault.over_at > self.patience_s:
            self.failures.append(f"{fault.kind} ({fault.role}): not well after {self.patience_s:g} s")
            return True
        return False

    def torment(self, seconds: float) -> None:
        """Faults until `seconds` are over, every kind has come `at_least` times, and all have healed."""
        fleet, self.seconds = self.fleet, seconds
        fleet.until(
            lambda: len(fleet.ready()) == REPLICAS and fleet.step() >= 2, "the fleet at work", 30 + self.patience_s
        )
        first_step, started = fleet.step(), time.monotonic()
        end, latest = started + seconds, started + 2 * seconds + self.patience_s
        next_at, deck, open_faults = time.monotonic(), list[str](), list[Fault]()
        while True:
            now = time.monotonic()
            missing = [kind for kind in self.kinds if self.counts[kind] < self.at_least]
            over = now >= end and (not missing or now > latest)
            if over and not open_faults:
                break
            self.fleet.check_alive()
            self.fleet.sample_memory()
            open_faults = [fault for fault in open_faults if not self._watch(fault)]
            if not over and now >= next_at and (fault := self._deal(deck, {fault.role for fault in open_faults})):
                self.counts[fault.kind] += 1
                open_faults.append(fault)
                next_at = time.monotonic() + self.random.uniform(*self.every)
            time.sleep(0.4)
        self.steps = fleet.step() - first_step
        if missing:
            self.failures.append(f"not dealt {self.at_least} times: {', '.join(missing)}")

    def _deal(self, deck: list[str], busy: set[str]) -> Fault | None:
        """The next card whose role is not itself recovering; the others stay in the deck."""
        if not deck:
            deck += self.random.sample(self.kinds, len(self.kinds))
        if deck[0] in RUN_KINDS and busy:
            return None  # it waits until all are well
        for kind in deck:
            role = kind.split()[1]
            if (role == "run" and busy) or "run" in busy:
                continue
            roles = {"generator": GENERATORS, VLLM: GENERATORS[: self.fleet.real]}.get(role, [role])
            free = [r for r in roles if r not in busy]
            with contextlib.suppress(redis.RedisError):  # as good as no process
                if free and (fault := self.inject(kind, self.random.choice(free))):
                    deck.remove(kind)
                    return fault
        return None

    def finish(self) -> None:
        """Let the run end by itself: the next learner start finds a number of steps that can be reached."""
        config = self.fleet.config()
        config["run"]["steps"] = self.fleet.step() + STEPS_AFTER
        scratch = self.fleet.run_dir / "config.json.new"
        scratch.write_text(json.dumps(config))
        scratch.replace(self.fleet.run_dir / "config.json")
        while (learner := self.fleet.processes().get("learner")) is None:
            self.fleet.check_alive()
            time.sleep(0.1)
        learner.kill()
        self.fleet.launcher.wait(180)

    def report(self, seconds: float) -> dict[str, Any]:
        from chorus.cli.inspect.audit import audit_folder
        from chorus.protocol.run_folder.folder import RunFolder
        from chorus.protocol.run_folder.rollouts import read_step, stored_steps

        ledger = json.loads((self.fleet.run_dir / "summary.json").read_text())["ledger"]
        groups = [r.group for _, path in stored_steps(RunFolder(self.fleet.run_dir)) for r in read_step(path)]
        trained = Counter(group.task.index for group in groups)
        dropped = sum(ledger["dropped"].values())
        return {
            "seconds": round(seconds, 1),
            "tormented": self.seconds,
            "seed": self.seed,
            "real": self.fleet.real,
            "steps": self.steps,
            "faults": dict(sorted(self.counts.items())),
            "recovery_seconds": {
                kind: {"median": round(statistics.median(all), 1), "max": round(max(all), 1)}
                for kind, all in sorted(self.recovery.items())
            },
            "lost": ledger["admitted"] - len(trained) - dropped - ledger["outstanding"],
            "doubled": sum(n > 1 for n in trained.values()),
            "books_diff": ledger["admitted"] - ledger["trained"] - dropped - ledger["outstanding"],
            "audit": audit_folder(self.fleet.run_dir),
            "dropped": ledger["dropped"],
            "regenerated": sum(group.attempt > 1 for group in groups),
            "ungraded_samples": sum(s.grade.accuracy is None for group in groups for s in group.samples),
            "rss_mib": {role: round(max(all) / 2**20) for role, all in sorted(self.fleet.rss.items())},
            "rss_growth": {role: round(_growth(all), 2) for role, all in sorted(self.fleet.rss.items())},
            "not_recovered": self.failures,
        }


def _growth(samples: list[int]) -> float:
    """Largest memory of the last quarter of the run over that of the second quarter; starts are left out."""
    n = len(samples) // 4
    return max(samples[-n:]) / max(1, *samples[n : 2 * n]) if n else 1.0


def torment(
    folder: Path,
    seconds: float,
    seed: int,
    every: tuple[float, float],
    pause: tuple[float, float],
    kinds: list[str] | None = None,
    real: int = 0,
    at_least: int = 0,
) -> dict[str, Any]:
    """A whole chaos run in `folder`; returns its report."""
    started = time.monotonic()
    fleet = Fleet(folder, real)
    kinds = kinds or [*KINDS, *RUN_KINDS, *(REAL_KINDS if real else ())]
    chaos = Chaos(fleet, seed, every, pause, kinds, at_least)
    fleet.start()
    try:
        chaos.torment(seconds)
        chaos.finish()
        if fleet.launcher.returncode != 0:
            raise RuntimeError(f"the run ended with status {fleet.launcher.returncode}: {fleet.tail()}")
        return chaos.report(time.monotonic() - started)
    finally:
        fleet.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--real", type=int, default=0, help="generators with a real vLLM (default: none)")
    parser.add_argument("--at-least", type=int, default=3, help="faults of each kind (default: 3)")
    parser.add_argument("--every", type=float, nargs=2, default=(10.0, 20.0), metavar=("MIN", "MAX"))
    parser.add_argument("--pause", type=float, nargs=2, default=(4.0, 8.0), metavar=("MIN", "MAX"))
    parser.add_argument(
        "--only", choices=[*KINDS, *RUN_KINDS, *REAL_KINDS], action="append", help="this kind of fault (again for more)"
    )
    parser.add_argument("--report", type=Path, default=Path("chaos-report.json"))
    args = parser.parse_args()
    if not args.real and set(args.only or ()) & set(REAL_KINDS):
        parser.error("there is no vLLM without --real 1")
    how = args.seconds, args.seed, tuple(args.every), tuple(args.pause), args.only, args.real, args.at_least
    with tempfile.TemporaryDirectory(prefix="chorus-chaos-") as folder:
        report = torment(Path(folder), *how)
    args.report.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    for wrong in faults_of(report):
        print(f"chaos: FAILED: {wrong}", file=sys.stderr)
    return 1 if faults_of(report) else 0


def faults_of(report: dict[str, Any], least_steps: int = 20) -> list[str]:
    """What is wrong with a run, by its report. In less than a minute a start is most of a quarter of the run, so that
    growth says nothing."""
    zero = ("lost", "doubled", "books_diff", "audit", "not_recovered")
    wrong = [f"{key} {report[key]}" for key in zero if report[key]]
    grown = {role: x for role, x in report["rss_growth"].items() if x > MAX_GROWTH and report["tormented"] >= 60.0}
    wrong += [f"the memory of {role} grew {x} times" for role, x in grown.items()]
    return wrong + ([f"only {report['steps']} steps were trained"] if report["steps"] < least_steps else [])


if __name__ == "__main__":
    sys.exit(main())
