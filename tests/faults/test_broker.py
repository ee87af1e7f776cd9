"""Cases 5, 6, 7 and 8: the broker goes away, the group's offsets fail or lie, the log is not what it was."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from functools import partial

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete

from shared.bus import connect
from shared.bus.port import Partition, Producer
from tests.faults.inside import Inside, inside
from tests.faults.invariants import applied_to_the_end, incidents_of
from tests.faults.lives import LATER, Story, a_story
from tests.support.kafka import KafkaServer
from tests.support.running import eventually
from tests.support.stories import Order

SLOW = {"BatchRunner._transaction": 0.1}


async def test_the_broker_restarts_and_is_killed(own_kafka: KafkaServer, database: str, unique: str) -> None:
    """Case 5. In the midst of batches, and with messages in the outbox: they go out once it is back."""
    story = a_story(unique, orders=80)
    async with inside(f"kafka://{own_kafka.bootstrap}", database, unique, slow=SLOW) as rig:
        await rig.publish(story.messages(rig.topics))
        await rig.applied(30)
        await asyncio.to_thread(own_kafka.restart)
        await rig.applied(60)
        await asyncio.to_thread(own_kafka.kill)
        await said(rig, "outbox_messages")
        await asyncio.to_thread(own_kafka.start)
        await rig.later()
        assert rig.worker.ready == ""
        await rig.as_it_should_be(story)


async def said(rig: Inside, gauge: str) -> None:
    """Until the metric shows something."""

    async def there() -> bool:
        return (rig.gauge(gauge) or 0) > 0

    await eventually(there, f"{gauge} stays zero")


async def test_the_group_commit_fails_after_the_database_commit(
    own_kafka: KafkaServer, database: str, unique: str
) -> None:
    """Case 6. The broker stops answering right when the batches are in the database; the group's commit fails, the
    database's offsets stand, and later commits catch up."""
    story = a_story(unique, orders=24)
    async with inside(f"kafka://{own_kafka.bootstrap}", database, unique, batch_records=1000) as rig:
        await rig.settled()
        freeze = partial(os.kill, own_kafka.pid, signal.SIGSTOP)
        rig.wired.trap.at_point = ("Worker._commit: before commit", freeze)
        await rig.publish(story.messages(rig.topics))
        try:
            await eventually(lambda: failed_commit(rig), "the group's commit did not fail")
            assert sum(p.next or 0 for p in (await rig.positions()).values()) > 0
        finally:
            os.kill(own_kafka.pid, signal.SIGCONT)
        await rig.later()
        await rig.as_it_should_be(story)
        await group_caught_up(rig)


async def failed_commit(rig: Inside) -> bool:
    passes = rig.wired.trap.passes
    return passes["Worker._commit: failed"] > 0


async def group_caught_up(rig: Inside) -> None:
    async def same() -> bool:
        rig.worker.nudge()
        admin = rig.bus.admin()
        try:
            committed = await admin.committed("headsup.detector")
        finally:
            await admin.close()
        return all(
            committed.get(p) == position.next for p, position in (await rig.positions()).items() if position.next
        )

    await eventually(same, "the group's offsets do not follow the database's")


@pytest.fixture
async def kafka_admin(kafka: KafkaServer) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    yield admin
    await admin.close()


@pytest.mark.parametrize("lie", ["ahead", "behind"])
async def test_the_database_wins_over_the_groups_offsets(
    lie: str, kafka: KafkaServer, kafka_admin: AIOKafkaAdminClient, database: str, unique: str
) -> None:
    """Case 7. Somebody resets the group while the worker is away: to the end, so that records would be skipped, or to
    the beginning, so that they would be read twice."""
    story = a_story(unique, orders=48)
    url = f"kafka://{kafka.bootstrap}"
    messages = story.messages([f"orders-{unique}", f"tracking-{unique}"])
    async with inside(url, database, unique) as rig:
        await rig.publish(messages[:60])
        await rig.settled()
        topics, before = rig.topics, await rig.positions()
    async with producing(url) as producer:
        await producer.send(messages[60:])
    await reset_group(kafka, before, lie == "ahead")
    async with inside(url, database, unique) as rig:
        await rig.later()
        await rig.as_it_should_be(story)
        await group_caught_up(rig)
        assert sum(rig.gauge("events_applied_total", topic) or 0 for topic in topics) == len(messages) - 60


@asynccontextmanager
async def producing(url: str) -> AsyncIterator[Producer]:
    bus = connect(url)
    producer = bus.producer()
    await producer.start()
    yield producer
    await producer.stop()
    await bus.close()


async def reset_group(kafka: KafkaServer, partitions: Collection[Partition], to_end: bool) -> None:
    """What `kafka-consumer-groups --reset-offsets` does."""
    tool = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, group_id="headsup.detector", enable_auto_commit=False)
    await tool.start()
    try:
        places = [TopicPartition(*p) for p in partitions]
        tool.assign(places)
        ends = await tool.end_offsets(places)
        await tool.commit({tp: ends[tp] if to_end else 0 for tp in places})
    finally:
        await tool.stop()


