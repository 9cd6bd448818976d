"""One simulated generator: its leases, the sequences that share its engine, and the pauses for new weights.

    held:  leased ─▶ (waits for weights) ─▶ running ─▶ finished ─▶ (grade, weight check) ─▶ committed
           └──────────────────── one of `slots` is taken ───────────────────────────┘

All running sequences advance together, one token a decode step. So the engine has one clock of its own, `position`,
which counts decode steps; a group that starts at position p ends at p + its longest completion. How fast the position
moves depends on how many sequences run, and while the engine is paused it stands still.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

from chorus.deploy.simulator.pace import Lengths


@dataclass(eq=False, slots=True)
class Group:
    """`version`: step of the weights that sampled its first token."""

    index: int
    lengths: Lengths
    min_version: int
    version: int = 0


@dataclass(eq=False)
class Generator:
    """`step_s[n]`: seconds a decode step takes with n sequences."""

    slots: int
    step_s: Sequence[float]
    at: float = 0.0  # up to which moment position and held_s are counted
    position: float = 0.0
    sequences: float = 0.0
    running: list[tuple[float, int, Group]] = field(default_factory=list)  # heap: ends at which position
    held: int = 0
    held_s: float = 0.0
    asking_since: float = 0.0  # when it last asked for a lease
    leaving: bool = False
    paused: bool = False
    sampled: int = 0  # version that samples
    verified: int = 0  # version whose weight check has passed
    target: int | None = None  # version on its way
    waiting: list[Group] = field(default_factory=list)  # for weights
    unverified: list[Group] = field(default_factory=list)  # finished, for the weight check
    stamp: int = 0  # of the newest event about the end of a group

    @property
    def free(self) -> int:
        return 0 if self.leaving else max(0, self.slots - self.held)

    def advance(self, now: float) -> None:
        """Account for the time since the last call."""
        passed = now - self.at
        self.at = now
        if self.held:
            self.held_s += passed
        if self.running and not self.paused:
            self.position += passed / self._step_s

    @property
    def _step_s(self) -> float:
        n = int(self.sequences + 0.5)
        last = len(self.step_s) - 1
        return self.step_s[n] if n <= last else self.step_s[last] * self.sequences / last

    def start(self, group: Group) -> None:
        group.version = self.target if self.paused and self.target is not None else self.sampled
        self.sequences += group.lengths.sequences
        heapq.heappush(self.running, (self.position + group.lengths.longest, group.index, group))

    def next_end(self) -> float | None:
        """When the next group ends, if nothing changes before."""
        if self.paused or not self.running:
            return None
        return self.at + max(0.0, self.running[0][0] - self.position) * self._step_s

    def take_finished(self) -> list[Group]:
        finished = []
        while self.running and self.running[0][0] <= self.position + 1e-6:
            finished.append(heapq.heappop(self.running)[2])
            self.sequences -= finished[-1].lengths.sequences
        if not self.running:
            self.sequences = 0.0  # no rounding is left over
        return finished

    def asked_at(self, now: float, block_s: float) -> float:
        """A lease request waits `block_s` and is then made again, behind those that were made meanwhile."""
        return self.asking_since + (now - self.asking_since) // block_s * block_s
