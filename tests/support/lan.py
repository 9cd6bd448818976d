"""Several hosts on this machine: a network namespace and a cable each, all cables in one switch.

host 1 ──┐
host 2 ──┼── switch (a bridge, where this process itself stands, at SWITCH)
host 3 ──┘
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from chorus.protocol.runtime.processes import Guarded, spawn_guarded

NET = f"10.213.{os.getpid() % 256}"  # each test process has its own
HERE = f"{NET}.254"
NOBODY = "02:00:00:00:00:99"  # a locally administered address that no card here has


class Lan:
    """`names` are the hosts. Cables are pulled and throttled at both ends; connections notice nothing but silence."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._tag = f"c{os.getpid()}"

    def address(self, name: str) -> str:
        return f"{NET}.{1 + self._names.index(name)}"

    def near(self, name: str) -> str:
        return f"{self._tag}n{self._names.index(name)}"

    def far(self, name: str) -> str:
        return f"{self._tag}f{self._names.index(name)}"

    def space(self, name: str) -> str:
        return f"{self._tag}-{name}"

    def spawn(self, name: str, argv: Sequence[str], env: Mapping[str, str], log: Path) -> Guarded:
        """Start a process on a host; with "" for a name, here."""
        inside = ["ip", "netns", "exec", self.space(name)] if name else []
        return spawn_guarded([*inside, *argv], name=log.stem, env=env, log=log)

    def reaches(self, name: str, address: str, port: int) -> bool:
        """Whether a connection from a host gets through."""
        knock = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3).close()"
        argv = ["ip", "netns", "exec", self.space(name), sys.executable, "-c", knock, address, str(port)]
        return subprocess.run(argv, capture_output=True, timeout=60).returncode == 0

    def cut(self, name: str) -> None:
        """Pull the host's cable."""
        ip("-n", self.space("switch"), "link", "set", self.near(name), "down")

    def plug(self, name: str) -> None:
        ip("-n", self.space("switch"), "link", "set", self.near(name), "up")

    def separate(self, one: str, other: str) -> None:
        """These two no longer hear each other; all others hear both."""
        for a, b in ((one, other), (other, one)):
            wrong = ["neigh", "replace", self.address(b), "lladdr", NOBODY, "dev", self.far(a), "nud", "permanent"]
            ip("-n", self.space(a), *wrong)

    def join(self, one: str, other: str) -> None:
        for a, b in ((one, other), (other, one)):
            ip("-n", self.space(a), "neigh", "del", self.address(b), "dev", self.far(a))

    def throttle(self, name: str, kbit_per_s: int) -> None:
        """To and from the host."""
        rule = ["root", "tbf", "rate", f"{kbit_per_s}kbit", "burst", "4kb", "latency", "2s"]
        run("tc", "-n", self.space("switch"), "qdisc", "replace", "dev", self.near(name), *rule)
        run("tc", "-n", self.space(name), "qdisc", "replace", "dev", self.far(name), *rule)

    def unthrottle(self, name: str) -> None:
        run("tc", "-n", self.space("switch"), "qdisc", "del", "dev", self.near(name), "root")
        run("tc", "-n", self.space(name), "qdisc", "del", "dev", self.far(name), "root")

    def build(self) -> None:
        switch, ours = self.space("switch"), f"{self._tag}h"
        ip("netns", "add", switch)
        ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", switch, "link", "set", "bridge", "up")
        ip("link", "add", ours, "type", "veth", "peer", "name", "here", "netns", switch)
        ip("addr", "add", f"{HERE}/24", "dev", ours)
        ip("link", "set", ours, "up")
        ip("-n", switch, "link", "set", "here", "master", "bridge", "up")
        for name in self._names:
            space, near, far = self.space(name), self.near(name), self.far(name)
            ip("netns", "add", space)
            ip("-n", switch, "link", "add", near, "type", "veth", "peer", "name", far, "netns", space)
            ip("-n", switch, "link", "set", near, "master", "bridge", "up")
            ip("-n", space, "addr", "add", f"{self.address(name)}/24", "dev", far)
            ip("-n", space, "link", "set", far, "up")
            ip("-n", space, "link", "set", "lo", "up")

    def tear_down(self) -> None:
        """A namespace takes its cables along."""
        for name in (*self._names, "switch"):
            subprocess.run(["ip", "netns", "del", self.space(name)], capture_output=True)


def run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=20)


def ip(*words: str) -> None:
    run("ip", *words)


@contextmanager
def small_network(names: Sequence[str]) -> Iterator[Lan]:
    """Skips where namespaces can't be made."""
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            pytest.skip(f"no `{tool}` here: network namespaces can't be made (Debian: iproute2)")
    lan = Lan(names)
    try:
        try:
            lan.build()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces need more rights: {error.stderr.decode().strip()}")
        yield lan
    finally:
        lan.tear_down()
