"""podman with a storage of its own: images, volumes, network and state in one folder, which is gone in the end."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from bases import base_environment
from compose_tools import HERE as COMPOSE
from compose_tools import ROOT, clean_environment
from drive import Drive, DriveError, NothingHereError, awaited  # pyright: ignore[reportAttributeAccessIssue]
from traces import Traces, call, install, processes
from transform import NETWORK, Played

TOOLS = ("podman", "runc", "debootstrap")
PACKAGES = ("podman", "netavark", "aardvark-dns", "catatonit", "runc", "debootstrap")
# The limits are those that root may set without CAP_SYS_RESOURCE; crun wants another cgroup hierarchy than some have.
CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=20000:20000"]
default_sysctls = ["{sysctl}"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
"""
# Of podman's own, outside of the folder.
LEFT_BEHIND = tuple(map(Path, ("/run/containers", "/run/libpod", "/var/lib/containers/cache")))


class Podman:
    """Every wait ends `limit_s` from now at the latest; `patience` lengthens them all, for a machine that is busy.

    `data` keeps images for the next time.
    """

    def __init__(self, test: Drive, scratch: Path, data: Path, limit_s: float, patience: float) -> None:
        self._test, self._scratch, self._data, self._patience = test, scratch, data, patience
        self._deadline = time.monotonic() + patience * limit_s
        self._traces = Traces(scratch, data, links=("podman", "veth"), firewall=False)
        self._there: dict[Path, bool] = {}

    # -- commands -----------------------------------------------------------------------------------

    def call(self, *arguments: str, deadline_s: float = 60, may_fail: bool = False, stdin: str = "") -> str:
        """Standard output of one command of podman's. Raises DriveError."""
        # podman notes where they are, and takes no other place for one of them later.
        names = {"root": "root", "runroot": "run", "tmpdir": "t", "network-config-dir": "net", "volumepath": "volumes"}
        words = [
            "podman",
            *(word for option, name in names.items() for word in (f"--{option}", str(self._data / name))),
        ]
        words += arguments
        left = max(1.0, min(self._patience * deadline_s, self._deadline - time.monotonic()))
        conf = {"CONTAINERS_CONF": str(self._scratch / "containers.conf"), "TMPDIR": str(self._data / "tmp")}
        try:
            result = subprocess.run(
                words,
                env=clean_environment(**conf),
                input=stdin,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=left,
                check=False,
            )
        except subprocess.TimeoutExpired:
            if may_fail:
                return ""
            raise DriveError(f"podman {' '.join(arguments)[:200]}: not done after {left:.0f} s") from None
        if result.returncode != 0 and not may_fail:
            said = f"{result.stdout[-1500:]}{result.stderr[-3000:]}"
            raise DriveError(f"podman {' '.join(arguments)[:200]}: {result.returncode}, {said}")
        return result.stdout

    def wait(self, what: str, ready: Callable[[], Any], deadline_s: float, every_s: float = 1.0) -> Any:
        """The first true value of `ready`. Raises DriveError, with the logs' last lines, when none comes in time."""
        left_s = self._deadline - time.monotonic()
        return awaited(what, ready, min(self._patience * deadline_s, left_s), self.logs, every_s)

    # -- from nothing to nothing ----------------------------------------------------------------------

    def start(self, sysctl: str) -> None:
        """sysctl: of all pods. Raises NothingHereError where no podman works."""
        if os.geteuid() != 0:
            raise NothingHereError("podman's bridges and limits are root's to make")
        install("play-test", TOOLS, PACKAGES)
        self._traces.remember()
        self._there = {path: path.exists() for path in LEFT_BEHIND}
        for folder in (self._data, self._data / "tmp"):
            folder.mkdir(exist_ok=True)
        (self._scratch / "containers.conf").write_text(CONTAINERS_CONF.format(sysctl=sysctl))
        try:
            version = self.call("version", "--format", "{{.Client.Version}}").strip()
            self.call("network", "create", "--internal", "--subnet", f"{NETWORK}.0/24", "chorus")
        except DriveError as error:
            raise NothingHereError(f"podman does not work here: {error}") from None
        self._test.say(f"podman {version}, runc; a network of pods alone, {NETWORK}.0/24")

    def stop(self) -> None:
        """All that `start` and the test made is gone. May be called however far it came."""
        if self._there:
            self._deadline = time.monotonic() + 300
            self.call("pod", "rm", "--all", "--force", "--time", "0", deadline_s=90, may_fail=True)
            self.call("rm", "--all", "--force", "--time", "0", deadline_s=60, may_fail=True)
            self.call("volume", "rm", "--all", "--force", may_fail=True)
            self.call("secret", "rm", "--all", may_fail=True)
            self.call("network", "rm", "--force", "chorus", may_fail=True)
            for number, _ in processes("conmon", str(self._data)):
                call(["kill", str(number)])
            for path in LEFT_BEHIND:
                if not self._there[path]:
                    shutil.rmtree(path, ignore_errors=True)
        self._traces.undo()

    def remains(self) -> list[str]:
        """What of it is still there."""
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        found = [mount for mount in mounts if mount.startswith(f"{self._data}/")]
        found += [line for _, line in processes(str(self._data)) if "conmon" in line]
        found += [str(path) for path in (self._scratch, *self._there) if path.exists() and not self._there.get(path)]
        return found + self._traces.new_links()

    # -- images ---------------------------------------------------------------------------------------

    def import_base(self, tar: Path, name: str, wheels_url: str) -> None:
        changes = [word for pair in base_environment(wheels_url) for word in ("--change", f"ENV {pair}")]
        if name not in self.images():
            self.call("import", *changes, str(tar), f"docker.io/library/{name}", deadline_s=180)
        try:
            self.call("run", "--rm", "--network", "none", name, "python3", "--version")
        except DriveError as error:
            raise NothingHereError(f"podman starts no container here: {error}") from None

    def build(self, file: str, name: str, target: str = "") -> None:
        """Of the repository, or of a stand-in's Dockerfile."""
        ours = file.startswith("deploy/")
        context = ROOT if ours else COMPOSE
        words = ["--pull=never", "--network", "host", "--file", str(context / file)]
        words += ["--target", target] if target else []
        self.call("build", *words, "--tag", name, str(context), deadline_s=1200)

    def images(self) -> str:
        return self.call("image", "ls", "--filter", "dangling=false", "--format", "{{.Repository}}:{{.Tag}} {{.Size}}")

    # -- pods -------------------------------------------------------------------------------------------

    def play(self, pod: Played, deadline_s: float = 120) -> None:
        """Made, and started; returns once the init containers have ended."""
        network = ("--network", "chorus", "--ip", pod.address)
        with _ONE_AT_A_TIME:  # a ConfigMap's volume is written anew each time
            text = yaml.safe_dump_all(pod.documents)
            self.call("kube", "play", "--start=false", *network, "-", stdin=text, deadline_s=60)
        self.call("pod", "start", pod.pod, deadline_s=deadline_s)

    def secret(self, name: str, values: dict[str, str]) -> None:
        """As `kube play` reads it: podman 4.3 fails on one that came from a Secret's own manifest."""
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        self.call("secret", "create", name, "-", stdin=json.dumps(encoded))

    def make(self, documents: list[dict[str, Any]]) -> str:
        return self.call("kube", "play", "-", stdin=yaml.safe_dump_all(documents))

    def remove(self, pod: Played) -> None:
        self.call("pod", "rm", "--force", "--time", "0", pod.pod)

    def inside(self, container: str, *words: str, may_fail: bool = False, deadline_s: float = 60) -> str:
        return self.call("exec", container, *words, may_fail=may_fail, deadline_s=deadline_s)

    def holds(self, container: str, *words: str) -> bool:
        """Whether the command ends with 0 in there."""
        try:
            self.inside(container, *words)
        except DriveError:
            return False
        return True

    def state(self, container: str) -> dict[str, Any]:
        return json.loads(self.call("inspect", "--type", "container", container))[0]

    def log(self, container: str, lines: int = 0) -> str:
        """Both streams, as podman keeps them."""
        path = Path(self.state(container)["HostConfig"]["LogConfig"]["Path"])
        words = [re.sub(r"^\S+ std(out|err) [FP] ", "", line) for line in path.read_text(errors="replace").splitlines()]
        return "\n".join(words[-lines:])

    def logs(self) -> str:
        names = self.call("ps", "--all", "--format", "{{.Names}}", may_fail=True).split()
        told = [self.call("ps", "--all", may_fail=True)]
        for name in names:
            try:
                told.append(f"--- {name}\n{self.log(name, 15)}")
            except (DriveError, OSError, LookupError):
                continue
        return "\n".join(told)


_ONE_AT_A_TIME = threading.Lock()
