"""The generators of a run as an engine: their `eval` queue, outside the training's credits and accounts.

A fleet that has weights samples for whoever asks on that queue: after its learner has ended, or while it holds still.
The weights' version is pinned before the first question, and an answer under another one ends the evaluation rather
than mixing two policies in one figure.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import redis

from chorus.protocol.ledger import Entry, IndexTakenError, Keys, LearnerLedger
from chorus.protocol.messages import Member, MessageError, RolloutGroup, Sampling, Task, Version, pack_ids, unpack_ids
from chorus.protocol.runtime.exits import CannotGoOn

_BLOCK_S = 0.5
_UNBOUNDED = 2**31
_OURS = "chorus-eval/"  # how the tasks of these evaluations are named
_CLEAR_DEADLINE_S = 120.0


@dataclass(frozen=True)
class Sampled:
    token_ids: list[int]
    finish_reason: str


class Fleet:
    """Asks the generators of `run`. Use `open_fleet`; raises CannotGoOn."""

    def __init__(self, client: redis.Redis, run: str, template: str) -> None:
        keys = Keys(run)
        fence: Any = client.get(keys.fence)
        if fence is None:
            raise CannotGoOn(f"run {run!r} has no ledger on this Redis; is it another server, or another run's name?")
        self.version = _version(client, keys)
        # The newest learner's own fence: a learner that starts meanwhile ends this evaluation, not the other way.
        self._ledger = LearnerLedger(client, run, "eval", int(fence))
        self._run = run
        self._template = template
        self._waiting: dict[int, asyncio.Future[RolloutGroup]] = {}
        self._admitting = asyncio.Lock()
        self._collecting: asyncio.Task[None] | None = None

    async def generate(
        self, prompt: list[int], n: int, temperature: float, max_tokens: int, deadline_s: float, top_p: float = 1.0
    ) -> list[Sampled]:
        """`n` samples of `prompt` from whichever generator comes first, all under one version of the weights."""
        answer: asyncio.Future[RolloutGroup] = asyncio.get_running_loop().create_future()
        async with self._admitting:
            index = await asyncio.to_thread(self._ledger.admitted)
            self._waiting[index] = answer
            sampling = Sampling(temperature=temperature, max_tokens=max_tokens, top_p=top_p)
            task = self._task(index, prompt, n, sampling, deadline_s)
            try:
                await asyncio.to_thread(self._ledger.admit, index, [task.encode()], _UNBOUNDED)
            except IndexTakenError:
                raise self._not_alone() from None
        collecting = self._collecting
        assert collecting, "use open_fleet"
        try:
            await asyncio.wait({answer, collecting}, timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waiting.pop(index, None)
        if collecting.done() and not answer.done():
            collecting.result()  # why nobody hands out answers any more
        if not answer.done():
            raise CannotGoOn(
                f"the generators of {self._run!r} gave no answer for {deadline_s:g} s (given up: "
                f"{self._ledger.accounts().dropped or 'none'}); see their logs, or raise --deadline"
            )
        group = answer.result()
        return [Sampled(unpack_ids(s.token_ids).tolist(), s.finish_reason) for s in group.samples]

    def _task(self, index: int, prompt: list[int], n: int, sampling: Sampling, deadline_s: float) -> Task:
        return Task(
            run_id=self._run,
            index=index,
            epoch=0,
            problem_id=f"{_OURS}{index}",
            kind="math",
            gold=["-"],  # graded by whoever asks, in its own mode
            template=self._template,
            prompt_ids=pack_ids(prompt),
            group_size=n,
            sampling=sampling,
            min_version=0,
            deadline_s=deadline_s,
            admitted_at=time.time(),
        )

    async def start(self) -> None:
        """Wait until nobody else's questions are on the queue, then collect. Raises CannotGoOn."""
        end = time.monotonic() + _CLEAR_DEADLINE_S
        entries = await asyncio.to_thread(self._ledger.reread)
        while entries or (await asyncio.to_thread(self._ledger.accounts)).outstanding:
            for entry in entries:
                self._clear(entry)
            if time.monotonic() > end:
                raise CannotGoOn(
                    f"the eval queue of {self._run!r} still had others' questions after {_CLEAR_DEADLINE_S:g} s; see "
                    "the generators' logs"
                )
            entries = await asyncio.to_thread(self._ledger.read, 1000, _BLOCK_S)
        self._collecting = asyncio.create_task(self._collect())

    def _clear(self, entry: Entry) -> None:
        """An evaluation that was killed leaves answers; the learner's own are not ours to take."""
        with suppress(MessageError):
            if not RolloutGroup.decode(entry.payload).task.problem_id.startswith(_OURS):
                raise self._not_alone()
        self._ledger.drop("abandoned", [entry.id])

    def _not_alone(self) -> CannotGoOn:
        return CannotGoOn(f"the learner of {self._run!r} is evaluating; wait until it has ended")

    async def stop(self) -> None:
        if self._collecting:
            self._collecting.cancel()
            await asyncio.gather(self._collecting, return_exceptions=True)
        await asyncio.to_thread(self._ledger.trim)

    async def _collect(self) -> None:
        """Hand answers to those who wait for them, until cancelled."""
        while True:
            for entry in await asyncio.to_thread(self._ledger.read, 1000, _BLOCK_S):
                self._take(entry)

    def _take(self, entry: Entry) -> None:
        waiting = None if entry.index is None else self._waiting.get(entry.index)
        if waiting is None or waiting.done():
            self._clear(entry)
            return
        try:
            group = RolloutGroup.decode(entry.payload)
        except MessageError as error:
            self._ledger.drop("corrupt", [entry.id])
            waiting.set_exception(
                CannotGoOn(
                    f"an answer of the generators can't be read ({error}); start them from this command's own version"
                )
            )
            return
        self._ledger.durable(0, [entry.id])
        seen = {(fence, step) for s in group.samples for fence, step, _ in s.versions}
        if other := seen - {(self.version.fence, self.version.step)}:
            waiting.set_exception(
                CannotGoOn(
                    f"the weights of {self._run!r} went from step {self.version.step} to {max(other)[1]} during the "
                    "evaluation; wait until its training has ended, or evaluate a checkpoint with --checkpoint"
                )
            )
        else:
            waiting.set_result(group)


@asynccontextmanager
async def open_fleet(client: redis.Redis, run: str, template: str) -> AsyncIterator[Fleet]:
    """A run's generators, collected from until the block ends."""
    fleet = Fleet(client, run, template)
    try:
        await fleet.start()
        yield fleet
    finally:
        await fleet.stop()


def _version(client: redis.Redis, keys: Keys) -> Version:
    """The one version that all generators with weights hold. Raises CannotGoOn."""
    found: Any = client.hgetall(keys.members)
    versions = set()
    for data in found.values():
        try:
            member = Member.decode(data)
        except MessageError:
            continue
        if member.state == "ready" and member.version:
            versions.add(member.version)
    if not versions:
        raise CannotGoOn(f"run {keys.run!r} has no generator with weights; start some, or leave --running out")
    if len(versions) > 1:
        raise CannotGoOn(
            f"the generators of {keys.run!r} hold different weights ({', '.join(sorted(versions))}): it is training; "
            "wait until it has ended, or evaluate a checkpoint with --checkpoint"
        )
    return Version.parse(versions.pop())
