"""Virtual time for embedded mode: the clock that `--clock virtual[:START][@SPEED]` asks for, and what drives it.

Without a speed time stands still, and what is due now is still done at once. With one it runs that many times as fast
as the clock on the wall. `advance` tells a story of days in moments: it drains all logs, outboxes and sends, jumps to
the earliest due time, lets it fire, and repeats until the target.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from shared.bus.port import Bus, Partition
from shared.clock import VirtualClock
from shared.errors import AskPerson, Retry
from shared.events.base import parse_time
from shared.store import offsets
from shared.store.database import Database
from shared.worker import Worker

TICK_SECONDS = 0.1
SETTLE_PAUSE_SECONDS = 0.01
STUCK_SECONDS = 30.0
FASTEST = 100_000.0


class Setting(NamedTuple):
    """How a virtual clock is to run: from `start` (None: the real now), `speed` times as fast as the wall's (0: it
    stands still)."""

    start: datetime | None
    speed: float


def parse_clock(text: str) -> Setting | None:
    """`system` (None) or `virtual[:START][@SPEED]`. Raises ValueError with what is wrong."""
    if text == "system":
        return None
    head, at, speed_text = text.partition("@")
    kind, colon, start_text = head.partition(":")
    if kind != "virtual":
        raise ValueError("write system, or virtual[:START][@SPEED] such as virtual:2026-11-11T00:00:00+08:00@60")
    start = None
    if colon:
        try:
            start = parse_time(start_text)
        except ValueError:
            raise ValueError("the clock's START is an RFC 3339 time with offset: 2026-11-11T00:00:00+08:00") from None
    if not at:
        return Setting(start, 0.0)
    try:
        speed = float(speed_text)
    except ValueError:
        speed = -1.0
    if not 0 < speed <= FASTEST:
        raise ValueError(f"the clock's SPEED is a number above 0 and up to {FASTEST:,.0f}, such as @60")
    return Setting(start, speed)


@dataclass(frozen=True, slots=True)
class _Seen:
    """One look at all workers: their logs' ends, and where they stand."""

    ends: dict[Partition, int]
    at: dict[tuple[str, Partition], int]
    halted: str

    @property
    def behind(self) -> bool:
        return any(offset < self.ends[partition] for (_, partition), offset in self.at.items())


class Driver:
    """Moves one process's virtual clock. The clock is moved by nobody else."""

    def __init__(
        self, clock: VirtualClock, workers: Sequence[Worker], bus: Bus, database: Database, speed: float = 0.0
    ) -> None:
        self.clock = clock
        self.speed = speed
        self._workers = list(workers)
        self._admin = bus.admin()
        self._database = database
        self._moving = asyncio.Lock()

    async def run(self) -> None:
        """Until cancelled: let what is due now be done, and let time pass where it has a speed."""
        last = time.monotonic()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            if self.speed and not self._moving.locked():
                self.clock.advance(timedelta(seconds=(now - last) * self.speed))
            last = now
            self._nudge()

    async def advance(self, by: timedelta) -> datetime:
        """Move on by `by`, stopping at each due time on the way with all its consequences. Returns the new now.

        Raises `AskPerson` where a partition is halted and `Retry` where nothing moves any more; time then stands at
        the last instant that was reached."""
        async with self._moving:
            target = self.clock.now() + by
            await self._settle()
            while (due := await self._next_due()) is not None and due <= target:
                if due > self.clock.now():
                    self.clock.advance_to(due)
                await self._settle()
            self.clock.advance_to(target)
            await self._settle()
            return self.clock.now()

    async def _next_due(self) -> datetime | None:
        due = [await worker.next_due() for worker in self._workers]
        return min((d for d in due if d is not None), default=None)

    async def _settle(self) -> None:
        """Until all input is applied, nothing is due and nothing waits to be sent, in all services at once.

        A worker's own word is not enough: while time stands still a record may arrive after its watermark reached now.
        Two equal looks at the logs with every worker settled in between leave no such gap."""
        stuck_at, last = time.monotonic() + STUCK_SECONDS, None
        while True:
            before = await self._look()
            if before.halted:
                raise AskPerson(
                    f"time cannot go on: {before.halted} is halted; see `headsup lag`, then `headsup resume`"
                )
            if not before.behind and await self._all_settled() and await self._look() == before:
                return
            if before != last:
                stuck_at, last = time.monotonic() + STUCK_SECONDS, before
            elif time.monotonic() > stuck_at:
                raise Retry(f"nothing has moved for {STUCK_SECONDS:.0f} s, and not all is done: see `headsup lag`")
            self._nudge()
            await asyncio.sleep(SETTLE_PAUSE_SECONDS)

    async def _all_settled(self) -> bool:
        for worker in self._workers:
            if not await worker.settled():
                return False
        return True

    async def _look(self) -> _Seen:
        topics = {topic for worker in self._workers for topic in worker.settings.topics}
        bounds = await self._admin.bounds(await self._admin.partitions(topics))
        at: dict[tuple[str, Partition], int] = {}
        halted = ""
        async with self._database.transaction() as connection:
            for worker in self._workers:
                schema = worker.settings.schema
                stored = await offsets.positions(connection, schema)
                for partition in (p for p in bounds if p.topic in worker.settings.topics):
                    position = stored.get(partition)
                    at[schema, partition] = bounds[partition].first if position is None else position.next or 0
                    if position is not None and position.halted:
                        halted = str(partition)
        return _Seen({p: b.end for p, b in bounds.items()}, at, halted)

    def _nudge(self) -> None:
        for worker in self._workers:
            worker.nudge()
