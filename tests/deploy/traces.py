"""What an engine leaves on a machine, remembered before it starts and undone after: links, rules, sysctls, mounts."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from drive import NothingHereError

_TABLES = ("filter", "nat", "mangle", "raw")
_SYSCTLS = ("net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables")


class Traces:
    """An engine's, whose links have names with these beginnings. firewall: whether it changes rules.

    Invariant: `undo` undoes what came since `remember`, however far the engine came, and may be called twice.
    """

    def __init__(self, scratch: Path, data: Path, links: tuple[str, ...], firewall: bool) -> None:
        self._scratch, self._data, self._prefixes, self._firewall = scratch, data, links, firewall
        self._links: set[str] | None = None
        self._sysctls: dict[str, str] = {}
        self._rules: dict[str, str] = {}

    def remember(self) -> None:
        self._links = _links()
        self._sysctls = {name: value for name in _SYSCTLS if (value := _sysctl(name)) is not None}
        if self._firewall:
            self._rules = {tool: call([tool + "-save"]).stdout for tool in ("iptables", "ip6tables")}

    def undo(self) -> None:
        """`scratch` is gone afterwards."""
        for link in self.new_links():
            call(["ip", "link", "delete", link])
        for tool, rules in self._rules.items():
            call([tool + "-restore"], stdin=_whole(rules))
        self._rules = {}
        for name, value in self._sysctls.items():
            with contextlib.suppress(OSError):
                Path("/proc/sys", name).write_text(value)
        for mount in sorted(self._mounts(), reverse=True):
            call(["umount", "--lazy", mount])
        if not self._mounts():  # never delete through a mount: it may be somebody else's /proc
            call(["rm", "--recursive", "--force", str(self._scratch)], deadline_s=300)

    def new_links(self) -> list[str]:
        new = _links() - self._links if self._links is not None else ()
        return [link for link in sorted(new) if link.startswith(self._prefixes)]

    def _mounts(self) -> list[str]:
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        return [mount for mount in mounts if mount.startswith((f"{self._scratch}/", f"{self._data}/"))]


def install(name: str, tools: tuple[str, ...], packages: tuple[str, ...]) -> None:
    """Commands of this machine; installed where that is ours to do. Raises NothingHereError."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise NothingHereError(f"{', '.join(missing)} not found, and no apt-get to install them with")
    print(f"{name}: apt-get install {' '.join(packages)} (for {', '.join(missing)})", flush=True)
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    call(["apt-get", "update", "-qq"], quiet, deadline_s=300)
    result = call(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], quiet, deadline_s=300)
    if result.returncode != 0:
        raise NothingHereError(f"apt-get install {' '.join(packages)} failed: {result.stderr.strip()[-300:]}")


def call(
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


def processes(*words: str) -> list[tuple[int, str]]:
    """This machine's, but for our own: number and command line of those that hold all the words."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
                if all(word in line for word in words):
                    found.append((int(entry.name), line))
    return found


def _whole(rules: str) -> str:
    """Rules for every table: a table that was not there at first is emptied, its chains accept."""
    there = {line[1:] for line in rules.splitlines() if line.startswith("*")}
    chains = {"filter": "INPUT FORWARD OUTPUT", "nat": "PREROUTING INPUT OUTPUT POSTROUTING"}
    for table in _TABLES:
        if table not in there and table in chains:
            rules += "\n".join([f"*{table}", *(f":{c} ACCEPT [0:0]" for c in chains[table].split()), "COMMIT\n"])
    return rules


def _links() -> set[str]:
    return {entry.name for entry in Path("/sys/class/net").iterdir()}


def _sysctl(name: str) -> str | None:
    try:
        return Path("/proc/sys", name).read_text()
    except OSError:
        return None
