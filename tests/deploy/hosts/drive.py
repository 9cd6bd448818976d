"""`make hosts-test`: the demo over five hosts, each a network namespace with an address and a firewall of its own.

    redis ── Redis and the reward server        gen-0, gen-1 ── generators
    learner-0, learner-1 ── torchrun over two nodes            outsider ── belongs to nobody, and knocks

    up ─▶ 3 steps ─▶ the outsider finds no open port ─▶ gen-1 cut off, and back ─▶ learner-1's host killed: the run ends
    on both ─▶ resumed ─▶ finished, audited

What it types is what docs/operations.md shows under "Over several machines". Engines are scripted unless --real 1 makes
gen-0 a real vLLM. Where namespaces or firewalls can't be made it prints `hosts-test: SKIPPED` and why, and ends with 0.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT / "tests" / "deploy"), str(ROOT / "tests" / "support")]

from drive import Drive, DriveError, NothingHereError, arguments, holders, told_by_arguments  # noqa: E402  # pyright: ignore
from lan import HERE, Lan  # noqa: E402  # pyright: ignore[reportMissingImports]

from chorus.deploy.services import valkey_binary  # noqa: E402
from chorus.protocol.config.load import load_config  # noqa: E402
from chorus.protocol.ledger import Keys  # noqa: E402
from chorus.protocol.messages import Member  # noqa: E402
from chorus.protocol.runtime.processes import Guarded  # noqa: E402
from chorus.protocol.runtime.redis import glance, server_time  # noqa: E402

TEST = Drive("hosts-test")
RUN = "demo"
HOSTS = ("redis", "learner-0", "learner-1", "gen-0", "gen-1")
REDIS, REWARD = 6379, 8100
TRANSFER = "40000-44999"  # weights and gradients: gloo takes ports that the kernel picks, and this narrows its choice
# Ports of a host that the other hosts reach: the table of docs/operations.md.
OPEN = {
    "redis": (REDIS, REWARD),
    "learner-0": (TRANSFER,),
    "learner-1": (TRANSFER,),
    "gen-0": (TRANSFER,),
    "gen-1": (TRANSFER,),
}
SETTINGS = (
    *("evaluation.problems=0", "learner.groups_per_step=4", "sampling.group_size=4", "learner.checkpoint_every=3"),
    *("generator.lease_s=3.0", "learner.keep_checkpoints=2", "reward.workers=1", "alarms.flat_steps=0"),
    *("learner.sync_deadline_s=10", "run.steps=1000000", "trackers.tensorboard=false", "doctor.steps=0"),
    "placement.learner_ranks=2",
)


class Hosts:
    """The network and the run on it. Ends what it started."""

    def __init__(self, scratch: Path, model: str, real: int, further: list[str]) -> None:
        self.lan = Lan((*HOSTS, "outsider"))
        self.folder = scratch / RUN
        self.real = real
        self._running: dict[str, Guarded] = {}
        self.secret, self.token = secrets.token_hex(16), secrets.token_hex(16)
        self.folder.mkdir()
        self.url = f"redis://:{self.secret}@{self.lan.address('redis')}:{REDIS}/0"
        settings = [f"redis.url={self.url}", f"reward.url=http://{self.lan.address('redis')}:{REWARD}"]
        settings += [f"learner.host={self.lan.address('learner-0')}", f"model.path={model}"]
        config = load_config(ROOT / "recipes" / "demo.toml", (*SETTINGS, *settings, *further), {})
        self.config = self.folder / "config.json"
        self.config.touch(mode=0o600)
        self.config.write_text(json.dumps(config.model_dump(mode="json")))

    def build(self) -> None:
        for tool in ("ip", "nft"):
            if shutil.which(tool) is None:
                raise NothingHereError(f"no `{tool}` here (Debian: iproute2, nftables)")
        try:
            self.lan.build()
        except subprocess.CalledProcessError as error:
            raise NothingHereError(f"network namespaces need more rights: {error.stderr.decode().strip()}") from None
        for host in HOSTS:
            self._wall(host)

    def _wall(self, host: str) -> None:
        """Nobody but the other hosts, on the documented ports alone; and this process, which asks Redis."""
        known = [self.lan.address(name) for name in HOSTS if name != host]
        others = ", ".join([*known, HERE] if host == "redis" else known)
        ports = ", ".join(map(str, OPEN[host]))
        rules = f"""
        table inet wall {{
          chain input {{
            type filter hook input priority 0; policy drop;
            iif lo accept
            ct state established,related accept
            ip saddr {{ {others} }} tcp dport {{ {ports} }} accept
          }}
        }}
        """
        inside = ["ip", "netns", "exec", self.lan.space(host)]
        subprocess.run([*inside, "nft", "-f", "-"], input=rules.encode(), check=True, capture_output=True)
        low_high = TRANSFER.replace("-", " ")
        setting = [*inside, "sysctl", "-q", "-w", f"net.ipv4.ip_local_port_range={low_high}"]
        subprocess.run(setting, check=True, capture_output=True)

    # -- services --------------------------------------------------------------------------------------

    def start_redis(self) -> None:
        settings = self.folder / "redis.conf"
        settings.touch(mode=0o600)
        address = self.lan.address("redis")
        settings.write_text(f'bind {address}\nport {REDIS}\nrequirepass {self.secret}\nsave ""\ndir {self.folder}\n')
        self._spawn("redis", "redis", [valkey_binary(), str(settings)])
        words = ["reward-server", "--host", address, "--port", str(REWARD), "--recipe", str(self.config)]
        self._spawn("redis", "reward-server", [*_CHORUS, *words])

    def start_learner(self, rank: int) -> None:
        """The same command on both hosts but for the rank."""
        where = ["--rdzv-endpoint", str(self.config), "--rdzv-id", RUN, "--rdzv-conf", f"rank={rank}"]
        torchrun = ["-m", "chorus.deploy.nodes", "--nnodes", "2", "--nproc-per-node", "1"]
        words = [*self._which(), "--run-dir", str(self.folder), "--resume"]
        argv = [sys.executable, *torchrun, *where, "-m", "chorus.cli.main", "learner", *words]
        self._spawn(f"learner-{rank}", f"learner-{rank}", argv)

    def start_generator(self, n: int) -> None:
        program = [str(ROOT / "tests" / "support" / "receiving.py")] if n >= self.real else list(_CHORUS[1:])
        log = str(self.folder / f"gen-{n}-vllm.log")
        argv = [sys.executable, *program, "generator", *self._which(), "--name", f"gen-{n}", "--log", log]
        self._spawn(f"gen-{n}", f"gen-{n}", argv)

    def _which(self) -> list[str]:
        return ["--config", str(self.config), "--run-id", RUN]

    def _spawn(self, host: str, name: str, argv: list[str]) -> None:
        env: Mapping[str, str] = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests" / "support")]),
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": self.lan.far(host),
            "CHORUS_REWARD_TOKEN": self.token,
            "CHORUS_TEST_DELAY_S": "0.3",
        }
        self._running[name] = self.lan.spawn(host, argv, env, self.folder / f"{name}.log")

    def kill(self, name: str) -> None:
        self._running.pop(name).kill()

    def ended(self, name: str) -> int | None:
        return self._running[name].poll()

    def close(self) -> None:
        for process in self._running.values():
            process.request_stop(0.0)
        for process in self._running.values():
            process.stop(0.0)
        self.lan.tear_down()

    # -- what can be seen of it --------------------------------------------------------------------------

    def step(self) -> int:
        try:
            lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        except OSError:
            return 0
        return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)

    def ready(self) -> set[str]:
        """Hosts whose generator has verified weights and was seen within the last seconds."""
        with glance(self.url) as client:
            now = server_time(client)
            found: Any = client.hgetall(Keys(RUN).members)
        members = map(Member.decode, found.values())
        return {m.generator_id[:5] for m in members if m.state == "ready" and now - m.last_seen < 3}

    def listening(self, host: str) -> set[int]:
        """TCP ports on which something of this host accepts connections."""
        argv = ["ip", "netns", "exec", self.lan.space(host), "cat", "/proc/net/tcp", "/proc/net/tcp6"]
        rows = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=20).stdout.splitlines()
        fields = [row.split() for row in rows if "local_address" not in row]
        return {int(f[1].rpartition(":")[2], 16) for f in fields if f[3] == "0A"}

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def wait(self, what: str, ready: Callable[[], object], deadline_s: float, may_end: tuple[str, ...] = ()) -> float:
        """Seconds until it was so. Raises DriveError."""
        began = time.monotonic()
        while not ready():
            gone = [n for n, p in self._running.items() if n not in may_end and p.poll() is not None]
            if gone or time.monotonic() - began > deadline_s:
                why = f"{gone[0]} ended before" if gone else f"not within {deadline_s:g} s:"
                logs = sorted(self.folder.glob("*.log"))
                tail = "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in logs)
                raise DriveError(f"{why} {what}\n{tail}")
            time.sleep(0.1)
        return time.monotonic() - began


_CHORUS = (sys.executable, "-m", "chorus.cli.main")


def main() -> int:
    asked = arguments(__doc__, "so many generators are real ones").parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="chorus-hosts-"))
    hosts = Hosts(scratch, str(asked.model or starter()), asked.real, asked.set)

    def work() -> None:
        with TEST.phase("five hosts behind firewalls, and one outside"):
            hosts.build()
        drive(hosts)

    def clean() -> None:
        hosts.close()
        if asked.keep:
            TEST.say(str(scratch))
        else:
            shutil.rmtree(scratch, ignore_errors=True)

    return TEST.run(work, clean, "all gone")


def starter() -> str:
    command = [*_CHORUS, "starter", str(ROOT / "recipes" / "demo.toml"), "--cache", str(ROOT / "runs" / ".cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=400)
    return done.stdout.strip().splitlines()[-1]


def drive(hosts: Hosts) -> None:
    with TEST.phase("three steps trained, by two learner hosts, on what both generators sampled"):
        hosts.start_redis()
        for n in (0, 1):
            hosts.start_generator(n)
            hosts.start_learner(n)
        hosts.wait("three steps", lambda: hosts.step() >= 3 and hosts.ready() == {"gen-0", "gen-1"}, 180)
    with TEST.phase("the outsider knocked on every port that listens"):
        knock(hosts)
    with TEST.phase("gen-1 cut off; training went on; it came back by itself"):
        cut_off(hosts)
    with TEST.phase("learner-1's host killed; the run ended on both and went on after a start with --resume"):
        lose_a_learner(hosts)
    with TEST.phase("the run finished, accounts balanced"):
        finish(hosts)


def knock(hosts: Hosts) -> None:
    listening = {host: sorted(hosts.listening(host)) for host in HOSTS}
    tried = [(host, port) for host, ports in listening.items() for port in ports]
    TEST.check({host for host, _ in tried} >= {"redis", "learner-0"}, f"they listen on {listening}")

    def reached(place: tuple[str, int]) -> bool:
        return hosts.lan.reaches("outsider", hosts.lan.address(place[0]), place[1])

    with ThreadPoolExecutor(4) as pool:
        through = [place for place, came in zip(tried, pool.map(reached, tried), strict=True) if came]
    TEST.check(through == [], "none of these ports lets the outsider in")
    TEST.check(listening["redis"] == [REDIS, REWARD], "Redis and the reward server are all that the first host offers")
    kept = hosts.secret, hosts.token
    TEST.check(
        [holders(hosts.folder, secret) for secret in kept] == [["config.json", "redis.conf"], []],
        "the secrets stand in files of mode 600 alone, and in no log",
    )
    TEST.check(told_by_arguments(*kept) == [], "no secret is among any process's arguments")
    TEST.check(hosts.lan.reaches("gen-0", hosts.lan.address("redis"), REDIS), "a host of the run reaches Redis")


def cut_off(hosts: Hosts) -> None:
    hosts.lan.cut("gen-1")
    hosts.wait("gen-1 missed", lambda: hosts.ready() == {"gen-0"}, 30)
    before = hosts.step()
    seconds = hosts.wait("three further steps", lambda: hosts.step() >= before + 3, 90)
    TEST.say(f"three steps without it took {seconds:.1f} s")
    hosts.lan.plug("gen-1")
    seconds = hosts.wait("gen-1 back", lambda: hosts.ready() == {"gen-0", "gen-1"}, 90)
    TEST.say(f"it sampled again after {seconds:.1f} s")


def lose_a_learner(hosts: Hosts) -> None:
    before = hosts.step()
    hosts.kill("learner-1")
    seconds = hosts.wait("the other end", lambda: hosts.ended("learner-0") is not None, 60, ("learner-0",))
    status = hosts.ended("learner-0")
    TEST.check(status not in (0, None), f"learner-0 ended {seconds:.1f} s after it, with {status}")
    for rank in (0, 1):
        hosts.start_learner(rank)
    seconds = hosts.wait("steps beyond", lambda: hosts.step() > before + 2, 120)
    TEST.say(f"it was beyond its last step {seconds:.1f} s after the start")


def finish(hosts: Hosts) -> None:
    for rank in (0, 1):
        hosts.kill(f"learner-{rank}")
    steps = hosts.step() + 4
    fields = json.loads(hosts.config.read_text())
    fields["run"]["steps"] = steps
    hosts.config.write_text(json.dumps(fields))
    for rank in (0, 1):
        hosts.start_learner(rank)
    both = ("learner-0", "learner-1")
    hosts.wait("the end", lambda: all(hosts.ended(name) is not None for name in both), 120, both)
    TEST.check([hosts.ended(name) for name in both] == [0, 0], "both learners ended with 0")
    done = subprocess.run([*_CHORUS, "audit", str(hosts.folder)], capture_output=True, text=True, timeout=60)
    TEST.check(done.returncode == 0, done.stdout.strip().replace(str(hosts.folder), "audit"))


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
