"""What a worker sees of its partitions from outside: how far behind each is, for how long, and whether one is stuck."""

import time
from collections.abc import Collection, Mapping
from typing import NamedTuple

import structlog

from shared.bus.port import Bounds, Bus, Partition
from shared.clock import Clock
from shared.errors import HeadsupError
from shared.telemetry import Metrics
from shared.worker.partition import PartitionLoop

log = structlog.get_logger(__name__)

ASK_SECONDS = 10.0
"""The bus is asked for one record's age at most this often a partition."""
STALLED_SECONDS = 2.0
"""Without news from the consumer for this long the first record's age is asked for; before, the last one's will do."""


class _Asked(NamedTuple):
    at: int
    head: int | None
    when: float


class Watch:
    """The lag of one worker's partitions, against the ends that the logs were last known to have: an answer that stays
    away must not silence the alarm about it."""

    def __init__(self, bus: Bus, clock: Clock, metrics: Metrics, silent_seconds: float) -> None:
        self._admin = bus.admin()
        self._clock = clock
        self._metrics = metrics
        self._silent_seconds = silent_seconds
        self._ends: dict[Partition, int] = {}
        self._asked: dict[Partition, _Asked] = {}

    def ends(self, bounds: Mapping[Partition, Bounds]) -> None:
        """The logs end here, as the bus said just now."""
        self._ends.update((partition, found.end) for partition, found in bounds.items())

    def forget(self, partition: Partition) -> None:
        """It is another's now."""
        self._ends.pop(partition, None)
        self._asked.pop(partition, None)
        self._metrics.forget(*partition)

    async def report(self, loops: Collection[PartitionLoop]) -> None:
        """Set the figures of these partitions."""
        for loop in loops:
            labels = (loop.partition.topic, str(loop.partition.partition))
            end, at = self._ends.get(loop.partition), loop.applied_to
            if end is None:
                continue
            behind = 0 if at is None else max(end - at, 0)
            head = await self._head(loop, at) if behind and at is not None else None
            if loop.partition not in self._ends:
                continue  # forgotten while the bus was asked
            age = 0.0 if head is None else self._clock.now().timestamp() - head / 1000
            if loop.at is not None:
                self._metrics.offset_applied.labels(*labels).set(loop.at)
            self._metrics.lag_records.labels(*labels).set(behind)
            self._metrics.lag_seconds.labels(*labels).set(max(age, 0.0))

    def stuck(self, loops: Collection[PartitionLoop]) -> bool:
        """Whether a consumer has been silent for too long about records that are there. Waiting for the database is no
        silence, nor is standing still for a person."""
        for loop in loops:
            end = self._ends.get(loop.partition)
            if end is not None and loop.silence(end) > self._silent_seconds:
                log.error("consumer_silent", partition=str(loop.partition), at=loop.at, end=end)
                return True
        return False

    async def close(self) -> None:
        await self._admin.close()

    async def _head(self, loop: PartitionLoop, at: int) -> int | None:
        """When the first record not applied was written, in milliseconds: exactly where a batch is in hand or nothing
        moves; else from the last one applied, which is a batch older at most. None where nobody can say."""
        if loop.head is not None:
            return loop.head
        moving = not loop.halted and loop.waiting is not None and time.monotonic() - loop.waiting < STALLED_SECONDS
        if moving and loop.last is not None:
            return loop.last
        asked = self._asked.get(loop.partition)
        unsaid = asked is None or asked.at != at or asked.head is None
        if asked is None or (unsaid and time.monotonic() - asked.when > ASK_SECONDS):
            head = None
            try:
                written = await self._admin.written_at(loop.partition, at)
                head = None if written is None else int(written.timestamp() * 1000)
            except HeadsupError as error:
                log.info("age_unknown", partition=str(loop.partition), reason=error.reason)
            asked = self._asked[loop.partition] = _Asked(at, head, time.monotonic())
        return asked.head
