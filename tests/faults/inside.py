"""A worker in the test's own process, with its seams open: for faults that the test itself brings about."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import text

from shared.bus import connect
from shared.bus.port import Bus, Message, Partition
from shared.clock import VirtualClock
from shared.errors import Retry
from shared.store import offsets
from shared.store.database import Database
from shared.store.offsets import Position
from shared.worker import Worker
from tests.faults.invariants import applied_to_the_end, as_the_oracle_says, audit, offsets_only_rose
from tests.faults.lives import LATER, READ_AT, Story
from tests.faults.member import Spec, Wired, wire
from tests.support.running import eventually, prepare_topics


@dataclass
class Inside:
    """`worker` runs; `bus` and `database` are the test's own."""

    wired: Wired
    bus: Bus
    database: Database
    topics: tuple[str, ...]

    @property
    def worker(self) -> Worker:
        return self.wired.worker

    @property
    def clock(self) -> VirtualClock:
        return self.wired.clock

    async def publish(self, messages: Sequence[Message]) -> None:
        producer = self.bus.producer()
        await producer.start()
        await producer.send(messages)
        await producer.stop()

    async def settled(self) -> None:
        async def done() -> bool:
            self.worker.nudge()
            return await self.worker.settled()

        await eventually(done, f"not settled: {self.worker.ready}")

    async def applied(self, at_least: int) -> None:
        """Until so many records are in the database."""

        async def enough() -> bool:
            return sum(p.next or 0 for p in (await self.positions()).values()) >= at_least

        await eventually(enough, "too little was applied")

    async def positions(self) -> dict[Partition, Position]:
        """The stored ones; none while the database is away."""
        with suppress(Retry):
            async with self.database.transaction() as connection:
                return dict(await offsets.positions(connection, "detector"))
        return {}

    async def rows(self, sql: str) -> list[Any]:
        async with self.database.transaction() as connection:
            return list(await connection.execute(text(sql)))

    async def halted(self) -> tuple[Partition, Position]:
        """The first partition that stands still."""

        async def one() -> list[tuple[Partition, Position]]:
            return [(p, position) for p, position in (await self.positions()).items() if position.halted]

        found: list[tuple[Partition, Position]] = await eventually(one, "nothing halted")
        return found[0]

    async def resume(self, partition: Partition, **how: int) -> None:
        async with self.database.transaction() as connection:
            assert await offsets.resume(connection, "detector", partition, **how)

    def gauge(self, name: str, *labels: str) -> float | None:
        """What `/metrics` shows for this service, None where it shows nothing."""
        page = self.wired.metrics.render().decode()
        prefix = f"headsup_{name}{{"
        for line in page.splitlines():
            if line.startswith(prefix) and all(f'"{label}"' in line for label in labels):
                return float(line.rsplit(" ", 1)[1])
        return None

    async def as_it_should_be(self, story: Story, *instants: datetime) -> dict[str, Any]:
        """Later, and settled: invariants A and C."""
        await self.database.engine.dispose()  # the test's own connections may have broken too
        emitted = await as_the_oracle_says(self.bus, self.database, story.events, *(instants or (READ_AT, LATER)))
        await offsets_only_rose(self.database)
        await applied_to_the_end(self.bus, self.database, self.topics)
        return dict(emitted)

    async def later(self) -> None:
        await self.settled()
        self.clock.advance_to(LATER)
        await self.settled()


@asynccontextmanager
async def inside(
    url: str, database_url: str, unique: str, partitions: int = 2, own_database_url: str = "", **changes: Any
) -> AsyncIterator[Inside]:
    """A running worker over `orders-…` and `tracking-…`. `own_database_url` is how the test reaches the database where
    the worker takes a way that is watched."""
    topics = (f"orders-{unique}", f"tracking-{unique}")
    database = Database(own_database_url or database_url, pool_size=4)
    bus = connect(url, database.engine)
    await prepare_topics(bus, *topics, partitions=partitions)
    await audit(database)
    spec = replace(Spec(url, database_url, topics, READ_AT.isoformat(), session_ms=6000), **changes)
    wired = wire(spec)
    running = asyncio.create_task(wired.worker.run())
    try:
        yield Inside(wired, bus, database, topics)
        if running.done():
            await running
    finally:
        wired.worker.stop()
        await running
        await wired.database.close()
        await bus.close()
        await database.close()
