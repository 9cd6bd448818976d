"""The stack as the test sees it: through Compose, through the ports on 127.0.0.1, and through `chorus` inside."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

from compose_tools import HERE, ROOT, clean_environment, compose_command
from drive import DriveError, awaited
from engine import Engine, client

RUN = "demo"
REDIS = "redis://redis:6379/0"


class Stack:
    """Every wait ends `limit_s` from now at the latest. `patience` lengthens them all, for a machine that is busy."""

    def __init__(self, engine: Engine, limit_s: float, patience: float = 1.0) -> None:
        self._deadline = time.monotonic() + patience * limit_s
        self._patience = patience
        self.reward_port, self.prometheus_port = _free_port(), _free_port()
        self._environment = clean_environment(
            **engine.environment,
            CHORUS_REWARD_PORT=str(self.reward_port),
            CHORUS_PROMETHEUS_PORT=str(self.prometheus_port),
        )

    # -- commands -----------------------------------------------------------------------------------

    def compose(self, *arguments: str, deadline_s: float = 120, may_fail: bool = False, **more: str) -> str:
        """Standard output of one Compose command. Raises DriveError."""
        files = ("--file", str(ROOT / "docker-compose.yml"), "--file", str(HERE / "docker-compose.test.yml"))
        command = [*compose_command(), "--project-directory", str(ROOT), *files, "--progress", "plain", *arguments]
        return self._run(command, deadline_s, may_fail, more)

    def docker(self, *arguments: str, deadline_s: float = 60, may_fail: bool = False) -> str:
        return self._run([client(), *arguments], deadline_s, may_fail, {})

    def _run(self, command: list[str], deadline_s: float, may_fail: bool, more: dict[str, str]) -> str:
        left = max(1.0, min(self._patience * deadline_s, self._deadline - time.monotonic()))
        try:
            result = subprocess.run(
                command,
                env=self._environment | more,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=left,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DriveError(f"{' '.join(command[-6:])}: not done after {left:.0f} s") from None
        if result.returncode != 0 and not may_fail:
            raise DriveError(f"{' '.join(command[-6:])}: {result.stdout[-1500:]}{result.stderr[-3000:]}")
        return result.stdout

    def wait(self, what: str, ready: Callable[[], Any], deadline_s: float, every_s: float = 1.0) -> Any:
        """The first true value of `ready`. Raises DriveError, with the logs' last lines, when none comes in time."""
        left_s = self._deadline - time.monotonic()
        return awaited(what, ready, min(self._patience * deadline_s, left_s), self._seen, every_s)

    def _seen(self) -> str:
        logs = self.compose("logs", "--no-color", "--tail", "15", may_fail=True)
        return f"{self.compose('ps', '--all', may_fail=True)}\n{logs}"

    # -- containers ---------------------------------------------------------------------------------

    def containers(self, service: str) -> list[dict[str, Any]]:
        """What the engine knows of each container of a service, oldest first."""
        ids = self.compose("ps", "--all", "--quiet", service).split()
        found = json.loads(self.docker("inspect", *ids)) if ids else []
        return sorted(found, key=lambda container: container["Created"])

    def healthy(self, service: str) -> bool:
        states = [container["State"] for container in self.containers(service)]
        return bool(states) and all(state.get("Health", {}).get("Status") == "healthy" for state in states)

    def ends(self, service: str, since: float) -> list[int]:
        """Exit statuses of the service's containers that ended since then (Unix time); removed ones included."""
        form = "{{.Actor.Attributes.exitCode}}"
        filters = ("--filter", "event=die", "--filter", f"label=com.docker.compose.service={service}")
        span = ("--since", f"{since:.0f}", "--until", f"{time.time() + 1:.0f}")
        return [int(word) for word in self.docker("events", *span, *filters, "--format", form).split()]

    # -- the run ------------------------------------------------------------------------------------

    def steps(self) -> int:
        """Optimizer steps that the learner has recorded."""
        text = self.compose("exec", "-T", "learner", "cat", f"/runs/{RUN}/metrics.jsonl")
        return json.loads(text.strip().splitlines()[-1])["step"] if text.strip() else 0

    def members(self, state: str) -> set[str]:
        """Generators in that state, as the ledger knows them, and seen within the last seconds."""
        text = self.compose("exec", "-T", "learner", "chorus", "status", "--redis", REDIS, RUN)
        found = re.findall(r"^  (\S+) +(\w+) +version.* seen ([\d.]+) s ago$", text, re.MULTILINE)
        return {name for name, is_in, seen in found if is_in == state and float(seen) < 6}

    # -- from outside -------------------------------------------------------------------------------

    def prometheus(self, query: str) -> list[dict[str, Any]]:
        """The result of an instant query."""
        path = f"/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        return json.loads(_http(f"http://127.0.0.1:{self.prometheus_port}{path}"))["data"]["result"]

    def grade(self, **question: Any) -> str:
        """The reward server's verdict."""
        answer = _http(f"http://127.0.0.1:{self.reward_port}/v1/grade", json.dumps(question).encode())
        return json.loads(answer)["verdict"]


def _http(url: str, body: bytes | None = None) -> bytes:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
