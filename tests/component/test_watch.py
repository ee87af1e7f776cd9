"""A consumer that has fallen silent is replaced, a database that is away is no reason for that, and the lag in seconds
is told also where nothing moves."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from shared.bus import connect
from shared.bus.local import LocalBus
from shared.bus.local.consumer import LocalConsumer
from shared.bus.port import Listener, Message, Partition, Record
from shared.clock import VirtualClock
from shared.errors import Retry
from shared.store.migrate import upgrade_all
from tests.support.kafka import KafkaServer
from tests.support.postgres import PostgresServer
from tests.support.running import Rig, at_work, eventually, prepare_topics
from tests.support.stories import START, Order, hours


class Deaf(LocalConsumer):
    """A real member until `deaf`: then it hears no more of its records, as on a connection that died unnoticed; and
    once `mute`, nothing of its logs' ends either."""

    deaf = False
    waits = False
    mute = False

    async def fetch(self, partition: Partition, max_records: int, timeout: float) -> Sequence[Record]:
        if self.deaf:
            self.waits = True
            await asyncio.Event().wait()
        return await super().fetch(partition, max_records, timeout)

    async def bounds(self, partitions: Any) -> Any:
        if self.mute:
            raise Retry("nobody answers")
        return await super().bounds(partitions)


class DeafBus(LocalBus):
    """Its members are `Deaf`; who joins later hears."""

    def __init__(self, engine: AsyncEngine, clock: VirtualClock) -> None:
        super().__init__(engine, clock)
        self.members: list[Deaf] = []

    def consumer(self, group: str, topics: Sequence[str], listener: Listener) -> Deaf:
        made = Deaf(self._log, self._ends, group, topics, listener)
        self.members.append(made)
        return made


def metric(rig: Rig, name: str, **labels: str) -> float:
    found = rig.worker.metrics.registry.get_sample_value(f"headsup_{name}", {"service": "detector", **labels})
    return found or 0.0


async def orders(rig: Rig) -> int:
    [(count,)] = await rig.rows("SELECT count(*) FROM detector.orders")
    return int(count)


async def until(check: Callable[[], bool], why: str) -> None:
    async def asked() -> bool:
        return check()

    await eventually(asked, why)


async def test_a_consumer_that_fell_silent_is_replaced(database: str, unique: str) -> None:
    """Also where it says nothing more of the logs' ends either."""
    engine = create_async_engine(database)
    clock = VirtualClock(START + hours(6))
    bus, topic = DeafBus(engine, clock), f"orders-{unique}"
    await prepare_topics(bus, topic, partitions=1)
    async with at_work(bus, database, topic, clock=clock, silent_seconds=1.0) as rig:
        await rig.publish([Order("before").paid()])
        await rig.settled()
        assert metric(rig, "rejoins_total") == 0
        bus.members[0].deaf = True
        await until(lambda: bus.members[0].waits, "it still hears")
        await rig.publish([Order("behind").paid()])
        await until(lambda: metric(rig, "lag_records", topic=topic, partition="0") == 1, "no lag was told")
        bus.members[0].mute = True
        await rig.settled()
        assert await orders(rig) == 2
        assert metric(rig, "rejoins_total") == 1
        assert len(bus.members) == 2
    await bus.close()
    await engine.dispose()


async def test_a_database_that_is_away_is_no_silence(
    kafka: KafkaServer, own_postgres: PostgresServer, unique: str
) -> None:
    url = await asyncio.to_thread(own_postgres.create_database, f"d_{unique}")
    await upgrade_all(url)
    bus, topic = connect(f"kafka://{kafka.bootstrap}"), f"orders-{unique}"
    await prepare_topics(bus, topic, partitions=1)
    async with at_work(bus, url, topic, clock=VirtualClock(START + hours(6)), silent_seconds=1.0) as rig:
        await rig.publish([Order("before").paid()])
        await rig.settled()
        await asyncio.to_thread(own_postgres.kill)
        await rig.publish([Order("behind").paid()])
        before = metric(rig, "retries_total")
        await until(lambda: metric(rig, "retries_total") > before + 15, "nobody noticed")
        assert metric(rig, "lag_records", topic=topic, partition="0") == 1
        await asyncio.to_thread(own_postgres.start)
        await rig.settled()
        assert await orders(rig) == 2
        assert metric(rig, "rejoins_total") == 0
    await bus.close()


async def test_the_lag_in_seconds_of_a_partition_that_was_halted_before_the_start(database: str, unique: str) -> None:
    engine = create_async_engine(database)
    clock = VirtualClock(START + hours(6))
    bus, topic = connect("local:", engine, clock), f"orders-{unique}"
    await prepare_topics(bus, topic, partitions=1)
    async with at_work(bus, database, topic, clock=clock) as rig:
        await rig.send(*(Message(topic, b"x", b"nonsense") for _ in range(50)))
        await until(lambda: "halted" in rig.worker.ready, "the storm did not halt the partition")
        assert metric(rig, "lag_seconds", topic=topic, partition="0") == 0
        await rig.publish([Order("behind").paid()])
    clock.advance(timedelta(hours=2))
    async with at_work(bus, database, topic, clock=clock) as rig:
        await rig.publish([Order("later").paid()])
        await until(lambda: metric(rig, "lag_records", topic=topic, partition="0") == 2, "no lag was told")
        await until(lambda: metric(rig, "lag_seconds", topic=topic, partition="0") == 7200, "the age is not told")
        clock.advance(timedelta(hours=1))
        await until(lambda: metric(rig, "lag_seconds", topic=topic, partition="0") == 10800, "the age stands still")
    await bus.close()
    await engine.dispose()


async def test_the_lag_in_seconds_while_the_consumer_is_silent(database: str, unique: str) -> None:
    engine = create_async_engine(database)
    clock = VirtualClock(START + hours(6))
    bus, topic = DeafBus(engine, clock), f"orders-{unique}"
    await prepare_topics(bus, topic, partitions=1)
    async with at_work(bus, database, topic, clock=clock) as rig:
        await rig.publish([Order("before").paid()])
        await rig.settled()
        clock.advance(timedelta(hours=5))
        bus.members[0].deaf = True
        await until(lambda: bus.members[0].waits, "it still hears")
        await rig.publish([Order("behind").paid()])
        clock.advance(timedelta(minutes=1))
        await until(lambda: metric(rig, "lag_seconds", topic=topic, partition="0") == 60, "the age is not told")
    await bus.close()
    await engine.dispose()
