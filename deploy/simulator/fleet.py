"""A run with any number of generators, simulated: who waits for whom follows from the rules of the ledger.

    admit ─▶ queue ─▶ lease ─▶ sample ─▶ grade ─▶ commit ─▶ window ─▶ train ─▶ credits free, admit, publish weights
      while outstanding < (S + 1) x P                                             └─▶ every generator pauses and syncs

As in the system: whoever asked first gets as many groups as it has slots, its share of the window at most; the learner
takes the next step's groups by `Window` of learner/rollouts; groups that are too old are dropped and their credits used
again; with S = 0 a group waits for the weights of its step; a generator whose sync is slow skips versions. Left out:
failures, evaluation, prompts' prefill, limits of Redis and of the reward server.

The simulation draws no random numbers: groups and learner times are taken from the pace in turn.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from chorus.deploy.simulator.engine import Generator, Group
from chorus.deploy.simulator.pace import Pace
from chorus.learner.rollouts.window import Window
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Rollout

LEASE_BLOCK_S = 0.5  # of generator/agent.py
_LEARNER_LOOKS_S = 0.5  # of learner/rollouts/collector.py


class Fleet:
    """`join` generators, then `run`. Everything is counted from time 0."""

    def __init__(self, config: RunConfig, pace: Pace) -> None:
        self.config = config
        self.pace = pace
        self.now = 0.0
        self.done = 0  # steps
        self.waited_s = 0.0  # of the learner, for groups
        self.dropped = 0
        self.staleness: list[int] = []  # of every trained group, in order
        self.members: list[Generator] = []  # since their join
        self.generators: list[Generator] = []  # of these, who can work
        self.queue: deque[Group] = deque()
        self.window = Window(
            config.learner.groups_per_step,
            config.capacity,
            config.staleness.max,
            config.learner.head_deadline_s,
            clock=lambda: self.now,
        )
        self.waiting_since: float | None = 0.0  # None: the learner trains
        self._steps = [pace.engine.step_s(n) for n in range(config.generator.max_num_seqs + 1)]
        self._admitted = 0
        self._kept = 0.0
        self._left_held_s = 0.0
        self._looks_again = False
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = itertools.count()
        self._at(0.0, self._admit)

    def join(self, after_s: float = 0.0) -> Generator:
        """One more generator, which takes work `after_s` from now (its engine starts first)."""
        generator = Generator(0, self._steps)
        self.members.append(generator)
        self._share_out()
        self._at(self.now + after_s, self._joined, generator)
        return generator

    def leave(self, generator: Generator) -> None:
        """It leases nothing more, finishes what it holds, and is gone."""
        generator.leaving = True
        self._dismiss(generator)

    def _dismiss(self, generator: Generator) -> None:
        if generator.leaving and not generator.held and generator in self.members:
            generator.advance(self.now)
            self._left_held_s += generator.held_s
            self.members.remove(generator)
            if generator in self.generators:
                self.generators.remove(generator)
            self._share_out()

    def _share_out(self) -> None:
        """Nobody holds more than its share of what may be outstanding; who is loading a model counts, too."""
        for generator in self.members:
            share = -(-self.config.capacity // len(self.members))
            generator.slots = min(self.config.groups_in_flight, share)

    def run(self, until_s: float = math.inf, steps: float = math.inf) -> None:
        """Go on until the moment or the number of steps is reached."""
        while self.done < steps and self._events and self._events[0][0] <= until_s:
            self.now, _, call, arguments = heapq.heappop(self._events)
            call(*arguments)
        if self.done < steps and until_s < math.inf:
            self.now = until_s

    def learner_waited_s(self) -> float:
        """Up to now, an open wait included."""
        return self.waited_s + (self.now - self.waiting_since if self.waiting_since is not None else 0.0)

    def held_s(self) -> float:
        """Time in which generators held a group, summed over the fleet, up to now."""
        for generator in self.generators:
            generator.advance(self.now)
        return self._left_held_s + sum(generator.held_s for generator in self.generators)

    def _at(self, time: float, call: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._events, (time, next(self._order), call, arguments))

    # -- queue ----------------------------------------------------------------------------------------

    def _admit(self) -> None:
        fresh = self.done if self.config.staleness.target == 0 else 0
        for _ in range(self.config.capacity - len(self.window.outstanding)):
            lengths = self.pace.groups[self._admitted % len(self.pace.groups)]
            self.queue.append(Group(self._admitted, lengths, fresh))
            self.window.outstanding[self._admitted] = self.done
            self._admitted += 1
        self._hand_out()

    def _hand_out(self) -> None:
        while self.queue:
            asking = [g for g in self.generators if g.free]
            if not asking:
                return
            first = min(asking, key=lambda g: g.asked_at(self.now, LEASE_BLOCK_S))
            first.advance(self.now)
            for _ in range(min(first.free, len(self.queue))):
                self._leased(first, self.queue.popleft())
            first.asking_since = self.now
            self._schedule(first)

    def _leased(self, generator: Generator, group: Group) -> None:
        generator.held += 1
        if group.min_version <= generator.verified:
            generator.start(group)
        else:
            generator.waiting.append(group)

    # -- generators -----------------------------------------------------------------------------------

    def _joined(self, generator: Generator) -> None:
        if generator.leaving:
            return
        generator.at = generator.asking_since = self.now
        generator.sampled = generator.verified = self.done
        self.generators.append(generator)
        self._hand_out()

    def _schedule(self, generator: Generator) -> None:
        generator.stamp += 1
        if (end := generator.next_end()) is not None:
            self._at(end, self._ended, generator, generator.stamp)

    def _ended(self, generator: Generator, stamp: int) -> None:
        if stamp != generator.stamp:
            return  # something has changed since: a newer event stands for the next end
        generator.advance(self.now)
        for group in generator.take_finished():
            self._at(self.now + self.pace.grade_s, self._graded, generator, group)
        self._schedule(generator)

    def _graded(self, generator: Generator, group: Group) -> None:
        if generator.sampled != generator.verified:
            generator.unverified.append(group)
        else:
            self._commit(generator, group)

    def _commit(self, generator: Generator, group: Group) -> None:
        generator.advance(self.now)
        generator.held -= 1
        generator.asking_since = self.now
        self._dismiss(generator)
        self._finished(group)
        self._hand_out()

    # -- weights --------------------------------------------------------------------------------------

    def _publish(self) -> None:
        for generator in self.generators:
            if generator.target is None:
                self._sync(generator)

    def _sync(self, generator: Generator) -> None:
        generator.target = self.done
        if later_s := self.pace.later_with(len(self.generators)):
            self._at(self.now + later_s, self._paused, generator)
        else:
            self._paused(generator)
        self._at(self.now + self.pace.sync_with(len(self.generators)), self._synced, generator)

    def _paused(self, generator: Generator) -> None:
        generator.advance(self.now)
        generator.paused = True
        generator.stamp += 1  # nothing ends while it stands still
        self._at(self.now + self.pace.pause_s, self._resumed, generator)

    def _resumed(self, generator: Generator) -> None:
        generator.advance(self.now)
        generator.paused = False
        generator.sampled = cast(int, generator.target)
        self._schedule(generator)

    def _synced(self, generator: Generator) -> None:
        generator.advance(self.now)
        generator.verified, generator.target = generator.sampled, None
        for group in [g for g in generator.waiting if g.min_version <= generator.verified]:
            generator.waiting.remove(group)
            generator.start(group)
        self._schedule(generator)
        committed, generator.unverified = generator.unverified, []
        for group in committed:
            self._commit(generator, group)
        if generator.verified < self.done and generator in self.generators:
            self._sync(generator)

    # -- learner --------------------------------------------------------------------------------------

    def _finished(self, group: Group) -> None:
        self._kept += self.pace.accepted
        if self._kept < 1.0:
            self._drop([group])  # as dynamic sampling does
            return
        self._kept -= 1.0
        self.window.ready[group.index] = cast(Rollout, group)
        if self.waiting_since is not None:
            self._look()

    def _look(self) -> None:
        """Begin the next step, if its groups are there."""
        while len(self.window.ready) >= self.config.learner.groups_per_step:
            taken = cast("list[Group] | None", self.window.take(self.done))
            if taken is None:
                self._look_later()
                return
            stale = [g for g in taken if self.done - g.version > self.config.staleness.max]
            if not stale:
                self._train(taken)
                return
            self.window.ready |= {g.index: cast(Rollout, g) for g in taken if g not in stale}
            self._drop(stale)

    def _look_later(self) -> None:
        if not self._looks_again:
            self._looks_again = True
            self._at(self.now + _LEARNER_LOOKS_S, self._looked_later)

    def _looked_later(self) -> None:
        self._looks_again = False
        if self.waiting_since is not None:
            self._look()

    def _drop(self, groups: list[Group]) -> None:
        self.dropped += len(groups)
        for group in groups:
            self.window.forget(group.index)
        self._admit()

    def _train(self, groups: list[Group]) -> None:
        self.waited_s = self.learner_waited_s()
        self.waiting_since = None
        token_s = self.pace.learner[self.done % len(self.pace.learner)]
        self._at(self.now + token_s * sum(g.lengths.total for g in groups), self._trained, groups)

    def _trained(self, groups: list[Group]) -> None:
        self.staleness += [self.done - g.version for g in groups]
        self.done += 1
        for group in groups:
            self.window.forget(group.index)
        for act in (self._publish, self._admit) if self.pace.fresh else (self._admit, self._publish):
            act()
        self.waiting_since = self.now
        self._look()
