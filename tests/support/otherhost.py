"""Another host on this machine: a network namespace with its own interfaces and one cable to us."""

from __future__ import annotations

import ipaddress
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import pytest

# A subnet of four addresses of 10.214.0.0/16 for each test process: two of them may be at this at once.
_FIRST = ipaddress.ip_address("10.214.0.0") + os.getpid() % 2**14 * 4
HOST, OTHER = str(_FIRST + 1), str(_FIRST + 2)
# Prints the ports of argv that accept a connection.
KNOCK = """
import socket, sys
for port in map(int, sys.argv[2:]):
    try:
        socket.create_connection((sys.argv[1], port), 2).close()
        print(port)
    except OSError:
        pass
"""


@dataclass
class OtherHost:
    """A machine beside this one: its own interfaces, one cable to us."""

    name: str

    def reaches(self, ports: set[int], address: str = HOST) -> set[int]:
        argv = ["ip", "netns", "exec", self.name, sys.executable, "-c", KNOCK, address, *map(str, sorted(ports))]
        told = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
        return {int(line) for line in told.split()}


@contextmanager
def another_host() -> Iterator[OtherHost]:
    """Skips where namespaces can't be made."""
    name = f"chorus{os.getpid()}"
    near, far = f"ch{os.getpid()}a"[:15], f"ch{os.getpid()}b"[:15]

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    if shutil.which("ip") is None:
        pytest.skip("no `ip` here: network namespaces can't be made")
    try:
        ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces need more rights: {error.stderr.decode().strip()}")
    try:
        ip("link", "add", near, "type", "veth", "peer", "name", far)
        ip("link", "set", far, "netns", name)
        ip("addr", "add", f"{HOST}/30", "dev", near)
        ip("link", "set", near, "up")
        ip("-n", name, "addr", "add", f"{OTHER}/30", "dev", far)
        ip("-n", name, "link", "set", far, "up")
        yield OtherHost(name)
    finally:
        subprocess.run(["ip", "link", "del", near], capture_output=True)
        subprocess.run(["ip", "netns", "del", name], capture_output=True)


def listening(*processes: psutil.Process) -> set[int]:
    """TCP ports on which they accept connections, on whatever address."""
    ports = set()
    for process in processes:
        ports |= {c.laddr.port for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    return ports
