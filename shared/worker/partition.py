"""The life of one partition in one member: begin, fetch, apply, recover, halt, end."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Sequence
from datetime import datetime

import structlog

from shared.bus.port import Bounds, Consumer, Partition, Record
from shared.errors import Halt, LostOwnership, Retry
from shared.store import offsets
from shared.store.offsets import Position
from shared.worker.batch import BatchRunner, Shell, why

log = structlog.get_logger(__name__)

FIRST_BACKOFF_SECONDS = 0.1
LONGEST_BACKOFF_SECONDS = 5.0
HALT_POLL_SECONDS = 1.0
RECLAIM_SECONDS = 2.0


class PartitionLoop:
    """Reads one partition and applies it, until told to end or dropped.

    `at` is the next offset to apply as this member believes; the database's row decides. `head` is the write time of
    the first record in hand and not applied (milliseconds), None where none is in hand; `last` that of the last record
    applied. `waiting` is the monotonic second since which nothing but the consumer was waited for.
    """

    def __init__(self, shell: Shell, consumer: Consumer, partition: Partition, position: Position) -> None:
        self._shell = shell
        self._consumer = consumer
        self.partition = partition
        self._runner = BatchRunner(shell, partition, position)
        self.at: int | None = position.next
        self.head: int | None = None
        self.last: int | None = None
        self.waiting: float | None = None
        self.halted = position.halted
        self.observed: tuple[datetime, int] | None = None
        self._gap: int | None = None
        self._ending = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"partition {partition}")

    @property
    def applied_to(self) -> int | None:
        """Everything below this offset is in the database. Beyond `at` where the log goes on with what is no record (a
        transaction's marker): else such an end would never count as reached."""
        if self.at is None or self.head is not None:
            return self.at
        return max(self.at, self._consumer.position(self.partition) or 0)

    @property
    def epoch(self) -> int:
        return self._runner.position.epoch

    @property
    def finished(self) -> bool:
        return self._task.done()

    def silence(self, end: int) -> float:
        """For how many seconds there have been records, up to `end`, and the consumer brought none of them."""
        if self.halted or self.waiting is None:
            return 0.0
        if (self.applied_to or 0) >= end:
            self.waiting = time.monotonic()
        return time.monotonic() - self.waiting

    async def end(self, within: float) -> None:
        """Finish the batch in hand and end; after `within` seconds drop it: its transaction fails by its epoch."""
        self._ending.set()
        done, _ = await asyncio.wait([self._task], timeout=within)
        if not done:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=1.0)

    async def _run(self) -> None:
        backoff = FIRST_BACKOFF_SECONDS
        do_next = self._begin
        while not self._ending.is_set():
            try:
                await do_next()
                do_next = self._await_resume if self.halted else self._step
                backoff = FIRST_BACKOFF_SECONDS
            except LostOwnership as error:
                log.warning("ownership_lost", partition=str(self.partition), reason=error.reason)
                self._shell.metrics.lost_ownership.inc()
                do_next = self._reclaim
            except Halt as error:
                self.halted = error.reason
                log.error("partition_halted", partition=str(self.partition), reason=error.reason)
                do_next = self._write_halt
            except Exception as error:
                log.log(
                    logging.WARNING if isinstance(error, Retry) else logging.ERROR,
                    "partition_retries",
                    partition=str(self.partition),
                    reason=why(error),
                    exc_info=_defect(error),
                )
                self._shell.metrics.retries.inc()
                await self._pause(backoff * random.uniform(0.5, 1.0))
                backoff = min(backoff * 2, LONGEST_BACKOFF_SECONDS)
                if do_next == self._step:
                    # Whether the commit happened is not known: ask the database.
                    do_next = self._begin

    async def _begin(self) -> None:
        """Take the position from the database and check it against the log. Data lost below it, or a log shorter than
        it (re-created), halts: going on by itself would skip records that somebody counts on."""
        waiting, self.waiting = self.waiting, None  # for the database meanwhile, and longer where it does not answer
        async with self._shell.database.transaction() as connection:
            stored = (await offsets.positions(connection, self._shell.settings.schema)).get(self.partition)
        if stored is None or stored.epoch != self.epoch:
            raise LostOwnership(f"{self.partition} has another owner")
        self.waiting = time.monotonic() if waiting is None else waiting
        bounds = (await self._consumer.bounds([self.partition]))[self.partition]
        if stored.next is not None and stored.halted is None:
            self._check(stored.next, bounds)
        self._runner.position = stored
        self.halted = stored.halted
        self._gauge_halted(1 if stored.halted else 0)
        self.at = bounds.first if stored.next is None else stored.next
        self.head = self._gap = None
        self._consumer.seek(self.partition, self.at)

    def _check(self, wanted: int, bounds: Bounds) -> None:
        if wanted < bounds.first:
            raise Halt(
                f"data were lost: the log of {self.partition} begins at {bounds.first}, and {wanted} was not applied."
                " `headsup resume --from-first` goes on without them"
            )
        if wanted > bounds.end:
            raise Halt(
                f"the log of {self.partition} ends at {bounds.end}, before the position {wanted}: it was re-created or"
                " cut. `headsup resume --from-first` reads it from its beginning"
            )

    async def _step(self) -> None:
        settings = self._shell.settings
        started = time.perf_counter()
        if self.waiting is None:
            self.waiting = time.monotonic()
        records = await self._consumer.fetch(self.partition, settings.batch_records, settings.fetch_seconds)
        if not records:
            return
        self._shell.metrics.batch_seconds.labels("poll").observe(time.perf_counter() - started)
        usable = self._from_position(records)
        if not usable:
            return
        self.head = usable[0].timestamp
        self.waiting = None
        # Shielded: a cancelled call inside the database driver can leave its connection in the middle of a statement.
        await asyncio.shield(asyncio.ensure_future(self._runner.run(usable)))
        self.at = self._runner.position.next
        self.head = None
        self.last = usable[-1].timestamp

    def _from_position(self, records: Sequence[Record]) -> Sequence[Record]:
        """Only what begins at the position. A gap above it is looked at twice: the same answer twice is a real gap
        (transaction markers, compaction), anything else was a fetch from the wrong place."""
        first, at = records[0].offset, self.at
        if at is None or first in (at, self._gap):
            self._gap = None
            return records
        self._consumer.seek(self.partition, at)
        self._gap = first if first > at else None
        return ()

    async def _write_halt(self) -> None:
        self._gauge_halted(1)
        async with self._shell.database.transaction() as connection:
            await offsets.halt(
                connection, self._shell.settings.schema, self.partition, self._runner.position, self.halted or ""
            )

    async def _await_resume(self) -> None:
        await self._pause(HALT_POLL_SECONDS)
        async with self._shell.database.transaction() as connection:
            stored = (await offsets.positions(connection, self._shell.settings.schema))[self.partition]
        if stored.halted is None:
            log.info("partition_resumed", partition=str(self.partition))
            await self._claim()

    async def _reclaim(self) -> None:
        """Somebody else moved the partition. Where the bus still says that it is ours after a while (a `resume` raises
        the epoch; a zombie that woke up learns of its loss within that time), own it again."""
        await self._pause(RECLAIM_SECONDS)
        if not self._ending.is_set() and self.partition in self._consumer.assignment:
            await self._claim()
        else:
            self._ending.set()

    async def _claim(self) -> None:
        async with self._shell.database.transaction() as connection:
            claimed = await offsets.claim(connection, self._shell.settings.schema, [self.partition])
        self._runner = BatchRunner(self._shell, self.partition, claimed[self.partition])
        await self._begin()

    def _gauge_halted(self, value: int) -> None:
        self._shell.metrics.halted.labels(self.partition.topic, str(self.partition.partition)).set(value)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), seconds)


def _defect(error: Exception) -> Exception | None:
    return None if isinstance(error, Retry) else error
