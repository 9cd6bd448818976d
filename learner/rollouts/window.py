"""Which finished groups the next step takes: windowed FIFO over the admission order.

Groups finish out of order: short answers first. Taking them as they come would train the easy ones early
and starve the long ones; waiting strictly in order would idle at every slow group. So a step takes the
oldest finished groups among the first `groups_per_step + slack` outstanding ones:

    index:      0   1   2   3   4   5   6   7        groups a step P = 4, slack W = 1
    finished:       x   x   x   x   x       x        the first P + W outstanding are 0..4
    eligible are 1, 2, 3, 4: taken. Had only 1, 2, 5, 7 finished, the step would wait for 0, 3 or 4.

When all outstanding groups are finished there is always enough to take, so the window alone never blocks.
A group that would be too old for the step after this one is waited for (`head_deadline_s` at most): work
is paced, not thrown away.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from chorus.protocol.ledger import Rollout


@dataclass
class Window:
    """`outstanding`: admission indices neither trained nor dropped, each with the version it was admitted at.

    Ages are versions, as where groups are dropped for theirs: a step makes one, or up to `versions_a_step`.
    """

    groups_per_step: int
    capacity: int
    max_staleness: int
    head_deadline_s: float
    clock: Callable[[], float] = time.monotonic
    versions_a_step: int = 1
    outstanding: dict[int, int] = field(default_factory=dict)
    ready: dict[int, Rollout] = field(default_factory=dict)
    _head: int = -1
    _head_since: float = 0.0

    @property
    def slack(self) -> int:
        return max(1, int(0.3 * self.capacity))

    def add(self, item: Rollout, version: int) -> None:
        """A group has finished; `version` is where it counts from if it was not known (after a resume)."""
        self.ready[item.group.task.index] = item
        self.outstanding.setdefault(item.group.task.index, version)

    def forget(self, index: int) -> None:
        """Trained or dropped."""
        self.outstanding.pop(index, None)
        self.ready.pop(index, None)

    def recount(self, indices: set[int], version: int) -> None:
        """The ledger's own list of what is outstanding."""
        self.outstanding = {i: self.outstanding.get(i, version) for i in indices}

    def take(self, version: int) -> list[Rollout] | None:
        """The next step's groups in admission order, or None where it must wait. They stay outstanding."""
        first = sorted(self.outstanding)[: self.groups_per_step + self.slack]
        if not first or self._must_wait_for(first[0], version):
            return None
        eligible = [i for i in first if i in self.ready][: self.groups_per_step]
        if len(eligible) < self.groups_per_step:
            return None
        return [self.ready.pop(i) for i in eligible]

    def _must_wait_for(self, head: int, version: int) -> bool:
        """Trained now it is in time, trained a step later it may be too old."""
        if head != self._head:
            self._head, self._head_since = head, self.clock()
        age = version - self.outstanding[head]
        due = head not in self.ready and age > self.max_staleness - self.versions_a_step
        return due and self.clock() - self._head_since <= self.head_deadline_s
