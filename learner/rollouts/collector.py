"""From the rollouts stream to the next step's groups: read, check, drop with a reason, wait in time."""

from __future__ import annotations

import logging
import statistics
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from chorus.learner.rollouts.admission import Admission
from chorus.learner.rollouts.window import Window
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Entry, LearnerLedger, Rollout, digest_of
from chorus.protocol.messages import MessageError, RolloutGroup, staleness, undone, unpack_floats, unpack_ids
from chorus.protocol.metrics.processes import LearnerMetrics
from chorus.protocol.rewards import compose
from chorus.protocol.runtime.exits import CannotGoOn

log = logging.getLogger("chorus.learner")
_BLOCK_S = 0.5
_LOOK_S = 0.05
_AT_ONCE = 64  # groups of a reply while others have the processor: a long one is held three times
_RECOUNT_S = 5.0


@dataclass(frozen=True)
class _Fault:
    """Why a group can't be trained: the reason under which it is dropped, and a sentence."""

    reason: str
    text: str


_Judged = tuple[Entry, "Rollout | _Fault"]


class Collector:
    """Keeps the run's credits in use and hands out one step's groups at a time.

    A group's slot is charged by `admit` and freed when the learner reports it trained, or drops it here:
    `corrupt` (unreadable, of another run, or its task is not the one that was admitted), `stale` (older than
    staleness.max, or sampled by weights that a way back has undone), `ungraded` (fewer than two samples with a reward),
    `nonfinite` (fewer than two of these with finite log-probabilities), `filtered` (dynamic sampling: all right or all
    wrong, or outside objective.accuracy_bounds).
    A second answer to an index, which only a second writer makes, is refused and counted as foreign: it is no group.

    A dropped group's slot is filled by `admit` like any other, so filtering refills a step by itself. After
    objective.max_refills times a step's groups were filtered, the step takes the groups that come: a policy that
    has become too good, or too bad, for its problems still ends its steps.
    """

    def __init__(self, config: RunConfig, ledger: LearnerLedger, admission: Admission, metrics: LearnerMetrics) -> None:
        self.config = config
        self.ledger = ledger
        self.admission = admission
        self.metrics = metrics
        self.forced: deque[list[Rollout]] = deque()  # steps that a crash undid, in their recorded order
        self.window = Window(
            config.learner.groups_per_step,
            config.capacity,
            config.staleness.max,
            config.learner.head_deadline_s,
            versions_a_step=1 + config.relift.enabled,  # a supervised update makes one of its own
        )
        self.next_index = ledger.admitted()
        self.ahead: list[_Judged] = []  # read beside training, in their order
        self._filtered: Counter[str] = Counter()  # since the last step
        self._undone = 0
        self._later: list[RolloutGroup] = []  # observed after the steps that come again, as it was before the crash
        self._recounted = time.monotonic()

    def restore(self, durable_step: int, version: int | None = None) -> None:
        """What an earlier learner left: recorded steps come again first, in the order they had. `version`: of the
        weights after the durable step, as for `admit`.

        Raises CannotGoOn where such a step is not whole under this configuration; nothing is dropped then.
        """
        version = durable_step if version is None else version
        self.window.recount(self.ledger.outstanding_indices(), version)
        entries = {e.id: e for e in self.ledger.reread()}
        for step, ids in self.ledger.recorded().items():
            if step > durable_step and all(id in entries for id in ids):
                self.forced.append(self._whole(step, [entries.pop(id) for id in ids]))
        self._sort([(entry, self._judge(entry)) for entry in entries.values()], version)

    def undo(self, fence: int) -> None:
        """Groups sampled by weights of an earlier fence are stale from now on, whatever their step."""
        self._undone = fence

    def coming_again(self, durable_step: int) -> range:
        """The steps that a crash undid and that are trained next, as they were recorded."""
        return range(durable_step + 1, durable_step + 1 + len(self.forced))

    def _whole(self, step: int, entries: list[Entry]) -> list[Rollout]:
        """A recorded step's groups, if every one of them can be trained again."""
        found = [self._judge(entry) for entry in entries]
        faults = [fault for fault in found if isinstance(fault, _Fault)]
        if faults or not found or len(found) % self.config.learner.updates_per_step:
            why = faults[0].text if faults else f"it has {len(found)} groups"
            raise CannotGoOn(
                f"step {step} was recorded before the last stop and can't be trained again as it was under this "
                f"configuration ({why}): resume with the settings that the run had (sampling, learner.groups_per_step, "
                "learner.updates_per_step), and change them for a new run whose model.path is a checkpoint of this one"
            )
        return [rollout for rollout in found if isinstance(rollout, Rollout)]

    def admit(self, step: int, steps_left: int, version: int | None = None) -> None:
        """Fill the free slots, but never with more groups than the rest of the run can train.

        version: of the weights after `step`; None: nothing but steps has trained them.
        """
        wanted = steps_left * self.config.learner.groups_per_step - len(self.window.outstanding)
        room = min(self.config.capacity - len(self.window.outstanding), wanted)
        if room <= 0:
            return
        newest = step if version is None else version
        min_version = newest if self.config.staleness.target == 0 else 0
        first = self.next_index
        tasks = [self.admission.task(first + k, min_version, step + 1) for k in range(room)]
        taken = self.ledger.admit(first, [t.encode() for t in tasks], self.config.capacity)
        self.window.outstanding |= dict.fromkeys(range(first, first + taken), newest)
        self.next_index += taken

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Meanwhile a thread reads and judges what comes, and changes nothing: the next step finds it ready.

        Raises at its end what reading has raised.
        """
        ended = threading.Event()
        with ThreadPoolExecutor(1, "reading") as thread:
            read = thread.submit(self._read_ahead, ended)
            try:
                yield
            finally:
                ended.set()
        read.result()  # done: the thread has ended

    def _read_ahead(self, ended: threading.Event) -> None:
        while not ended.is_set():
            for entry in self.ledger.read(_AT_ONCE, 0.0):
                self.ahead.append((entry, self._judge(entry)))
            ended.wait(_LOOK_S)

    def next_step(
        self, step: int, steps_left: int, check: Callable[[], None], version: int | None = None
    ) -> list[Rollout]:
        """Block until a step's groups are there; `check` raises when waiting has become pointless. `version` as for
        `admit`.

        Raises CannotGoOn after learner.collect_deadline_s of nothing.
        """
        if self.forced:
            groups = self.forced.popleft()
            for rollout in groups:
                self.admission.observe(rollout.group)
            return groups
        while self._later:
            self.admission.observe(self._later.pop(0))
        version = step if version is None else version
        deadline_s = self.config.learner.collect_deadline_s
        last_news = time.monotonic()
        judged, self.ahead = self.ahead, []
        self._sort(judged, version)
        while True:
            check()
            self.admit(step, steps_left, version)
            if (groups := self.window.take(version)) is not None:
                if fresh := self._not_stale(groups, version):
                    return fresh
                continue
            entries = self.ledger.read(self.config.capacity, _BLOCK_S)
            now = time.monotonic()
            if self._sort([(entry, self._judge(entry)) for entry in entries], version):
                last_news = now  # what is dropped is no news: a run that drops everything must end
            if now - last_news > deadline_s:
                raise CannotGoOn(
                    f"no usable rollout for learner.collect_deadline_s = {deadline_s:g} s (dropped so far: "
                    f"{self.ledger.accounts().dropped or 'none'}): are generators and the reward server alive? "
                    "`chorus status` shows who waits"
                )
            if now - self._recounted > _RECOUNT_S and not entries:
                self._recount(now, version)

    def _recount(self, now: float, version: int) -> None:
        """Generators may have buried groups: ask the ledger which are still on their way."""
        self._recounted = now
        if self.ledger.accounts().outstanding != len(self.window.outstanding):
            self.window.recount(self.ledger.outstanding_indices(), version)

    def _not_stale(self, groups: list[Rollout], version: int) -> list[Rollout] | None:
        most = self.config.staleness.max
        stale = [r for r in groups if staleness(r.group, version) > most or undone(r.group, self._undone)]
        if not stale:
            return groups
        self._drop("stale", [r.entry for r in stale])
        for r in groups:
            if r not in stale:
                self.window.add(r, version)
        return None

    def _sort(self, judged: list[_Judged], version: int) -> bool:
        """Into the window, or out of the accounts; whether any can be trained."""
        usable = False
        for each in judged:
            if (ready := self._check(*each)) and self._informative(ready):
                self.window.add(ready, version)
                usable = True
        return usable

    def _check(self, entry: Entry, found: Rollout | _Fault) -> Rollout | None:
        """None: it was refused or dropped."""
        if entry.index is not None and self._answered(entry.index):
            log.warning("rollout %s is refused: index %d was answered before", entry.id, entry.index)
            self.ledger.refuse([entry.id])
            self.metrics.refused.labels("rollout").inc()
            return None
        if isinstance(found, _Fault):
            log.warning("rollout %s is dropped as %s: %s", entry.id, found.reason, found.text)
            self._drop(found.reason, [entry])
            return None
        if self.forced:
            self._later.append(found.group)
        else:
            self.admission.observe(found.group)
        return found

    def _judge(self, entry: Entry) -> Rollout | _Fault:
        """Whether a group can be trained; changes nothing."""
        try:
            group = read_group(entry, self.admission)
            if group.task.group_size != self.admission.stages.group_size(group.task.index):
                raise MessageError(f"{group.task.group_size} samples, not sampling.group_size or its stage's own")
        except MessageError as error:
            return _Fault("corrupt", str(error))
        spec = self.config.reward_spec
        graded = [
            s
            for s in group.samples
            if compose(spec, s.grade.accuracy, s.grade.format, s.n_tokens, s.grade.scores).total is not None
        ]
        if len(graded) < 2:
            return _Fault("ungraded", f"{len(graded)} samples with a verdict")
        if sum(bool(np.isfinite(unpack_floats(s.logprobs)).all()) for s in graded) < 2:
            return _Fault("nonfinite", "log-probabilities that are no finite numbers")
        return Rollout(entry, group)

    def _answered(self, index: int) -> bool:
        again = (r.entry.index for step in self.forced for r in step)
        return index not in self.window.outstanding or index in self.window.ready or index in again

    def _informative(self, ready: Rollout) -> bool:
        """Whether dynamic sampling keeps the group; DAPO, arXiv 2503.14476, filters on accuracy, not on the reward."""
        o = self.config.objective
        if not o.dynamic_sampling:
            return True
        accuracy = statistics.fmean(s.grade.accuracy for s in ready.group.samples if s.grade.accuracy is not None)
        low, high = o.accuracy_bounds
        if 0.0 < accuracy < 1.0 and low <= accuracy <= high:
            return True
        limit = o.max_refills * self.config.learner.groups_per_step
        if self._filtered.total() >= limit:
            log.warning("%d groups were filtered for this step, as objective.max_refills allows: keeping one", limit)
            return True
        self._filtered["all_wrong" if accuracy == 0.0 else "all_right" if accuracy == 1.0 else "outside"] += 1
        self._drop("filtered", [ready.entry])
        return False

    @property
    def waiting(self) -> int:
        """Finished groups that the next step can take."""
        return len(self.window.ready)

    def trained(self, groups: list[Rollout]) -> None:
        """Their slots are free."""
        for rollout in groups:
            self.window.forget(rollout.group.task.index)

    def take_filtered(self) -> Counter[str]:
        """How many groups were filtered since the last call, by why: `all_right`, `all_wrong`, `outside`."""
        filtered, self._filtered = self._filtered, Counter()
        return filtered

    def _drop(self, reason: str, entries: list[Entry]) -> None:
        self.ledger.drop(reason, [e.id for e in entries])
        self.metrics.dropped.labels(reason).inc(len(entries))
        for e in entries:
            if e.index is not None:
                self.window.forget(e.index)


def read_group(entry: Entry, admission: Admission) -> RolloutGroup:
    """The entry's group, if it is one that this run's generators can have made. Raises MessageError."""
    if entry.index is None:
        raise MessageError("it was admitted by nobody")
    group = RolloutGroup.decode(entry.payload)
    task = group.task
    if (task.run_id, task.index) != (admission.run_id, entry.index):
        raise MessageError(f"a group of run {task.run_id!r}, index {task.index}, at index {entry.index}")
    if digest_of(task.encode()) != entry.digest:
        raise MessageError(f"its task is not the one that was admitted at index {entry.index}")
    ids = np.concatenate([unpack_ids(part) for part in (task.prompt_ids, *(s.token_ids for s in group.samples))])
    if ids.min() < 0 or ids.max() >= admission.vocabulary:
        raise MessageError(f"token ids from {ids.min()} to {ids.max()}; the vocabulary ends at {admission.vocabulary}")
    if max(s.n_tokens for s in group.samples) > admission.config.sampling.max_tokens:
        raise MessageError("a completion is longer than sampling.max_tokens")
    return group
