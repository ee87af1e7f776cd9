"""The bus when its server goes away and comes back: members stay, senders are told, nothing is lost."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator

import pytest

from shared.bus.kafka.consumer import KafkaConsumer
from shared.bus.local.consumer import LocalConsumer
from shared.bus.port import Message, Partition, Producer
from shared.errors import Retry
from shared.store.migrate import upgrade_all
from tests.contracts.bus_kit import (
    PATIENCE,
    Backend,
    Notes,
    holding,
    numbered,
    on_kafka,
    on_local,
    read,
    running,
    values,
)
from tests.support.kafka import KafkaServer
from tests.support.postgres import PostgresServer


@pytest.fixture
async def backend(request: pytest.FixtureRequest, unique: str) -> AsyncIterator[Backend]:
    async with running(request, unique) as made:
        yield made


@pytest.mark.parametrize("backend", ["kafka"], indirect=True)
async def test_a_client_whose_background_task_died_joins_again(backend: Backend) -> None:
    topic = await backend.topic()
    async with backend.member("g", topic, Notes(starts={Partition(topic, 0): 0})) as consumer:
        await holding(consumer, 1)
        assert isinstance(consumer, KafkaConsumer)
        assert consumer._client is not None
        consumer._client._fetcher._fetch_task.cancel()
        await backend.send(*numbered(topic, range(5)))
        assert values(await read(consumer, 5)) == [b"0", b"1", b"2", b"3", b"4"]


async def test_members_outlast_a_restart_of_the_broker(own_kafka: KafkaServer, unique: str) -> None:
    backend = on_kafka(own_kafka.bootstrap, unique)
    topic = await backend.topic(partitions=2)
    remembered: dict[Partition, int | None] = defaultdict(int)
    producer = backend.bus.producer()
    await producer.start()
    async with backend.member("g", topic, Notes(starts=remembered)) as consumer:
        await producer.send(numbered(topic, range(100), keys=9))
        before = await read(consumer, 100)
        for record in before:
            remembered[Partition(topic, record.partition)] = record.offset + 1
        await asyncio.to_thread(own_kafka.stop)
        refused = await asyncio.gather(
            producer.send(numbered(topic, range(100, 110), keys=9)),
            consumer.commit({Partition(topic, 0): 1}),
            consumer.bounds([Partition(topic, 0)]),
            return_exceptions=True,
        )
        assert [type(error) for error in refused] == [Retry, Retry, Retry]
        await asyncio.to_thread(own_kafka.start)
        await _send_patiently(producer, numbered(topic, range(100, 200), keys=9))
        got: set[bytes | None] = set()
        async with asyncio.timeout(PATIENCE):
            while len(got) < 100:
                got |= set(values(await read(consumer, 1)))
        assert got == {str(n).encode() for n in range(100, 200)}
    await producer.stop()


async def test_members_outlast_a_restart_of_the_database(own_postgres: PostgresServer, unique: str) -> None:
    url = own_postgres.create_database("bus")
    await upgrade_all(url)
    backend = on_local(url, unique)
    topic = await backend.topic(partitions=2)
    remembered: dict[Partition, int | None] = defaultdict(int)
    producer = backend.bus.producer()
    await producer.start()
    notes = Notes(starts=remembered)
    async with backend.member("g", topic, notes) as consumer:
        for stop in (own_postgres.stop, own_postgres.kill):
            await producer.send(numbered(topic, range(100), keys=9))
            for record in await read(consumer, 100):
                remembered[Partition(topic, record.partition)] = record.offset + 1
            await asyncio.to_thread(stop)
            with pytest.raises(Retry):
                await producer.send(numbered(topic, range(100, 110), keys=9))
            with pytest.raises(Retry):
                await consumer.bounds([Partition(topic, 0)])
            with pytest.raises(Retry):
                await consumer.commit({Partition(topic, 0): 1})
            await asyncio.to_thread(own_postgres.start)
        await _send_patiently(producer, numbered(topic, range(200, 300), keys=9))
        assert set(values(await read(consumer, 100))) == {str(n).encode() for n in range(200, 300)}
    assert [what for _, what, _ in notes.story] == ["assigned", "revoked"] * 3
    await producer.stop()
    for database in backend.closing:
        await database.close()


async def _send_patiently(producer: Producer, messages: list[Message]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await producer.send(messages)
            except Retry:
                await asyncio.sleep(0.2)


@pytest.mark.parametrize("backend", ["local"], indirect=True)
async def test_a_member_whose_connection_was_cut_comes_back_or_stands_by(
    backend: Backend, postgres: PostgresServer
) -> None:
    topic = await backend.topic()
    await backend.send(*numbered(topic, range(3)))
    cut = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_locks JOIN pg_stat_activity USING (pid)"
        f" WHERE locktype = 'advisory' AND application_name = 'headsup bus g-{backend.unique}'"
    )
    notes = Notes()
    async with backend.member("g", topic, notes) as consumer:
        assert isinstance(consumer, LocalConsumer)
        assert len(await read(consumer, 3)) == 3
        assert await asyncio.to_thread(postgres.psql, cut) == "1"
        assert len(await read(consumer, 3)) == 3
        assert [what for _, what, _ in notes.story] == ["assigned", "revoked", "assigned"]
        with pytest.raises(Retry, match="one member"):
            async with backend.member("g", topic):
                pass