async def test_lost_records_halt_the_partition_until_a_person_goes_on(
    kafka: KafkaServer, kafka_admin: AIOKafkaAdminClient, database: str, unique: str
) -> None:
    """Case 8. Retention dropped what was never read: that partition stands still and says so, the others go on, and
    no timer fires meanwhile. A person lets it go on with what is left."""
    url = f"kafka://{kafka.bootstrap}"
    early = Story(orders=[Order(f"E{n}-{unique}").paid() for n in range(20)])
    lost = Story(orders=[Order(f"L{n}-{unique}").paid() for n in range(20)])
    async with inside(url, database, unique) as rig:
        await rig.publish(early.messages(rig.topics))
        await rig.settled()
        topics, before = rig.topics, await rig.positions()
    hit = Partition(topics[0], 0)
    async with producing(url) as producer:
        await producer.send(lost.messages(topics))
    kept_from = (before[hit].next or 0) + 3
    await kafka_admin.delete_records({TopicPartition(*hit): RecordsToDelete(before_offset=kept_from)})
    async with inside(url, database, unique) as rig:
        partition, position = await rig.halted()
        assert partition == hit
        assert "data were lost" in (position.halted or "")
        assert position.next == before[hit].next
        await eventually(lambda: gone_on(rig, hit), "the other partitions stand still too")
        assert "halted" in rig.worker.ready
        assert str(hit) in rig.worker.ready
        assert rig.gauge("partition_halted", hit.topic, str(hit.partition)) == 1
        rig.clock.advance_to(LATER)
        await a_few_ticks(rig)
        assert (await rig.rows("SELECT count(*) FROM detector.outbox"))[0][0] == 0
        assert await incidents_of(rig.bus, [e.data.order_id for e in early.events]) == {}
        await rig.resume(hit, restart_at=kept_from)
        await rig.settled()
        assert rig.worker.ready == ""
        assert rig.gauge("partition_halted", hit.topic, str(hit.partition)) == 0
        await applied_to_the_end(rig.bus, rig.database, rig.topics)
        [(count,)] = await rig.rows("SELECT count(*) FROM detector.orders")
        assert count == len(early.events) + len(lost.events) - 3
        assert len(await incidents_of(rig.bus, [e.data.order_id for e in early.events])) == len(early.events)


async def gone_on(rig: Inside, stuck: Partition) -> bool:
    admin = rig.bus.admin()
    try:
        ends = await admin.bounds(await admin.partitions(rig.topics))
    finally:
        await admin.close()
    positions = await rig.positions()
    return all((positions[p].next or 0) == bounds.end for p, bounds in ends.items() if p != stuck)


async def a_few_ticks(rig: Inside) -> None:
    """Until the ends were observed and timers swept three times more."""
    wanted = rig.wired.ticks() + 3

    async def reached() -> bool:
        rig.worker.nudge()
        return rig.wired.ticks() >= wanted

    await eventually(reached, "the worker's clockwork stands still")


async def test_a_log_that_was_created_anew_halts_and_holds_the_timers(
    kafka: KafkaServer, kafka_admin: AIOKafkaAdminClient, database: str, unique: str
) -> None:
    """Case 8. The topic is deleted under the running worker and comes back shorter. What was read is not read again,
    what is new is not skipped: it waits for a person, and timers wait with it."""
    url = f"kafka://{kafka.bootstrap}"
    early = Story(orders=[Order(f"E{n}-{unique}").paid() for n in range(40)])
    async with inside(url, database, unique, partitions=1) as rig:
        await rig.publish(early.messages(rig.topics))
        await rig.settled()
        hit = Partition(rig.topics[0], 0)
        await kafka_admin.delete_topics([hit.topic])
        await eventually(lambda: recreated(kafka_admin, hit.topic), "the topic does not come back")
        shipped = Story(orders=[Order(f"E{n}-{unique}").shipped(5) for n in range(20)])
        await rig.publish(shipped.messages(rig.topics))
        partition, position = await rig.halted()
        assert partition == hit
        assert "re-created" in (position.halted or "") or "OutOfRange" in (position.halted or "")
        assert position.next == len(early.events)
        rig.clock.advance_to(LATER)
        await a_few_ticks(rig)
        assert "halted" in rig.worker.ready
        assert await incidents_of(rig.bus, [e.data.order_id for e in early.events]) == {}
        await rig.resume(hit, restart_at=0)
        await rig.settled()
        await applied_to_the_end(rig.bus, rig.database, rig.topics)
        late = {f"E{n}-{unique}" for n in range(20, 40)}
        assert (await incidents_of(rig.bus, [e.data.order_id for e in early.events])).keys() == late


async def recreated(admin: AIOKafkaAdminClient, topic: str) -> bool:
    """A deletion takes the broker a moment; until then the name is taken."""
    response = await admin.create_topics([NewTopic(topic, 1, 1)])
    return bool(response.topic_errors[0][1] == 0)
