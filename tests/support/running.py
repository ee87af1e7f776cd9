"""A detector at work in the test's own process, and what it has done, read from where it did it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from services.detector.handlers import Detector
from services.detector.listing import PostgresFeeds, PostgresListing
from services.detector.postgres import PostgresOrders
from services.detector.rules.shipping_delay import Policy
from shared.bus.port import Bus, Message, Partition, Record, TopicSpec
from shared.clock import Clock, SystemClock
from shared.events.envelope import Event, decode, to_message
from shared.events.incidents import Incident
from shared.events.topics import DEAD_LETTERS, INCIDENTS
from shared.seal import Sealer
from shared.store.database import Database
from shared.telemetry import Metrics
from shared.worker import Handler, Worker, WorkerSettings

SEALER = Sealer(b"0123456789abcdef0123456789abcdef")
WAIT_SECONDS = 60.0


async def eventually(what: Callable[[], Awaitable[Any]], why: str) -> Any:
    """The first true answer; fails with `why` when none comes (a bound against hanging, not a measurement)."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            found = await what()
            if found:
                return found
            await asyncio.sleep(0.05)
    raise AssertionError(why)


class _FromTheBeginning:
    async def assigned(self, partitions: Collection[Partition]) -> Mapping[Partition, int | None]:
        return dict.fromkeys(partitions, 0)

    async def revoked(self, partitions: Collection[Partition]) -> None:
        return None


async def read_topic(bus: Bus, topic: str) -> list[Record]:
    """Everything on a topic now, by a group of its own; partition by partition."""
    consumer = bus.consumer(f"reader-{uuid4().hex}", [topic], _FromTheBeginning())
    await consumer.start()
    try:
        await eventually(_true_once(lambda: consumer.assignment), "no partitions were assigned")
        records: list[Record] = []
        for partition, bounds in sorted((await consumer.bounds(consumer.assignment)).items()):
            at = bounds.first
            while at < bounds.end:
                found = await consumer.fetch(partition, 1000, 1.0)
                records += found
                at = found[-1].offset + 1 if found else at
        return records
    finally:
        await consumer.stop()


def _true_once(look: Callable[[], Any]) -> Callable[[], Awaitable[Any]]:
    async def ask() -> Any:
        return look()

    return ask


@dataclass
class Rig:
    """One worker with its own input topics on a bus and its own database. Emitted incidents go to the common topic and
    are told apart by their order ids."""

    bus: Bus
    database: Database
    worker: Worker
    topics: tuple[str, ...]
    clock: Clock

    async def send(self, *messages: Message) -> None:
        producer = self.bus.producer()
        await producer.start()
        await producer.send(messages)
        await producer.stop()

    async def publish(self, events: Iterable[Event[Any]], topic: int = 0) -> None:
        await self.send(*(replace(to_message(e), topic=self.topics[topic]) for e in events))

    async def settled(self) -> None:
        """Until everything published is applied, nothing is due, and the outbox is empty."""

        async def done() -> bool:
            self.worker.nudge()
            return await self.worker.settled()

        await eventually(done, "the worker did not settle")

    async def incidents(self, order_id: str) -> list[Event[Incident]]:
        found = [decode(r) for r in await read_topic(self.bus, INCIDENTS) if r.key == order_id.encode()]
        return [e for e in found if isinstance(e.data, Incident)]  # type: ignore[misc]

    async def rows(self, sql: str) -> list[Any]:
        from sqlalchemy import text

        async with self.database.transaction() as connection:
            return list(await connection.execute(text(sql)))


class ADetector(Detector):
    """The detector as it is wired in production, with the test's secret; tests derive from it what misbehaves."""

    def __init__(self) -> None:
        super().__init__(PostgresOrders(), PostgresListing(), PostgresFeeds(), SEALER, Policy())


async def prepare_topics(bus: Bus, *topics: str, partitions: int = 3) -> None:
    admin = bus.admin()
    await admin.apply([TopicSpec(t, partitions) for t in (*topics, INCIDENTS, DEAD_LETTERS)])
    await admin.close()


@asynccontextmanager
async def at_work(
    bus: Bus,
    database_url: str,
    *topics: str,
    clock: Clock | None = None,
    handler: Handler | None = None,
    **changes: Any,
) -> AsyncIterator[Rig]:
    """A running worker over these topics; stopped in order at the end."""
    clock = clock or SystemClock()
    database = Database(database_url, pool_size=16)
    settings = replace(WorkerSettings("detector", tuple(topics), probe_seconds=0.2, fetch_seconds=0.2), **changes)
    worker = Worker(
        settings, handler or ADetector(), bus=bus, database=database, sealer=SEALER, clock=clock, metrics=Metrics()
    )
    running = asyncio.create_task(worker.run())
    try:
        yield Rig(bus, database, worker, tuple(topics), clock)
        if running.done():
            await running
    finally:
        worker.stop()
        await running
        await database.close()
