"""A Docker engine of the test's own: own socket, own data; when it ends, the machine is as it was before.

    install (Debian, as root) ─▶ snapshot of firewall and sysctls ─▶ dockerd ─▶ ... ─▶ dockerd ended by its pid
    ─▶ bridges, rules, sysctls, mounts undone

Invariant: `stop` undoes whatever `start` did, however far it came, and may be called twice.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from pathlib import Path

from drive import NothingHereError
from traces import Traces, call, install, processes

PACKAGES = ("docker.io", "iptables", "debootstrap")
START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 40.0
_PR_SET_PDEATHSIG = 1


def ensure_tools() -> None:
    """dockerd, its client, iptables and debootstrap; installed where that is ours to do. Raises NothingHereError."""
    if os.geteuid() != 0:
        raise NothingHereError("a Docker engine is started by root only")
    if Path("/var/run/docker.sock").exists() or Path("/sys/class/net/docker0").exists():
        raise NothingHereError("another Docker engine runs here; a second one would fight it over the firewall's rules")
    install("compose-test", ("dockerd", "iptables-save", "debootstrap"), PACKAGES)


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
        self._traces = Traces(scratch, data, links=("docker", "br-", "veth"), firewall=True)

    @property
    def environment(self) -> dict[str, str]:
        """For every command that talks to this engine."""
        config = self._scratch / "client"
        config.mkdir(exist_ok=True)
        return {"DOCKER_HOST": self.host, "DOCKER_CONFIG": str(config), "DOCKER_BUILDKIT": "1"}

    def start(self) -> None:
        """Raises NothingHereError where it does not come up."""
        self._traces.remember()
        command = ["dockerd", "--data-root", str(self._data), "--exec-root", str(self._scratch / "exec")]
        command += ["--host", self.host, "--pidfile", str(self._scratch / "d.pid")]
        with self.log.open("wb") as log:
            # Its own session: a Ctrl-C reaches the test alone, which then stops the engine in order.
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, preexec_fn=_die_with_parent
            )
        end = time.monotonic() + START_DEADLINE_S
        while call([client(), "info"], self.environment).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > end:
                words = self.log.read_text(errors="replace").strip().splitlines()[-3:]
                raise NothingHereError(f"dockerd does not start: {' / '.join(words)}")
            time.sleep(0.3)

    def stop(self) -> None:
        """End dockerd and all its containers, and undo what it did to the machine; `scratch` is gone afterwards."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                ids = call([client(), "ps", "--all", "--quiet"], self.environment).stdout.split()
                if ids:
                    call([client(), "rm", "--force", "--volumes", *ids], self.environment, deadline_s=120)
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
        self._process = None
        self._end_leftovers()
        self._traces.undo()

    def _end_leftovers(self) -> None:
        """containerd and its shims, which a killed dockerd leaves behind: known by our folder on their command line."""
        for number, line in processes(str(self._scratch)):
            if Path(line.partition(" ")[0]).name.startswith("containerd"):
                with contextlib.suppress(OSError):
                    os.kill(number, signal.SIGKILL)


def _die_with_parent() -> None:
    """A test that is killed without a chance to tidy up takes its engine with it, at least."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
