"""Fault cases 17, 18 and 20: payloads that are or become huge, streams out of order, and one key that takes it all."""

import json
import random
from dataclasses import replace

import psutil
from aiokafka import AIOKafkaProducer

from shared.bus import connect
from shared.bus.port import Message
from shared.clock import VirtualClock
from shared.events.envelope import MAX_BODY, encode_structured
from shared.store import deadletters
from tests.faults.invariants import as_the_oracle_says, audit, offsets_only_rose
from tests.faults.lives import READ_AT, a_story
from tests.support.kafka import KafkaServer
from tests.support.running import at_work, prepare_topics
from tests.support.stories import Order

MEBIBYTE = 1024 * 1024


async def test_a_batch_that_swells_when_unpacked_stays_within_bounds(
    kafka: KafkaServer, database: str, unique: str
) -> None:
    """Forty bodies of half a MB each, all the same letter, are a few kilobytes on the wire. They are refused one by
    one, and what is in memory at any time is bounded."""
    bus = connect(f"kafka://{kafka.bootstrap}")
    topic = f"orders-{unique}"
    await prepare_topics(bus, topic, partitions=1)
    body = b'{"order_id": "' + b"A" * 500_000 + b'"}'
    headers = [("ce_specversion", b"1.0"), ("ce_id", b"x"), ("ce_source", b"s"), ("ce_type", b"order.packed.v1")]
    headers.append(("ce_time", b"2026-12-12T00:00:00Z"))
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, compression_type="zstd") as shop:
        for _ in range(40):
            await shop.send(topic, body, b"bomb", headers=headers)
        await shop.flush()
    process = psutil.Process()
    before = process.memory_info().rss
    async with at_work(bus, database, topic, clock=VirtualClock(READ_AT)) as rig:
        await rig.publish([Order("good").paid()])
        await rig.settled()
        async with rig.database.transaction() as connection:
            kept = await deadletters.listed(connection, "detector")
        assert [letter.field for letter in kept] == ["order_id"] * 40
        [(count,)] = await rig.rows("SELECT count(*) FROM detector.orders")
        assert count == 1
    assert process.memory_info().rss - before < 200 * MEBIBYTE
    await bus.close()


async def test_an_order_with_thousands_of_lines_is_refused_and_the_limit_itself_is_not(
    kafka: KafkaServer, database: str, unique: str
) -> None:
    bus = connect(f"kafka://{kafka.bootstrap}")
    topic = f"orders-{unique}"
    await prepare_topics(bus, topic, partitions=1)
    line = {"sku": "S", "name": "n", "variant": "v", "quantity": 1, "unit_price": "1"}
    async with at_work(bus, database, topic, clock=VirtualClock(READ_AT)) as rig:
        for name, count in (("most", 500), ("more", 501), ("many", 5_000)):
            document = json.loads(encode_structured(Order(name).paid()))
            document["data"]["lines"] = [{**line, "line_id": str(n)} for n in range(count)]
            body = json.dumps(document).encode()
            assert len(body) < MAX_BODY
            await rig.send(Message(topic, name.encode(), body, (("content-type", b"application/cloudevents+json"),)))
        await rig.settled()
        assert [row.order_id for row in await rig.rows("SELECT order_id FROM detector.orders")] == ["most"]
        [(count,)] = await rig.rows("SELECT count(*) FROM detector.dead_letters WHERE field = 'lines'")
        assert count == 2
    await bus.close()


async def test_duplicates_disorder_and_late_arrivals_end_as_the_oracle_says(
    kafka: KafkaServer, database: str, unique: str
) -> None:
    """Every event twice and some five times, all shuffled, across partitions; then a part of them again, much later."""
    bus = connect(f"kafka://{kafka.bootstrap}")
    topics = (f"orders-{unique}", f"tracking-{unique}")
    await prepare_topics(bus, *topics)
    story = a_story(unique, orders=160)
    chance = random.Random(unique)
    messages = story.messages(topics)
    stream = [*messages, *messages, *chance.choices(messages, k=3 * len(messages))]
    chance.shuffle(stream)
    async with at_work(bus, database, *topics, clock=VirtualClock(READ_AT), batch_records=50) as rig:
        await audit(rig.database)
        await rig.send(*stream)
        await rig.settled()
        first = await as_the_oracle_says(bus, rig.database, story.events, READ_AT)
        late = chance.sample(messages, k=len(messages) // 3)
        await rig.send(*(replace(m, topic=chance.choice(topics)) for m in late))
        await rig.settled()
        again = await as_the_oracle_says(bus, rig.database, story.events, READ_AT)
        assert {o: [e.id for e in told] for o, told in again.items()} == {
            o: [e.id for e in told] for o, told in first.items()
        }
        await offsets_only_rose(rig.database)
    await bus.close()


async def test_one_hot_key_among_others(kafka: KafkaServer, database: str, unique: str) -> None:
    """Ten thousand events of one order, spread over all partitions of two topics, beside the others' few."""
    bus = connect(f"kafka://{kafka.bootstrap}")
    topics = (f"orders-{unique}", f"more-{unique}")
    await prepare_topics(bus, *topics)
    hot = Order(f"hot-{unique}")
    events = [hot.paid(promise=48), *(hot.estimate(n / 2000, ship_at=50 + n % 40) for n in range(10_000))]
    story = a_story(unique, orders=80)
    story.orders += events
    chance = random.Random(unique)
    stream = [replace(m, key=b"%d" % n, topic=chance.choice(topics)) for n, m in enumerate(story.messages(topics))]
    async with at_work(bus, database, *topics, clock=VirtualClock(READ_AT), batch_records=500) as rig:
        await rig.send(*stream)
        await rig.settled()
        await as_the_oracle_says(bus, rig.database, story.events, READ_AT)
        [(count,)] = await rig.rows("SELECT count(*) FROM detector.dead_letters")
        assert count == 0
    await bus.close()
