"""What the bus's contract suite stands on: the backends, members with a listener that takes notes, patient readers."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from shared.bus import kafka, local
from shared.bus.local.admin import LocalAdmin
from shared.bus.port import Bus, Consumer, Features, Message, Partition, Record, TopicSpec
from shared.clock import VirtualClock
from shared.errors import Retry
from shared.store.database import Database

PATIENCE = 60.0
"""Seconds until a test gives up on something that should come; nothing is timed."""

SESSION_MS = 2000

FEATURES: Mapping[str, Features] = {"kafka": kafka.FEATURES, "local": local.FEATURES}


def on_backends(wanted: Callable[[Features], bool] = lambda features: True) -> pytest.MarkDecorator:
    """Run the test on every backend that declares what it needs."""
    names = [name for name, features in FEATURES.items() if wanted(features)]
    return pytest.mark.parametrize("backend", names, indirect=True)


@dataclass
class Backend:
    """One backend with its bus. `url` is how another process reaches the same log; `retire` deletes the records of a
    partition below an offset, as retention would."""

    name: str
    url: str
    bus: Bus
    unique: str
    retire: Callable[[Partition, int], Awaitable[None]]
    another: Callable[[], Bus]
    """The bus as another process has it: nothing is shared but the log."""
    topics: int = 0
    closing: list[Database] = field(default_factory=list)

    async def topic(self, partitions: int = 1, *, compacted: bool = False) -> str:
        self.topics += 1
        name = f"topic-{self.topics}-{self.unique}"
        admin = self.bus.admin()
        await admin.apply([TopicSpec(name, partitions, compacted, retention_hours=24)])
        await admin.close()
        return name

    @asynccontextmanager
    async def member(
        self, group: str, topics: str | Sequence[str], listener: "Notes | None" = None, bus: Bus | None = None
    ) -> AsyncIterator[Consumer]:
        """A started consumer, stopped at the end."""
        names = [topics] if isinstance(topics, str) else topics
        consumer = (bus or self.bus).consumer(f"{group}-{self.unique}", names, listener or Notes())
        try:
            await consumer.start()
            yield consumer
        finally:
            await consumer.stop()

    async def send(self, *messages: Message) -> None:
        producer = self.bus.producer()
        await producer.start()
        try:
            await producer.send(messages)
        finally:
            await producer.stop()


def on_kafka(servers: str, unique: str) -> Backend:
    async def retire(partition: Partition, below: int) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=servers)
        await admin.start()
        try:
            await admin.delete_records({TopicPartition(*partition): RecordsToDelete(below)})
        finally:
            await admin.close()

    def bus() -> Bus:
        return kafka.KafkaBus([servers], session_timeout_ms=SESSION_MS)

    return Backend("kafka", f"kafka://{servers}", bus(), unique, retire, bus)


def on_local(url: str, unique: str) -> Backend:
    clock = VirtualClock(datetime(2026, 12, 12, tzinfo=UTC))
    databases: list[Database] = []

    def bus() -> Bus:
        databases.append(Database(url))
        return local.LocalBus(databases[-1].engine, clock)

    async def retire(partition: Partition, below: int) -> None:
        """The clock goes on by a topic's retention, and one record written then would be the first that is kept."""
        admin = backend.bus.admin()
        assert isinstance(admin, LocalAdmin)
        assert (await admin.bounds([partition]))[partition].end == below
        clock.advance(timedelta(hours=25))
        await admin.trim()

    backend = Backend("local", url, bus(), unique, retire, bus, closing=databases)
    return backend


@asynccontextmanager
async def running(request: pytest.FixtureRequest, unique: str) -> AsyncIterator[Backend]:
    """The backend that the test is parametrised with, on the session's servers."""
    if request.param == "kafka":
        made = on_kafka(request.getfixturevalue("kafka").bootstrap, unique)
    else:
        made = on_local(request.getfixturevalue("database"), unique)
    yield made
    await made.bus.close()
    for database in made.closing:
        await database.close()


@dataclass
class Notes:
    """A listener that says where to read on and writes down what it was told, also into a `story` that members share.
    `slow` is how long it thinks, in seconds; `fails` are errors that it raises first, one a call."""

    starts: Mapping[Partition, int | None] = field(default_factory=dict)
    slow: float = 0
    fails: list[Exception] = field(default_factory=list)
    name: str = ""
    story: list[tuple[str, str, frozenset[Partition]]] = field(default_factory=list)

    async def assigned(self, partitions: Collection[Partition]) -> Mapping[Partition, int | None]:
        await asyncio.sleep(self.slow)
        if self.fails:
            raise self.fails.pop(0)
        self.story.append((self.name, "assigned", frozenset(partitions)))
        return {partition: self.starts.get(partition) for partition in partitions}

    async def revoked(self, partitions: Collection[Partition]) -> None:
        await asyncio.sleep(self.slow)
        self.story.append((self.name, "revoked", frozenset(partitions)))


def numbered(topic: str, numbers: Iterable[int], keys: int = 1) -> list[Message]:
    """Messages whose values count up, spread over so many keys."""
    return [Message(topic, f"key-{n % keys}".encode(), str(n).encode()) for n in numbers]


def values(records: Iterable[Record]) -> list[bytes | None]:
    return [record.value for record in records]


async def eventually(check: Callable[[], object], what: str) -> None:
    """Wait until `check` holds."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not check():  # noqa: ASYNC110 - what is waited for has no event of its own
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"this never came: {what}")


async def holding(consumer: Consumer, count: int) -> None:
    """Wait until the member holds so many partitions and knows where to read each."""
    await eventually(
        lambda: len(held := consumer.assignment) == count and all(consumer.position(p) is not None for p in held),
        f"{count} partitions, placed",
    )


async def read(consumer: Consumer, count: int, batch: int = 500) -> list[Record]:
    """The next `count` records of all partitions of this member, fetched at the same time; partition by partition in
    order. Whatever is in the way for a time is waited for."""
    found: dict[Partition, list[Record]] = defaultdict(list)
    try:
        async with asyncio.timeout(PATIENCE):
            while (missing := count - sum(map(len, found.values()))) > 0:
                held = sorted(consumer.assignment)
                try:
                    fetched = await asyncio.gather(*(consumer.fetch(p, min(batch, missing), 0.2) for p in held))
                except Retry:
                    fetched = []
                for partition, records in zip(held, fetched, strict=False):
                    found[partition] += records
                if not any(fetched):
                    await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"{sum(map(len, found.values()))} of {count} records came")
    return [record for partition in sorted(found) for record in found[partition]]


async def read_one(consumer: Consumer, partition: Partition, count: int) -> list[Record]:
    """The next `count` records of one partition."""
    found: list[Record] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            found += await consumer.fetch(partition, count - len(found), 1.0)
            await asyncio.sleep(0)
    return found


async def fetch_until_raised(consumer: Consumer, partition: Partition) -> None:
    """Fetch until it raises what the caller expects; nothing may come before."""
    async with asyncio.timeout(PATIENCE):
        while True:
            assert await consumer.fetch(partition, 10, 0.5) == ()
