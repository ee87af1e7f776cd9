"""From event to incident: events published at a steady pace, incidents read as anyone would."""

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from bench.fill import ends
from bench.runs import Detecting
from bench.servers import Servers
from bench.stream import Item, Stream
from shared.events import topics

TICK_SECONDS = 0.01
WARM_UP_SECONDS = 3.0
WAIT_SECONDS = 20.0


async def measure(servers: Servers, detector: Detecting, rate: float, seconds: float, seed: int) -> list[float]:
    """Seconds from publishing an event to seeing the incident that it opens, for each such event after the warm-up,
    unsorted. Raises RuntimeError where an incident is missing or the pace could not be held."""
    stream = Stream(int(rate * seconds), seed, datetime.now(UTC))
    items = list(stream)
    producer = AIOKafkaProducer(bootstrap_servers=servers.kafka.bootstrap, acks="all", linger_ms=2)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=servers.kafka.bootstrap, fetch_max_wait_ms=500, enable_auto_commit=False
    )
    await producer.start()
    await consumer.start()
    sent: dict[bytes, float] = {}
    seen: dict[bytes, float] = {}
    try:
        consumer.assign([TopicPartition(*p) for p in await ends(servers, topics.INCIDENTS)])
        await consumer.seek_to_end()
        reading = asyncio.create_task(_read(consumer, seen, stream.incidents))
        begun = time.monotonic()
        await _publish(producer, items, rate, sent)
        took = time.monotonic() - begun
        with suppress(TimeoutError):
            await asyncio.wait_for(reading, WAIT_SECONDS)
    finally:
        await producer.stop()
        await consumer.stop()
    if detector.process.returncode is not None or len(seen) != stream.incidents:
        raise RuntimeError(f"{len(seen)} of {stream.incidents} incidents came")
    if took > seconds * 1.05:
        raise RuntimeError(f"the pace of {rate:,.0f} events/s was not held: {took:.1f} s instead of {seconds:.1f} s")
    return [seen[key] - at for key, at in sent.items() if at - begun > WARM_UP_SECONDS]


async def _publish(producer: AIOKafkaProducer, items: list[Item], rate: float, sent: dict[bytes, float]) -> None:
    begun, done = time.monotonic(), 0
    while done < len(items):
        due = min(int((time.monotonic() - begun) * rate), len(items))
        now = datetime.now(UTC)
        for item in items[done:due]:
            message = item.message(now)
            if item.opens:
                sent[item.order_id.encode()] = time.monotonic()
            await producer.send(message.topic, message.value, message.key, headers=list(message.headers))
        done = due
        await asyncio.sleep(TICK_SECONDS)
    await producer.flush()


async def _read(consumer: AIOKafkaConsumer, seen: dict[bytes, float], wanted: int) -> None:
    while len(seen) < wanted:
        found = await consumer.getmany(timeout_ms=1000)
        now = time.monotonic()
        for records in found.values():
            for record in records:
                seen.setdefault(record.key, now)
