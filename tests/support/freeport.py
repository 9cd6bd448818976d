"""A TCP port of 127.0.0.1 from the system: servers that are started at the same moment do not race for one."""

from __future__ import annotations

import socket


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
