"""The worker of one service: membership, partitions, watermark, timers, outbox, and an orderly end.

Guarantees, for any crash at any point: every record is applied at least once and its effects exactly once (state,
outbox, timers and offset are one transaction); a timer never fires before the input up to its due time is applied; what
is emitted is sent at least once, with a stable id. A stop finishes the batches in hand and commits within 10 s.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime

import structlog

from shared.bus.port import Bus, Consumer, Partition
from shared.clock import Clock
from shared.errors import HeadsupError, Retry
from shared.seal import Sealer
from shared.store import offsets, outbox, timers
from shared.store.database import Database
from shared.store.outbox import Relay
from shared.telemetry import Metrics
from shared.worker.batch import Shell
from shared.worker.handler import Background, Handler, WorkerSettings
from shared.worker.partition import PartitionLoop
from shared.worker.sweep import Sweeper
from shared.worker.watch import Watch

log = structlog.get_logger(__name__)

START_RETRY_SECONDS = 1.0
BACKGROUND_SECONDS = 5.0
"""How long a stop waits for calls under way; what is cut off is settled as unknown by who comes next."""
REVOKE_SECONDS = 4.0
"""Below the session time-out: a slower batch is dropped and fails by its epoch."""


class Worker:
    """Runs one service's handler over its topics. `run` ends after `stop`; everything else it waits out or restarts."""

    def __init__(
        self,
        settings: WorkerSettings,
        handler: Handler,
        *,
        bus: Bus,
        database: Database,
        sealer: Sealer,
        clock: Clock,
        metrics: Metrics,
        background: Sequence[Background] = (),
    ) -> None:
        self.settings = settings
        self.metrics = metrics.of(settings.schema)
        self._bus = bus
        self._database = database
        self._clock = clock
        self._producer = bus.producer()
        self._relay = Relay(database, settings.schema, self._producer)
        self._background = tuple(background)
        self._shell = Shell(settings, handler, database, sealer, clock, self._relay, self.metrics, self._background)
        self._sweeper = Sweeper(self._shell)
        self._watch = Watch(bus, clock, self.metrics, settings.silent_seconds)
        self._loops: dict[Partition, PartitionLoop] = {}
        self._consumer: Consumer | None = None
        self._stopping = asyncio.Event()
        self._silent = asyncio.Event()
        self._nudged = asyncio.Event()
        self._committed: dict[Partition, int] = {}
        self._last_probe = float("-inf")

    def stop(self) -> None:
        """Ask for an orderly end; safe from a signal handler and safe to call twice."""
        self._stopping.set()
        self._silent.set()
        self._nudged.set()

    def nudge(self) -> None:
        """Observe the logs' ends and sweep now rather than at the next tick (virtual time, tests)."""
        self._nudged.set()
        for work in self._background:
            work.nudge()

    @property
    def ready(self) -> str:
        """Empty when this member is at work, else why not: what `/readyz` shows."""
        if self._stopping.is_set():
            return "stopping"
        if self._consumer is None:
            return "not yet in the group"
        halted = [str(p) for p, loop in self._loops.items() if loop.halted]
        if halted:
            return f"halted: {', '.join(halted)}; see `headsup lag`, then `headsup resume`"
        if time.monotonic() - self._last_probe > self.settings.silent_seconds:
            return "the bus or the database has not answered for a while"
        return ""

    async def run(self) -> None:
        """Until `stop`. A bus or a database that is away is waited for; nothing is lost meanwhile."""
        await self._patiently(self._producer.start)
        relay = asyncio.create_task(self._relay.run(), name="relay")
        probe = asyncio.create_task(self._probe_loop(), name="probe")
        aside = [asyncio.create_task(work.run(), name="background") for work in self._background]
        try:
            while not self._stopping.is_set():
                await self._one_membership()
        finally:
            probe.cancel()
            for work in self._background:
                work.stop()
            if aside:
                await asyncio.wait(aside, timeout=BACKGROUND_SECONDS)
            self._relay.stop()
            await asyncio.wait([relay, probe], timeout=2.0)
            for task in (relay, *aside):
                task.cancel()
            await self._producer.stop()
            await self._watch.close()

    async def settled(self) -> bool:
        """True when nothing is left to do at this instant: logs applied to their ends, no timer due, outbox empty, the
        background at rest."""
        now, loops = self._clock.now(), dict(self._loops)
        with contextlib.suppress(Retry):
            if self._consumer is None or not loops:
                return False
            # The watermark alone would not do: on a clock that stands still it is reached before what comes next.
            bounds = await self._consumer.bounds(list(loops))
            reached = {partition: loop.applied_to for partition, loop in loops.items()}
            if any(at is None or at < bounds[partition].end for partition, at in reached.items()):
                return False
            async with self._database.transaction() as connection:
                mark = await offsets.watermark(connection, self.settings.schema, self.settings.topics)
                first = await timers.earliest(connection, self.settings.schema)
                waiting, _ = await outbox.depth(connection, self.settings.schema)
            if not (mark is not None and mark >= now and (first is None or first > now) and waiting == 0):
                return False
            return all([await work.settled() for work in self._background])
        return False

    async def next_due(self) -> datetime | None:
        """When this service wants to look at something next."""
        async with self._database.transaction() as connection:
            return await timers.earliest(connection, self.settings.schema)

    # ---- membership

    async def _one_membership(self) -> None:
        self._silent.clear()
        consumer = self._bus.consumer(self.settings.group, self.settings.topics, self)
        try:
            await self._expect_partitions()
            self._consumer = consumer
            await consumer.start()
            await self._silent.wait()
        except HeadsupError as error:
            log.warning("cannot_join", service=self.settings.schema, reason=error.reason)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), START_RETRY_SECONDS)
        finally:
            with contextlib.suppress(Retry):
                await consumer.stop()
            await self.revoked(list(self._loops))
            self._consumer = None

    async def _expect_partitions(self) -> None:
        admin = self._bus.admin()
        try:
            partitions = await admin.partitions(self.settings.topics)
        finally:
            await admin.close()
        async with self._database.transaction() as connection:
            await offsets.expect(connection, self.settings.schema, partitions)

    async def assigned(self, partitions: Collection[Partition]) -> Mapping[Partition, int | None]:
        """(Listener) Own these in the database before reading them. Raises `Retry` while the database is away."""
        consumer = self._consumer
        if consumer is None:
            raise Retry("this member has left the group")
        async with self._database.transaction() as connection:
            claimed = await offsets.claim(connection, self.settings.schema, partitions)
        for partition, position in claimed.items():
            self._loops[partition] = PartitionLoop(self._shell, consumer, partition, position)
        return {p: position.next for p, position in claimed.items()}

    async def revoked(self, partitions: Collection[Partition]) -> None:
        """(Listener) Finish the batches in hand, commit for the lag tools, let go."""
        loops = [self._loops.pop(p) for p in partitions if p in self._loops]
        seconds = self.settings.drain_seconds if self._stopping.is_set() else REVOKE_SECONDS
        await asyncio.gather(*(loop.end(seconds) for loop in loops))
        await self._commit(loops)
        for loop in loops:
            self._committed.pop(loop.partition, None)
            self._watch.forget(loop.partition)

    async def _commit(self, loops: Collection[PartitionLoop]) -> None:
        """The group's commit: best effort, for lag tools; the database's offsets are the ones that count."""
        at = {loop.partition: loop.at for loop in loops if loop.at is not None}
        positions = {p: offset for p, offset in at.items() if self._committed.get(p) != offset}
        if not positions or self._consumer is None:
            return
        try:
            await self._consumer.commit(positions)
        except Retry as error:
            log.info("group_commit_failed", service=self.settings.schema, reason=error.reason)
            return
        self._committed.update(positions)
        for partition, offset in positions.items():
            self.metrics.offset_committed.labels(partition.topic, str(partition.partition)).set(offset)

    # ---- the tick: ends observed, watermark, timers, figures, watchdog

    async def _probe_loop(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._nudged.wait(), self.settings.probe_seconds)
            self._nudged.clear()
            # Each by itself: while the bus is away the figures go on telling, the outbox's age above all.
            steps = (self._observe_ends, self._sweeper.sweep, self._commit_all, self._report)
            if all([await self._went_well(step) for step in steps]):
                self._last_probe = time.monotonic()
            if not self._silent.is_set() and self._watch.stuck(self._loops.values()):
                self.metrics.rejoins.inc()
                self._silent.set()

    async def _went_well(self, step: Callable[[], Awaitable[None]]) -> bool:
        try:
            await step()
        except Retry as error:
            log.warning("probe_waits", service=self.settings.schema, reason=error.reason)
        except Exception:
            log.exception("probe_failed", service=self.settings.schema)
        else:
            return True
        self.metrics.retries.inc()
        return False

    async def _commit_all(self) -> None:
        await self._commit(list(self._loops.values()))

    async def _observe_ends(self) -> None:
        consumer, loops = self._consumer, dict(self._loops)
        if consumer is None or not loops:
            return
        observed_at = self._clock.now()
        before = {partition: loop.applied_to or 0 for partition, loop in loops.items()}
        bounds = await consumer.bounds(list(loops))
        self._watch.ends(bounds)
        done: dict[datetime, dict[Partition, int]] = {}
        for partition, loop in loops.items():
            end = bounds[partition].end
            if loop.halted or before[partition] > end:
                continue  # standing still, or the log was created anew: nothing is known to be applied to its end
            # The oldest observation not yet reached stays: under steady load the end is always a little further on.
            at = loop.applied_to
            if loop.observed is None or (at is not None and at >= loop.observed[1]):
                reached = loop.observed
                loop.observed = (observed_at, end)
                if at is not None and at >= end:
                    reached = loop.observed
                if reached is not None:
                    done.setdefault(reached[0], {})[partition] = loop.epoch
        if done:
            async with self._database.transaction() as connection:
                for instant, epochs in done.items():
                    await offsets.applied(connection, self.settings.schema, epochs, instant)

    async def _report(self) -> None:
        await self._watch.report(list(self._loops.values()))

    async def _patiently(self, start: Callable[[], Awaitable[None]]) -> None:
        while not self._stopping.is_set():
            try:
                await start()
                return
            except Retry as error:
                log.warning("bus_waits", service=self.settings.schema, reason=error.reason)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), START_RETRY_SECONDS)
