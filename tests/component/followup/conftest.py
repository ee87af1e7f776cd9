"""The follow-up at work: on a real bus and database, on virtual time, behind its REST."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from services.followup.__main__ import SCHEMA, TOPICS, build
from shared.access import Access, key_hash
from shared.bus import connect
from shared.bus.port import Bus, TopicSpec
from shared.clock import VirtualClock
from shared.events.envelope import Event, decode, to_message
from shared.events.topics import CASES, DEAD_LETTERS, REMEDIES
from shared.http import create_app
from shared.process import Doors, Parts
from shared.settings import Settings
from shared.store.database import Database
from shared.store.stores import StoredKeys
from shared.telemetry import Metrics
from shared.worker import Worker
from tests.support.running import SEALER, eventually, read_topic
from tests.support.stories import START, hours

KEY = "an-admin-key-for-tests"


@dataclass
class Rig:
    """A running follow-up, and a client with the admin's key."""

    bus: Bus
    database: Database
    worker: Worker
    clock: VirtualClock
    client: httpx.AsyncClient

    async def publish(self, *events: Event[Any]) -> None:
        """Publish these and wait until all of it is applied and what is due now was done."""
        producer = self.bus.producer()
        await producer.start()
        await producer.send([to_message(event) for event in events])
        await producer.stop()
        await self.settled()

    async def at(self, hour: float, *events: Event[Any]) -> None:
        """Let time pass to `hour`, stopping at each due time, then publish."""
        until = START + hours(hour)
        while (due := await self.worker.next_due()) is not None and due <= until:
            self.clock.advance_to(max(due, self.clock.now()))
            await self.settled()
        self.clock.advance_to(until)
        await self.settled()
        if events:
            await self.publish(*events)

    async def settled(self) -> None:
        async def done() -> bool:
            self.worker.nudge()
            return await self.worker.settled()

        await eventually(done, "the follow-up did not settle")

    async def emitted(self, kind: str, **fields: Any) -> list[Any]:
        """The data of the events of this type, in the order of their emission."""
        topic = REMEDIES if kind.startswith("remedy.") else CASES
        records = sorted(await read_topic(self.bus, topic), key=lambda record: record.timestamp)  # of all partitions
        found = [decode(record) for record in records]
        data: list[Any] = [event.data for event in found if event.type == f"{kind}.v1"]
        return [d for d in data if all(getattr(d, name) == value for name, value in fields.items())]

    async def get(self, path: str, **params: Any) -> Any:
        answer = await self.client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def items(self, path: str, **params: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.get(path, **params))["items"]
        return found

    async def post(self, path: str, body: Any = None, status: int = 200, **headers: str) -> Any:
        answer = await self.client.post(path, json=body, headers=headers)
        assert answer.status_code == status, answer.text
        await self.settled()
        return answer.json()

    async def dead_letters(self) -> Sequence[Any]:
        return await read_topic(self.bus, DEAD_LETTERS)


@pytest.fixture
async def rig(database: str) -> AsyncIterator[Rig]:
    engine = create_async_engine(database)
    bus = connect("local:", engine)
    admin = bus.admin()
    await admin.apply([TopicSpec(topic, 2) for topic in (*TOPICS, CASES, DEAD_LETTERS)])
    await admin.close()
    parts = Parts(bus, Database(database), SEALER, VirtualClock(START), Metrics())
    access = Access(key_hash(KEY), StoredKeys(parts.database, SCHEMA))
    doors = Doors(bus.producer(), access)
    built = build(parts, Settings(new_stores="live"), doors)
    app = create_app([built.worker], parts.metrics, [built.router])
    running = asyncio.create_task(built.worker.run())
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://headsup", headers={"Authorization": f"Bearer {KEY}"}
    )
    try:
        async with client:
            assert isinstance(parts.clock, VirtualClock)
            yield Rig(bus, parts.database, built.worker, parts.clock, client)
        assert not running.done()
    finally:
        built.worker.stop()
        await running
        await doors.producer.stop()
        await parts.database.close()
        await bus.close()
        await engine.dispose()
