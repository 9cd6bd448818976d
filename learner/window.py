"""Which finished groups the next step takes: windowed FIFO over the admission order.

Groups finish out of order: short answers first. Taking them as they come would train the easy ones early
and starve the long ones; waiting strictly in order would idle at every slow group. So a step takes the
oldest finished groups, but none that is more than `slack` places beyond the step's fair share:

    index:      0   1   2   3   4   5   6   7        groups a step P = 4, slack W = 1
    finished:       x   x   x   x   x       x
    head = 0 (still being generated): eligible are indices < 0 + 4 + 1, that is 1, 2, 3, 4: taken.
    Had only 1, 2, 5, 7 finished, the step would wait for 0 or 3.

If the head makes no progress for `head_deadline_s` the bound is waived until it moves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from protocol.ledger import Entry
from protocol.messages import RolloutGroup


@dataclass(frozen=True)
class Ready:
    """A finished group and its entry on the ledger."""

    entry: Entry
    group: RolloutGroup


@dataclass
class Window:
    """`outstanding`: admission indices neither trained nor dropped, finished or not."""

    groups_per_step: int
    capacity: int
    head_deadline_s: float
    clock: Callable[[], float] = time.monotonic
    outstanding: set[int] = field(default_factory=set)
    ready: dict[int, Ready] = field(default_factory=dict)
    _head: int = -1
    _head_since: float = 0.0

    @property
    def slack(self) -> int:
        return max(1, int(0.3 * self.capacity))

    def add(self, item: Ready) -> None:
        self.ready[item.group.task.index] = item
        self.outstanding.add(item.group.task.index)

    def forget(self, index: int) -> None:
        """Trained or dropped."""
        self.outstanding.discard(index)
        self.ready.pop(index, None)

    def take(self) -> list[Ready] | None:
        """The next step's groups in admission order, or None where it must wait. They stay outstanding."""
        head = min(self.outstanding, default=0)
        if head != self._head:
            self._head, self._head_since = head, self.clock()
        stuck = self.clock() - self._head_since > self.head_deadline_s
        bound = head + self.groups_per_step + self.slack
        eligible = [i for i in sorted(self.ready) if stuck or i < bound][: self.groups_per_step]
        if len(eligible) < self.groups_per_step:
            return None
        return [self.ready.pop(i) for i in eligible]
