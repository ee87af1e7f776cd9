"""A composer at work in the test's own process: the whole service as wired, on a local bus and a real database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from sqlalchemy import text

from services.composer.__main__ import SCHEMA, TOPICS, build
from shared.access import Access, key_hash
from shared.bus.port import Bus
from shared.clock import VirtualClock
from shared.events.envelope import Event, decode, to_message
from shared.events.notices import NoticeComposed
from shared.events.topics import DEAD_LETTERS, NOTICES
from shared.http import create_app
from shared.process import Doors, Parts, connected
from shared.settings import load
from shared.store.stores import StoredKeys
from shared.worker import Worker
from tests.support.running import SEALER, eventually, prepare_topics, read_topic

KEY = "the-first-key-of-this-test"


@dataclass
class Composing:
    """The service, its bus and its REST."""

    parts: Parts
    worker: Worker
    http: httpx.AsyncClient

    @property
    def bus(self) -> Bus:
        return self.parts.bus

    async def publish(self, *events: Event[Any]) -> None:
        """Put these events on their topics, and wait until all is applied and emitted."""
        producer = self.bus.producer()
        await producer.start()
        await producer.send([to_message(event) for event in events])
        await producer.stop()
        await self.settled()

    async def settled(self) -> None:
        async def done() -> bool:
            self.worker.nudge()
            return await self.worker.settled()

        await eventually(done, "the composer did not settle")

    async def notices(self) -> list[NoticeComposed]:
        """Everything composed so far, as told by distinct events, in the order of emission."""
        found = {event.id: event.data for event in [decode(r) for r in await read_topic(self.bus, NOTICES)]}
        return [data for data in found.values() if isinstance(data, NoticeComposed)]

    async def letters(self) -> int:
        return len(await read_topic(self.bus, DEAD_LETTERS))

    async def rows(self, sql: str) -> list[Any]:
        async with self.parts.database.transaction() as connection:
            return list(await connection.execute(text(sql)))

    def caller(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"}


@asynccontextmanager
async def composer_at_work(database_url: str, clock: VirtualClock, **settings: Any) -> AsyncIterator[Composing]:
    """The composer, running; its REST is called with the first key unless a request says otherwise."""
    async with connected("local:", database_url, SEALER, clock) as parts:
        await prepare_topics(parts.bus, *TOPICS, NOTICES)
        doors = Doors(parts.bus.producer(), Access(key_hash(KEY), StoredKeys(parts.database, SCHEMA)))
        built = build(parts, load(**settings), doors)
        app = create_app([built.worker], parts.metrics, [built.router])
        running = asyncio.create_task(built.worker.run())
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://composer", headers={"Authorization": f"Bearer {KEY}"}
        )
        try:
            async with client:
                yield Composing(parts, built.worker, client)
        finally:
            built.worker.stop()
            await running
            await doors.producer.stop()
