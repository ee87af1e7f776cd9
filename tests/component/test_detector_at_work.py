"""The detector on a real bus and a real database: what goes in, what comes out, on both buses."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from shared.bus import connect
from shared.bus.port import Bus, Message
from shared.clock import VirtualClock
from shared.events.envelope import Event, to_message
from shared.events.parcels import ParcelStatus
from shared.store import deadletters
from tests.support.kafka import KafkaServer
from tests.support.running import SEALER, Rig, at_work, prepare_topics, read_topic
from tests.support.stories import PHONE, START, Order, hours


@pytest.fixture
async def rig(either_bus: Bus, database: str, unique: str) -> AsyncIterator[Rig]:
    topics = (f"orders-{unique}", f"tracking-{unique}")
    await prepare_topics(either_bus, *topics)
    async with at_work(either_bus, database, *topics, clock=VirtualClock(START + hours(6)), ahead=hours(48)) as rig:
        yield rig


async def test_a_late_estimate_opens_one_incident(rig: Rig, unique: str) -> None:
    order = Order(f"T-{unique}")
    await rig.publish([order.paid(), order.estimate(5, ship_at=80), order.estimate(5, ship_at=80)])
    await rig.settled()
    [opened] = await rig.incidents(order.order_id)
    assert opened.type == "incident.opened.v1"
    assert opened.data.new_date == START + hours(80)
    assert opened.data.detected_at == START + hours(6)
    assert opened.data.facts.nickname == "小鱼"
    [contact] = opened.data.facts.contacts
    assert contact.lookup == SEALER.lookup("phone", PHONE)


async def test_no_phone_is_kept_or_emitted_in_the_clear(rig: Rig, unique: str) -> None:
    order = Order(f"T-{unique}")
    await rig.publish([order.paid(), order.estimate(5, ship_at=80)])
    await rig.settled()
    kept = await rig.rows("SELECT convert_from(payment, 'UTF8') || convert_from(state, 'UTF8') FROM detector.orders")
    assert kept
    assert PHONE not in str(kept)
    emitted = await read_topic(rig.bus, "headsup.incidents.v1")
    assert emitted
    assert PHONE not in str([r.value for r in emitted])


async def test_silence_is_noticed_when_its_time_comes(rig: Rig, unique: str) -> None:
    order = Order(f"T-{unique}")
    await rig.publish([order.paid(promise=48)])
    await rig.settled()
    assert await rig.incidents(order.order_id) == []
    assert isinstance(rig.clock, VirtualClock)
    rig.clock.advance_to(START + hours(36))
    await rig.settled()
    [opened] = await rig.incidents(order.order_id)
    assert opened.data.detected_at == START + hours(36)
    await rig.publish([order.shipped(37)])
    await rig.settled()
    resolved = (await rig.incidents(order.order_id))[-1]
    assert resolved.type == "incident.resolved.v1"
    rig.clock.advance_to(START + hours(400))
    await rig.settled()
    assert len(await rig.incidents(order.order_id)) == 2


async def _publish(bus: Bus, topic: str, *events: Event[Any]) -> None:
    """Before a worker is there to read it."""
    producer = bus.producer()
    await producer.start()
    await producer.send([replace(to_message(e), topic=topic) for e in events])
    await producer.stop()


def _others(count: int, unique: str) -> list[Event[Any]]:
    """Scans that concern no order: what lies in front of what matters."""
    return [Order("none").scan(20 + n / 10, named=False, tracking_no=f"YT{n}-{unique}") for n in range(count)]


async def test_catching_up_raises_no_false_alarm(either_bus: Bus, database: str, unique: str) -> None:
    """A topic with history, read long after: the orders left in time, and word of that is further behind than their
    payments, on the other topic. Only the one that never left is late, and is told once."""
    topics = (f"orders-{unique}", f"tracking-{unique}")
    await prepare_topics(either_bus, *topics, partitions=1)
    orders = [Order(f"T{n}-{unique}") for n in range(4)]
    stays = Order(f"S-{unique}")
    await _publish(either_bus, topics[0], *(o.paid(promise=48) for o in (*orders, stays)))
    await _publish(either_bus, topics[1], *_others(40, unique), *(o.shipped(30) for o in orders))
    async with at_work(either_bus, database, *topics, clock=VirtualClock(START + hours(100)), batch_records=1) as rig:
        await rig.settled()
        assert [await rig.incidents(o.order_id) for o in orders] == [[] for _ in orders]
        [opened] = await rig.incidents(stays.order_id)
        assert opened.type == "incident.opened.v1"
        assert opened.data.breached


async def test_an_outage_raises_no_false_alarm_and_ends_none(either_bus: Bus, database: str, unique: str) -> None:
    """The detector was down for days. What happened meanwhile comes one record at a time, and the last word last."""
    topics = (f"orders-{unique}", f"tracking-{unique}")
    await prepare_topics(either_bus, *topics, partitions=1)
    left, late = Order(f"L-{unique}"), Order(f"O-{unique}")
    await _publish(either_bus, topics[0], left.paid(promise=100), late.paid(promise=48))
    async with at_work(either_bus, database, *topics, clock=VirtualClock(START + hours(40))) as rig:
        await rig.settled()
        assert len(await rig.incidents(late.order_id)) == 1
    await _publish(either_bus, topics[0], left.promise(60, ship_by=95), late.scan(61, ParcelStatus.INFO_RECEIVED))
    await _publish(either_bus, topics[1], *_others(40, unique), left.shipped(90))
    async with at_work(either_bus, database, *topics, clock=VirtualClock(START + hours(150)), batch_records=1) as rig:
        await rig.settled()
        assert await rig.incidents(left.order_id) == []
        told = await rig.incidents(late.order_id)
        assert [e.type for e in told] == ["incident.opened.v1", "incident.updated.v1"]
        assert told[-1].data.breached


async def test_a_scan_that_names_no_order_waits_for_it(rig: Rig, unique: str) -> None:
    order = Order(f"T-{unique}")
    number = f"YT{unique}"
    await rig.publish([order.scan(20, named=False, tracking_no=number)], topic=1)
    await rig.settled()
    await rig.publish([order.paid(), order.shipped(19, tracking_no=number)])
    await rig.settled()
    [state] = await rig.rows("SELECT convert_from(state, 'UTF8')::json->'parcels' FROM detector.orders")
    assert number in state[0]
    assert state[0][number][1] is not None
    await rig.publish([order.scan(30, named=False, tracking_no=number)], topic=1)
    await rig.settled()
    [state] = await rig.rows("SELECT convert_from(state, 'UTF8')::json->'parcels' FROM detector.orders")
    assert state[0][number][1][0][2].endswith("scan-30-False")


async def test_bad_records_go_to_the_dead_letters_and_their_neighbours_are_applied(rig: Rig, unique: str) -> None:
    good, other = Order(f"T-{unique}"), Order(f"U-{unique}")
    await rig.publish([good.paid(), good.estimate(5, ship_at=80)])
    await rig.send(Message(rig.topics[0], b"x", b"{not json", (("ce_type", b"order.paid.v1"),)))
    await rig.publish([other.paid(), other.estimate(5, ship_at=80)])
    await rig.settled()
    assert len(await rig.incidents(good.order_id)) == 1
    assert len(await rig.incidents(other.order_id)) == 1
    async with rig.database.transaction() as connection:
        [letter] = await deadletters.listed(connection, "detector")
        found = await deadletters.fetch(connection, "detector", letter.id)
    assert letter.topic == rig.topics[0]
    assert letter.reason
    assert found is not None
    assert deadletters.unseal_record(SEALER, letter.topic, found[1]).value == b"{not json"


async def test_two_orders_events_on_two_partitions_meet(rig: Rig, unique: str) -> None:
    """Producers hash differently: one order's payment and estimate may lie on different partitions and topics."""
    orders = [Order(f"M{n}-{unique}") for n in range(200)]
    await rig.publish([o.paid() for o in orders])
    await rig.publish([o.estimate(5, ship_at=80) for o in orders], topic=1)
    await rig.settled()
    [(count,)] = await rig.rows(
        "SELECT count(*) FROM detector.orders WHERE (convert_from(state, 'UTF8')::json->'incident'->>'open')::bool"
    )
    assert count == 200


async def test_a_log_that_ends_in_a_transactions_marker_is_applied_to_its_end(
    kafka: KafkaServer, database: str, unique: str
) -> None:
    """Order systems may publish in transactions. The marker behind the last record must not hold up the timers."""
    bus = connect(f"kafka://{kafka.bootstrap}")
    topic = f"orders-{unique}"
    await prepare_topics(bus, topic)
    clock = VirtualClock(START + hours(6))
    async with at_work(bus, database, topic, clock=clock) as rig:
        order = Order(f"T-{unique}")
        message = to_message(order.paid(promise=48))
        shop = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=f"shop-{unique}")
        async with shop, shop.transaction():
            await shop.send_and_wait(topic, message.value, message.key, headers=list(message.headers))
        await rig.settled()
        clock.advance_to(START + hours(36))
        await rig.settled()
        [opened] = await rig.incidents(order.order_id)
        assert opened.data.detected_at == START + hours(36)
    await bus.close()
