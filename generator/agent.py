"""The agent beside a vLLM engine: a member of the fleet that comes, works, and goes.

    joining ─▶ (engine healthy, first sync verified) ─▶ ready ─▶ draining ─▶ gone, exit 0
       ▲                                     weight check failed │ ▲ weight check passed
       └── engine died: leases given back ◀── quarantined ◀┘ ┘

Four loops, one owner each: the engine is kept alive, offers of weights are taken one after another, leases
are taken and renewed, heartbeats are sent. A SIGTERM drains: nothing new is leased, what is sampled is
committed, what is not is given back. A `kill -9` costs the leases' time: others claim them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import Any

import redis
import redis.asyncio

from chorus.generator.engine import Engine, EngineError, EngineGone
from chorus.generator.hold import StandingHold
from chorus.generator.reward_client import Grader, GradeRefused
from chorus.generator.rollout import Decoder, produce, versions_of
from chorus.generator.weight_sync import WeightSync
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import GeneratorLedger, Keys, Lease, LedgerLostError, entries_of, lost
from chorus.protocol.ledger.keys import Entries, Queue
from chorus.protocol.messages import Member, MessageError, SyncOffer, Task
from chorus.protocol.metrics.processes import GeneratorMetrics
from chorus.protocol.metrics.waits import watch_event_loop
from chorus.protocol.runtime.exits import likeness
from chorus.protocol.runtime.redis import server_time_async

log = logging.getLogger("chorus.generator")
_HEARTBEAT_S = 1.0
_LOOK_AGAIN_S = 1.0
_FAREWELL_S = 2.0
_REPORTS_KEPT = 5_000  # of all generators: with an adapter of many layers one is 13 kB, and Redis holds them in memory
_ENGINE_STARTS_IN_A_ROW = 3


class Agent:
    """One generator. `run()` returns when drained; LedgerLostError or EngineError: it can't go on."""

    def __init__(
        self,
        config: RunConfig,
        run_id: str,
        generator_id: str,
        engine: Engine,
        grader: Grader,
        decoder: Decoder,
        client: redis.asyncio.Redis,
        metrics: GeneratorMetrics | None = None,
    ) -> None:
        self.config = config
        self.id = generator_id
        self.engine = engine
        self.client = client
        self.metrics = metrics or GeneratorMetrics()
        self.metrics.run.labels(run_id, generator_id).set(1)
        self.sync = WeightSync(engine, generator_id, config.generator.keep_stale_kv, self.metrics)
        self._grader = grader
        self._decoder = decoder
        self._keys = Keys(run_id)
        lease_s = config.generator.lease_s
        queues: tuple[Queue, ...] = ("eval", "train")
        self._ledgers: dict[Queue, GeneratorLedger] = {
            queue: GeneratorLedger(client, run_id, generator_id, lease_s, queue) for queue in queues
        }
        self._work: dict[tuple[Queue, str], asyncio.Task[None]] = {}
        self._failures: asyncio.Queue[Exception] = asyncio.Queue()
        self._draining = asyncio.Event()
        self._engine_up = asyncio.Event()
        self._unreachable = asyncio.Event()
        self._started = time.monotonic()
        self._busy_seconds = 0.0
        self._tokens = 0
        self._at_work = 1
        self._hold = StandingHold(client, self._keys.hold, generator_id)

    def drain(self) -> None:
        """Stop leasing; finish or give back what is held; then `run` returns."""
        self._draining.set()

    async def run(self) -> None:
        loops = [
            asyncio.create_task(loop, name=name)
            for name, loop in (
                ("engine", self._keep_engine()),
                ("heartbeat", self._heartbeat()),
                ("sync", self._take_offers()),
                ("renew", self._renew()),
                ("lease eval", self._lease("eval")),
                ("lease train", self._lease("train")),
                ("work", self._first_failure()),
                ("lag", watch_event_loop(self.metrics.lag_s, log)),
            )
        ]
        drained = asyncio.create_task(self._draining.wait())
        try:
            done, _ = await asyncio.wait([drained, *loops], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {drained}:
                task.result()  # a loop ends by failing: hand its error on
            log.info("draining: nothing new is leased, %d groups are under way", len(self._work))
            await self._finish_work()
            log.info("drained: what was held is committed or given back")
        finally:
            await _end({drained, *loops, *self._work.values()})
            with suppress(redis.RedisError, TimeoutError):
                async with asyncio.timeout(_FAREWELL_S):
                    await self.client.hdel(self._keys.members, self.id)
                    await self.client.hdel(self._keys.waits, self.id)
            await self.engine.stop()

    @property
    def state(self) -> str:
        if self._draining.is_set():
            return "draining"
        if self.sync.quarantined:
            return "quarantined"
        if not self._engine_up.is_set():
            return "joining"
        return "ready" if self.sync.version is not None else "syncing"

    @property
    def readiness(self) -> str:
        """`ready`, or why its samples can't be counted on: for a cluster's probe, see `generator/probes.py`."""
        behind, most = self.sync.behind, self.config.staleness.max
        if self.state == "ready" and behind > most:
            return f"stale: {behind} steps behind the learner, staleness.max is {most}"
        return self.state

    # -- the engine ---------------------------------------------------------------------------------

    async def _keep_engine(self) -> None:
        failures, before = 0, ""
        while True:
            try:
                with self.metrics.waits.on("engine", "vLLM", self.config.generator.start_deadline_s):
                    await self.engine.start()
            except EngineError as error:
                failures += 1
                if failures == _ENGINE_STARTS_IN_A_ROW or (error.reason and likeness(error.reason) == before):
                    raise  # what fails twice for one reason fails for it a third time
                before = likeness(error.reason)
                log.warning("%s; trying again", error)
                continue
            failures, before = 0, ""
            self.metrics.engine_starts.inc()
            self._engine_up.set()
            log.info("engine %d is healthy", self.engine.starts)
            await self._engine_gone()
            log.warning("engine %d is gone; its %d groups go back to the queue", self.engine.starts, len(self._work))
            self._engine_up.clear()
            await self.sync.forget()
            await self._give_back_all()

    async def _engine_gone(self) -> None:
        """Until the engine is dead, hangs, or refuses a connection."""
        self._unreachable.clear()
        dead = asyncio.create_task(self.engine.wait_dead())
        unreachable = asyncio.create_task(self._unreachable.wait())
        try:
            await asyncio.wait({dead, unreachable}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _end({dead, unreachable})

    # -- weights ------------------------------------------------------------------------------------

    async def _take_offers(self) -> None:
        stream: Any = self._keys.offers(self.id)
        last: bytes | str = "0"
        taken = ("", "")
        while True:
            await self._engine_up.wait()
            entries = entries_of(await self.client.xread({stream: last}, block=1000))
            if not entries:
                continue
            last = entries[-1][0]
            offer = self._newest_readable(entries)
            if offer is None or (offer.group, offer.version) == taken:
                continue  # the same again: the reply to its first writing was lost, so it was written twice
            taken = offer.group, offer.version
            report = await self.sync.take(offer)
            if not report.ok:
                log.warning("sync to %s failed: %s", offer.version, report.detail)
            if self.sync.quarantined:
                await self._give_back_all()
            await self.client.xadd(self._keys.reports, {"d": report.encode()}, maxlen=_REPORTS_KEPT)

    def _newest_readable(self, entries: Entries) -> SyncOffer | None:
        for id, fields in reversed(entries):
            try:
                return SyncOffer.decode(fields.get(b"d", b""))
            except MessageError as error:
                log.warning("offer %s is unreadable and ignored: %s", id.decode(), error)
                self.metrics.syncs.labels("unreadable").inc()
        return None

    # -- work ---------------------------------------------------------------------------------------

    async def _lease(self, queue: Queue) -> None:
        ledger = self._ledgers[queue]
        while not self._draining.is_set():
            # With weights older than that, because syncs fail, all it sampled would be dropped for its age.
            useful = max(0, self.sync.offered_step - self.config.staleness.max)
            if not await self.sync.wait_for_step(useful, _LOOK_AGAIN_S):
                continue
            if not self._hold.lets_lease(queue):
                await asyncio.sleep(_LOOK_AGAIN_S)
                continue
            room = self._share(queue) - sum(held == queue for held, _ in self._work)
            if room <= 0:
                # A slot frees when a group ends; their ends are what to wait for.
                await asyncio.wait(self._work.values(), timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
                continue
            for lease in await ledger.lease(room, block_s=0.5):
                if (queue, lease.id) in self._work:
                    continue  # ours all along: it expired while Redis was away, and we have just claimed it
                task = asyncio.create_task(self._handle(queue, lease))
                self._work[queue, lease.id] = task
                task.add_done_callback(lambda task, key=(queue, lease.id): self._ended(key, task))

    def _share(self, queue: Queue) -> int:
        """How many groups to hold: whoever reads first must not take what keeps the others busy."""
        at_once = self.config.groups_in_flight
        return at_once if queue == "eval" else min(at_once, -(-self.config.capacity // self._at_work))

    def _ended(self, key: tuple[Queue, str], task: asyncio.Task[None]) -> None:
        self._work.pop(key, None)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, LedgerLostError | redis.RedisError):
            self._failures.put_nowait(error)
        elif error is not None:
            log.error("task %s failed, and is tried again when its lease is over", key[1], exc_info=error)

    async def _first_failure(self) -> None:
        raise await self._failures.get()

    async def _handle(self, queue: Queue, lease: Lease) -> None:
        """One lease to its end, whatever that is; the lease never outlives this call."""
        ledger = self._ledgers[queue]
        try:
            task = Task.decode(lease.payload)
            if lease.index is None or (task.run_id, task.index) != (self._keys.run, lease.index):
                raise MessageError(f"task {task.index} of run {task.run_id!r} at index {lease.index}")
        except MessageError as error:
            await self._bury(ledger, lease, "corrupt", str(error))
            return
        if lease.attempt > self.config.generator.max_attempts:
            await self._bury(ledger, lease, "attempts", f"{lease.attempt - 1} attempts failed or were abandoned")
            return
        try:
            if not await self._has_weights(task):
                await ledger.release([lease.id])
                return
            if task.exact and self.sync.version is not None and self.sync.version.step != task.min_version:
                await self._not_by_these_weights(ledger, lease, task)
                return
            group = await produce(
                task,
                self.engine,
                self._grader,
                self._decoder,
                self.id,
                lease.attempt,
                self.metrics,
                self._count,
            )
        except EngineGone as error:
            self._unreachable.set()
            await self.sync.forget()  # lease nothing more until a new engine has weights
            await self._failed(ledger, lease, str(error), its_fault=False)
            return
        except (EngineError, TimeoutError, GradeRefused, ValueError) as error:
            why = str(error) or "generator.group_deadline_s is over"
            await self._failed(ledger, lease, why, its_fault=True)
            return
        if task.exact and not {step for _, step in versions_of(group)} <= {task.min_version}:
            await self._not_by_these_weights(ledger, lease, task)
            return
        deadline_s = self.config.learner.sync_deadline_s
        with self.metrics.waits.on("verdict on the weights", "weight check", deadline_s, f"group {task.index}"):
            verified = await self.sync.may_commit(versions_of(group), deadline_s)
        if not verified:
            self.metrics.groups.labels("unverified").inc()
            await ledger.release([lease.id])
            return
        committed = await ledger.commit(lease, group.encode())
        self.metrics.groups.labels("committed" if committed else "twin").inc()

    async def _has_weights(self, task: Task) -> bool:
        """Wait for the version that the task asks for. A generator whose syncs fail gives it to others in time."""
        deadline_s, wanted = self.config.generator.group_deadline_s, f"step {task.min_version} for group {task.index}"
        with self.metrics.waits.on("weights", "learner", deadline_s, wanted):
            reached = await self.sync.wait_for_step(task.min_version, deadline_s)
        if not reached:
            log.warning("no weights of %s within generator.group_deadline_s = %g s; given back", wanted, deadline_s)
            self.metrics.groups.labels("no_weights").inc()
        return reached

    async def _not_by_these_weights(self, ledger: GeneratorLedger, lease: Lease, task: Task) -> None:
        """A question to others, who are held on its version; or, where nobody is, one of a learner that has ended."""
        await self._hold.look()
        if self._hold.step != task.min_version:
            await self._bury(ledger, lease, "abandoned", f"nobody is held on step {task.min_version}")
            return
        await asyncio.sleep(_LOOK_AGAIN_S)  # or it would come straight back
        await ledger.release([lease.id])

    async def _failed(self, ledger: GeneratorLedger, lease: Lease, why: str, its_fault: bool) -> None:
        log.warning("task %s, attempt %d: %s", lease.id, lease.attempt, why)
        self.metrics.groups.labels("failed" if its_fault else "interrupted").inc()
        if its_fault and lease.attempt >= self.config.generator.max_attempts:
            await self._bury(ledger, lease, "attempts", why)
        else:
            await ledger.release([lease.id], count_try=its_fault)

    async def _bury(self, ledger: GeneratorLedger, lease: Lease, reason: str, detail: str) -> None:
        log.warning("task %s goes to the dead letters (%s): %s", lease.id, reason, detail)
        self.metrics.groups.labels("buried").inc()
        await ledger.bury(lease, reason, detail)

    def _count(self, tokens: int) -> None:
        self._tokens += tokens
        self.metrics.tokens.inc(tokens)

    async def _renew(self) -> None:
        interval = self.config.generator.lease_s / 3
        while True:
            await asyncio.sleep(interval)
            for queue, ledger in self._ledgers.items():
                mine = [id for held, id in self._work if held == queue]
                held = await ledger.renew(mine)
                for id in set(mine) - held:
                    task = self._work.get((queue, id))
                    if task is not None and not task.done():
                        log.warning("lease of task %s is lost to another generator; dropping our copy", id)
                        self.metrics.groups.labels("lease_lost").inc()
                        task.cancel()

    async def _give_back_all(self) -> None:
        work = dict(self._work)
        await _end(set(work.values()))
        for queue, ledger in self._ledgers.items():
            await ledger.release([id for held, id in work if held == queue])

    async def _finish_work(self) -> None:
        if self._work and self._engine_up.is_set():
            await asyncio.wait(self._work.values(), timeout=self.config.generator.group_deadline_s)
        await self._give_back_all()

    # -- membership ---------------------------------------------------------------------------------

    async def _heartbeat(self) -> None:
        last = time.monotonic()
        fenced = False  # the learner's start writes the fence; once there, it is there for good
        while True:
            now = time.monotonic()
            busy_s = (now - last) if self._work else 0.0
            self._busy_seconds += busy_s
            last = now
            self.metrics.heartbeat(self.state, len(self._work), busy_s)
            clock = await server_time_async(self.client)
            member = Member(
                generator_id=self.id,
                state=self.state,  # type: ignore[arg-type]
                engine=self.engine.starts if self._engine_up.is_set() else 0,
                world_size=self.engine.world_size,
                version=str(self.sync.version) if self.sync.version else None,
                in_flight=len(self._work),
                generated_tokens=self._tokens,
                busy_seconds=self._busy_seconds,
                uptime_seconds=now - self._started,
                last_seen=clock,
            )
            await self.client.hset(self._keys.members, self.id, member.encode())  # type: ignore[misc]
            self._at_work = await self._count_at_work(clock)
            await self._hold.look()
            waits = self.metrics.waits.report(self.id, clock)
            await self.client.hset(self._keys.waits, self.id, waits.encode())  # type: ignore[misc]
            fenced, before = bool(await self.client.exists(self._keys.fence)), fenced
            if before and not fenced:
                raise lost(self._keys.run, f"no {self._keys.fence}")
            await asyncio.sleep(_HEARTBEAT_S)

    async def _count_at_work(self, now: float) -> int:
        """Generators that lease, this one at least: those that hang, are quarantined or have no weights yet do not."""
        count = 1
        members: dict[bytes, bytes] = await self.client.hgetall(self._keys.members)  # type: ignore
        for id, data in members.items():
            with suppress(MessageError):  # the learner reports it, and clears it away
                member = Member.decode(data)
                count += id != self.id.encode() and member.state == "ready" and member.alive(now)
        return count


async def _end(tasks: set[asyncio.Task[None]] | set[asyncio.Task[Any]]) -> None:
    """Cancel until all have ended: a cancellation that meets a reply of Redis at the same moment is lost."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.5)
