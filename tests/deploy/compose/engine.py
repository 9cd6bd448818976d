"""A Docker engine of the test's own: own socket, own data; when it ends, the machine is as it was before.

    install (Debian, as root) ─▶ snapshot of firewall and sysctls ─▶ dockerd ─▶ ... ─▶ dockerd ended by its pid
    ─▶ bridges, rules, sysctls, mounts undone

Invariant: `stop` undoes whatever `start` did, however far it came, and may be called twice.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from drive import NothingHereError

PACKAGES = ("docker.io", "iptables", "debootstrap")
START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 40.0
_TABLES = ("filter", "nat", "mangle", "raw")
_SYSCTLS = ("net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables")
_PR_SET_PDEATHSIG = 1


def ensure_tools() -> None:
    """dockerd, its client, iptables and debootstrap; installed where that is ours to do. Raises NothingHereError."""
    if os.geteuid() != 0:
        raise NothingHereError("a Docker engine is started by root only")
    if Path("/var/run/docker.sock").exists() or Path("/sys/class/net/docker0").exists():
        raise NothingHereError("another Docker engine runs here; a second one would fight it over the firewall's rules")
    missing = [tool for tool in ("dockerd", "iptables-save", "debootstrap") if shutil.which(tool) is None]
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise NothingHereError(f"{', '.join(missing)} not found, and no apt-get to install them with")
    print(f"compose-test: apt-get install {' '.join(PACKAGES)} (for {', '.join(missing)})", flush=True)
    quiet = {"env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, "capture_output": True, "text": True}
    for arguments in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *PACKAGES]):
        result = subprocess.run(["apt-get", *arguments], timeout=300, check=False, **quiet)
    if result.returncode != 0:
        raise NothingHereError(f"apt-get install {' '.join(PACKAGES)} failed: {result.stderr.strip()[-300:]}")


def client() -> str:
    """Debian's client: it drives the engine's own BuildKit. A newer one, first in the PATH, would want buildx."""
    return "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"


class Engine:
    """`data` keeps images and build cache; the rest of its files lie in `scratch`."""

    def __init__(self, scratch: Path, data: Path) -> None:
        self.host = f"unix://{scratch}/d.sock"
        self.log = scratch / "dockerd.log"
        self._scratch, self._data = scratch, data
        self._process: subprocess.Popen[bytes] | None = None
        self._rules: dict[str, str] = {}
        self._sysctls: dict[str, str] = {}
        self._links: set[str] = set()

    @property
    def environment(self) -> dict[str, str]:
        """For every command that talks to this engine."""
        config = self._scratch / "client"
        config.mkdir(exist_ok=True)
        return {"DOCKER_HOST": self.host, "DOCKER_CONFIG": str(config), "DOCKER_BUILDKIT": "1"}

    def start(self) -> None:
        """Raises NothingHereError where it does not come up."""
        self._links = _links()
        self._sysctls = {name: value for name in _SYSCTLS if (value := _sysctl(name)) is not None}
        self._rules = {tool: _run([tool + "-save"]).stdout for tool in ("iptables", "ip6tables")}
        command = ["dockerd", "--data-root", str(self._data), "--exec-root", str(self._scratch / "exec")]
        command += ["--host", self.host, "--pidfile", str(self._scratch / "d.pid")]
        with self.log.open("wb") as log:
            # Its own session: a Ctrl-C reaches the test alone, which then stops the engine in order.
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, preexec_fn=_die_with_parent
            )
        end = time.monotonic() + START_DEADLINE_S
        while _run([client(), "info"], self.environment).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > end:
                words = self.log.read_text(errors="replace").strip().splitlines()[-3:]
                raise NothingHereError(f"dockerd does not start: {' / '.join(words)}")
            time.sleep(0.3)

    def stop(self) -> None:
        """End dockerd and all its containers, and undo what it did to the machine; `scratch` is gone afterwards."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                ids = _run([client(), "ps", "--all", "--quiet"], self.environment).stdout.split()
                if ids:
                    _run([client(), "rm", "--force", "--volumes", *ids], self.environment, deadline_s=120)
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
        self._process = None
        self._end_leftovers()
        self._restore_network()
        self._remove_files()

    def _end_leftovers(self) -> None:
        """containerd and its shims, which a killed dockerd leaves behind: known by our folder on their command line."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                    ours = any(str(self._scratch) in word for word in words)
                    if ours and Path(words[0]).name.startswith("containerd"):
                        os.kill(int(entry.name), signal.SIGKILL)

    def _restore_network(self) -> None:
        for link in _links() - self._links:
            if link.startswith(("docker", "br-", "veth")):
                _run(["ip", "link", "delete", link])
        for tool, rules in self._rules.items():
            _run([tool + "-restore"], stdin=_whole(rules))
        self._rules = {}
        for name, value in self._sysctls.items():
            with contextlib.suppress(OSError):
                Path("/proc/sys", name).write_text(value)

    def _remove_files(self) -> None:
        for mount in sorted(self._mounts(), reverse=True):
            _run(["umount", "--lazy", mount])
        if not self._mounts():  # never delete through a mount: it may be somebody else's /proc
            _run(["rm", "--recursive", "--force", str(self._scratch)], deadline_s=300)

    def _mounts(self) -> list[str]:
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        return [mount for mount in mounts if mount.startswith((f"{self._scratch}/", f"{self._data}/"))]


def _whole(rules: str) -> str:
    """Rules for every table: a table that was not there at first is emptied, its chains accept."""
    there = {line[1:] for line in rules.splitlines() if line.startswith("*")}
    chains = {"filter": "INPUT FORWARD OUTPUT", "nat": "PREROUTING INPUT OUTPUT POSTROUTING"}
    for table in _TABLES:
        if table not in there and table in chains:
            rules += "\n".join([f"*{table}", *(f":{c} ACCEPT [0:0]" for c in chains[table].split()), "COMMIT\n"])
    return rules


def _die_with_parent() -> None:
    """A test that is killed without a chance to tidy up takes its engine with it, at least."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _links() -> set[str]:
    return {entry.name for entry in Path("/sys/class/net").iterdir()}


def _sysctl(name: str) -> str | None:
    try:
        return Path("/proc/sys", name).read_text()
    except OSError:
        return None


def _run(
    command: list[str], more: dict[str, str] | None = None, stdin: str = "", deadline_s: float = 30
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=os.environ | (more or {}),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=deadline_s,
        check=False,
    )
