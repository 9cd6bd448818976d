"""A Slurm of three nodes on this machine, from Debian's packages: nothing of the system's is used or changed.

munged ◀── slurmctld ◀── slurmd n1, n2, n3       a key, a configuration, a state and logs in one folder

All nodes share this machine's files, as over a cluster's shared file system, and its loopback address. There is no
accounting: squeue and scontrol tell what there is to know.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from drive import DriveError, NothingHereError, awaited

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")
NODES = ("n1", "n2", "n3")
# KillWait: from SIGTERM to SIGKILL. SlurmdTimeout: 300 s by default. cred_expire: a job that is queued again begins no
# sooner than this, 120 s by default. bf_interval: how often jobs of lower priority are looked at.
CONF = """\
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_min_interval=100000
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmctldPort={port}
SlurmdParameters=config_overrides
SlurmdTimeout=10
KillWait=15
InactiveLimit=0
{nodes}
PartitionName=base Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=5 PreemptMode=OFF
PartitionName=spot Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=15
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


class Lab:
    """`env` is what Slurm's commands need. Ends what it started, by id."""

    def __init__(self, folder: Path, cpus: int = 3) -> None:
        self.folder = folder
        self.env = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
        self._cpus = cpus
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        if os.geteuid() != 0:
            raise NothingHereError("it needs root: slurmd starts jobs in their owner's name")
        if any(shutil.which(program) is None for program in PROGRAMS):
            _install()
        for name in ("state", "log", "munge", "spool", *(f"spool/{node}" for node in NODES)):
            (self.folder / name).mkdir()
        ports = _free_ports(len(NODES) + 1)
        host = socket.gethostname().partition(".")[0]
        node = "NodeName={} NodeAddr=127.0.0.1 NodeHostname={} Port={} CPUs={} RealMemory=4000 State=UNKNOWN"
        nodes = [node.format(name, host, port, self._cpus) for name, port in zip(NODES, ports[1:], strict=True)]
        text = CONF.format(folder=self.folder, host=host, port=ports[0], nodes="\n".join(nodes))
        (self.folder / "slurm.conf").write_text(text)
        self._start_munge()
        self._start("slurmctld", ["slurmctld", "-D"])
        for name in NODES:
            self.start_node(name)
        self.wait("three idle nodes", lambda: self.nodes() == dict.fromkeys(NODES, "idle"), 30)

    def _start_munge(self) -> None:
        key = self.folder / "munge" / "key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        files = [f"--{name}={self.folder}/munge/{name}" for name in ("socket", "pid-file", "log-file", "seed-file")]
        # --force: the folder above is a temporary one, which others may write to
        argv = ["munged", "--foreground", "--force", f"--key-file={key}", *files]
        self._start("munged", argv)
        self.wait("munged", (self.folder / "munge" / "socket").exists, 10)

    def start_node(self, name: str) -> None:
        self._start(name, ["slurmd", "-D", "-N", name])

    def kill_node(self, name: str) -> None:
        """Its slurmd alone: what it has started lives on, as on a node that lost its network."""
        daemon = self._daemons.pop(name)
        daemon.kill()
        daemon.wait()

    def _start(self, name: str, argv: list[str]) -> None:
        with (self.folder / "log" / f"{name}.out").open("ab") as log:
            self._daemons[name] = subprocess.Popen(argv, env=self.env, stdout=log, stderr=log, start_new_session=True)

    def stop(self) -> None:
        for job in self._queue():
            self.call("scancel", "--signal=KILL", "--full", job, may_fail=True)
            self.call("scancel", job, may_fail=True)
        end = time.monotonic() + 20
        while self._queue() and time.monotonic() < end:
            time.sleep(0.5)
        for name in [*NODES, "slurmctld", "munged"]:
            if (daemon := self._daemons.pop(name, None)) is not None:
                daemon.send_signal(signal.SIGTERM)
                try:
                    daemon.wait(10)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()
        self._kill_what_is_left()

    def _kill_what_is_left(self) -> None:
        """Steps of a slurmd that was killed: known by the configuration in their environment."""
        mark = f"SLURM_CONF={self.folder}/".encode()
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in path.read_bytes():
                    os.kill(int(path.parent.name), signal.SIGKILL)

    def _queue(self) -> list[str]:
        return self.call("squeue", "-h", "-o", "%A", may_fail=True).split() if "slurmctld" in self._daemons else []

    # -- commands and what they show ------------------------------------------------------------------

    def call(self, *argv: str, deadline_s: float = 60, may_fail: bool = False) -> str:
        """Standard output of a command. Raises DriveError."""
        try:
            done = subprocess.run(argv, env=self.env, capture_output=True, text=True, timeout=deadline_s, check=False)
        except subprocess.TimeoutExpired:
            raise DriveError(f"{' '.join(argv[:4])}: not done after {deadline_s:g} s") from None
        if done.returncode != 0 and not may_fail:
            raise DriveError(
                f"{' '.join(argv[:6])} ended with {done.returncode}: {done.stdout[-800:]}{done.stderr[-800:]}"
            )
        return done.stdout

    def nodes(self) -> dict[str, str]:
        rows = self.call("sinfo", "-h", "-N", "-p", "base", "-o", "%N %t", may_fail=True).splitlines()
        pairs = [row.split() for row in rows]
        return {pair[0]: pair[1] for pair in pairs}

    def idle_cpus(self, node: str) -> int:
        told = self.call("sinfo", "-h", "-N", "-p", "base", "-n", node, "-o", "%C")  # allocated/idle/other/total
        return int(told.split("/")[1])

    def node_of(self, job: str) -> str:
        return self.call("squeue", "-h", "-j", job, "-o", "%N", may_fail=True).strip()

    def state(self, job: str) -> str:
        return self.call("squeue", "-h", "-r", "-j", job, "-o", "%T", may_fail=True).strip()

    def restarts(self, job: str) -> int:
        told = self.call("scontrol", "show", "job", job, may_fail=True)
        return int(told.partition("Restarts=")[2].split()[0]) if "Restarts=" in told else 0

    def wait(self, what: str, ready: Callable[[], Any], deadline_s: float) -> Any:
        """The first true value. Raises DriveError where none comes in time."""
        return awaited(what, ready, deadline_s, self._seen, every_s=0.3)

    def _seen(self) -> str:
        logs = (self.folder / "log").glob("*")
        tail = "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-700:]}" for log in sorted(logs))
        return f"{self.call('squeue', '-r', may_fail=True)}{self.nodes()}\n{tail}"


def _install() -> None:
    """Nothing is started by it: the packages' own services are for machines with systemd."""
    if shutil.which("apt-get") is None:
        raise NothingHereError(f"no Slurm here, and no apt-get to install it with: {', '.join(PACKAGES)}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for argv in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *PACKAGES]):
        try:
            done = subprocess.run(["apt-get", *argv], env=environment, capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired:
            raise NothingHereError(f"apt-get {argv[0]}: not done after 300 s") from None
        if done.returncode != 0:
            raise NothingHereError(f"apt-get {argv[0]}: {(done.stderr.strip().splitlines() or ['no words'])[-1]}")


def _free_ports(n: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports
