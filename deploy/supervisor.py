"""Keeps a run's services alive: starts them, restarts what dies, gives up with a reason, stops all in order.

    start ──▶ running ──died──▶ waiting (RESTART_DELAY_S) ──▶ running
                │  └─ exit status 2 or 3, the same death again, or too many ──▶ ServiceFailed
                └─ the last word (`ends_run`) exits 0 ──▶ the run is over

A death is a normal event, `kill -9` included. Invariant: whatever happens here, or to this process, no child
stays behind (protocol/runtime/processes.py sees to that).
"""

from __future__ import annotations

import shutil
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from chorus.protocol.runtime import logs
from chorus.protocol.runtime.command_line import USAGE
from chorus.protocol.runtime.exits import CANNOT_GO_ON, likeness
from chorus.protocol.runtime.processes import Guarded, spawn_guarded

MAX_RESTARTS = 5
RESTART_WINDOW_S = 600.0
RESTART_DELAY_S = 1.0
SAME_AGAIN_S = 60.0  # who dies in the same way twice within this time will die so a third time
# From outside: a person, the kernel short of memory, a chaos run. That two such deaths are alike means nothing.
FROM_OUTSIDE = (0, *(-n for n in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)))


@dataclass(frozen=True)
class Service:
    """How one process is run. Its log is `<name>.log`."""

    name: str
    role: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cpus: frozenset[int] = frozenset()
    again: tuple[str, ...] = ()  # further arguments of every start but the first
    grace_s: float = 10.0  # from SIGTERM to SIGKILL
    ends_run: bool = False  # the run is over when it exits with 0


class ServiceFailed(RuntimeError):
    """A service can't go on. The message names it, its last words and its log."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class _Child:
    service: Service
    process: Guarded | None = None
    restart_at: float = 0.0
    deaths: deque[float] = field(default_factory=deque)
    log_begin: int = 0  # of this start's words
    last_death: tuple[int, str] | None = None  # exit status, likeness of the last words


class Supervisor:
    def __init__(self, logs: Path, note: Callable[[str], None]) -> None:
        self._logs = logs
        self._note = note
        self._children: list[_Child] = []

    def start(self, service: Service) -> None:
        """Start a service and keep it alive from now on."""
        child = _Child(service)
        self._children.append(child)
        self._spawn(child, service.argv)

    def tick(self) -> bool:
        """Look after all children once; call it a few times a second. True: the run is over.

        Raises ServiceFailed.
        """
        now = time.monotonic()
        for child in self._children:
            if child.process is None:
                if now >= child.restart_at:
                    self._spawn(child, child.service.argv + child.service.again)
            elif (status := child.process.poll()) is not None:
                if status == 0 and child.service.ends_run:
                    return True
                self._died(child, status, now)
        return False

    def stop(self) -> None:
        """Stop all, last started first; replicas of one role together. Bounded by the grace periods."""
        for _, group in groupby(reversed(self._children), key=lambda child: child.service.role):
            running = [(child.process, child.service.grace_s) for child in group if child.process is not None]
            for process, grace_s in running:
                process.request_stop(grace_s)
            for process, grace_s in running:
                process.stop(grace_s)
        self._children.clear()

    def kill(self) -> None:
        """SIGKILL to all, at once."""
        for child in self._children:
            if child.process is not None:
                child.process.request_stop(0.0)
        self.stop()

    def _spawn(self, child: _Child, argv: tuple[str, ...]) -> None:
        service = child.service
        log = self._logs / f"{service.name}.log"
        child.log_begin = log.stat().st_size if log.exists() else 0
        child.process = spawn_guarded(
            argv,
            name=service.name,
            env=service.env,
            log=log,
            cpus=set(service.cpus),
            grace_s=service.grace_s,
        )

    def _died(self, child: _Child, status: int, now: float) -> None:
        name = child.service.name
        how = f"was killed by signal {-status}" if status < 0 else f"ended with exit status {status}"
        log = self._logs / f"{name}.log"
        words = _last_words(log, child.log_begin)
        if status in (USAGE, CANNOT_GO_ON):
            raise ServiceFailed(f"{name}: {words or how} (log: {log})", CANNOT_GO_ON)
        death = (status, likeness(words))
        if status not in FROM_OUTSIDE and death == child.last_death and now - child.deaths[-1] <= SAME_AGAIN_S:
            raise ServiceFailed(
                f"{name} died twice in the same way within a minute, so a third start would not help: it {how}; its "
                f"last words: {words or 'none'} (log: {log}); mend what they name, then go on with `chorus run "
                f"--resume {self._logs.parent}`",
                1,
            )
        child.last_death = death
        child.deaths.append(now)
        while child.deaths[0] < now - RESTART_WINDOW_S:
            child.deaths.popleft()
        if len(child.deaths) > MAX_RESTARTS:
            raise ServiceFailed(
                f"{name} died {len(child.deaths)} times within {RESTART_WINDOW_S / 60:.0f} minutes, so it is "
                f"not started again; it {how}; its last words: {words or 'none'} (log: {log}); mend what they name, "
                f"then go on with `chorus run --resume {self._logs.parent}`",
                1,
            )
        self._note(f"{name} {how}; restart {len(child.deaths)} of at most {MAX_RESTARTS} (log: {log})")
        child.process = None
        child.restart_at = now + RESTART_DELAY_S


def _last_words(log: Path, begin: int) -> str:
    """The last line from byte `begin` on that says something; or what kept it from being written."""
    if not shutil.disk_usage(log.parent).free:
        return f"the disk of {log.parent} is full; make room, then go on with --resume"
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(begin)
        lines = file.read().decode(errors="replace").splitlines()
    return logs.message_of(next((line.strip() for line in reversed(lines) if line.strip()), ""))
