"""The table "bad input", row by row, from the log to the database, on both buses.

Every row has good neighbours before and behind it on the same partition: they are applied, whatever lies between.
"""

import asyncio
import json
import os
import random
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from shared.bus import connect
from shared.bus.port import Bus, Message, Partition
from shared.clock import VirtualClock
from shared.errors import Reject
from shared.events.envelope import Event, encode_structured, event, to_message
from shared.events.topics import DEAD_LETTERS
from shared.store import deadletters, offsets
from tests.support.kafka import KafkaServer
from tests.support.running import SEALER, Rig, at_work, eventually, prepare_topics, read_topic
from tests.support.stories import PHONE, START, Order, hours

STRUCTURED = (("content-type", b"application/cloudevents+json"),)


@pytest.fixture
async def rig(either_bus: Bus, database: str, unique: str) -> AsyncIterator[Rig]:
    topic = f"orders-{unique}"
    await prepare_topics(either_bus, topic, partitions=1)
    async with at_work(either_bus, database, topic, clock=VirtualClock(START + hours(6))) as rig:
        yield rig


async def letters(rig: Rig) -> list[deadletters.DeadLetter]:
    async with rig.database.transaction() as connection:
        return sorted(await deadletters.listed(connection, "detector", limit=1000), key=lambda d: d.offset)


async def states(rig: Rig) -> dict[str, Any]:
    rows = await rig.rows("SELECT order_id, convert_from(state, 'UTF8')::json FROM detector.orders")
    return {row[0]: row[1] for row in rows}


def changed(paid: Event[Any], **data: Any) -> bytes:
    """The payment in structured mode with members of its data replaced; None leaves one out."""
    document = json.loads(encode_structured(paid))
    document["data"] = {k: v for k, v in {**document["data"], **data}.items() if v is not None}
    return json.dumps(document).encode()


def with_attributes(paid: Event[Any], **attributes: Any) -> bytes:
    document = {**json.loads(encode_structured(paid)), **attributes}
    return json.dumps({k: v for k, v in document.items() if v is not None}).encode()


BAD = Order("BAD").paid()
LINE = {"sku": "S", "name": "n", "variant": "v", "quantity": 1, "unit_price": "1"}
ROWS = {
    "not JSON": (b'{"specversion": "1.0", nonsense', ""),
    "not an event": (b'{"hello": "world"}', None),
    "not UTF-8": (b'{"specversion":"1.0","id":"\xff\xfe"}', ""),
    "unknown type": (with_attributes(BAD, type="order.teleported.v1"), "type"),
    "no id": (with_attributes(BAD, id=None), "id"),
    "time without offset": (with_attributes(BAD, time="2026-12-12T00:00:00"), "time"),
    "missing field": (changed(BAD, store_id=None), "store_id"),
    "missing field in a list": (changed(BAD, lines=[{"sku": "S", "name": "n", "quantity": 1}]), "lines.0.variant"),
    "wrong kind": (changed(BAD, paid_at="yesterday"), "paid_at"),
    "money as a number": (changed(BAD, total=129.0), "total"),
    "too many lines": (changed(BAD, lines=[LINE] * 5_000), "lines"),
    "10,000 lines": (changed(BAD, lines=[LINE] * 10_000), ""),
}


@pytest.mark.parametrize("row", ROWS)
async def test_what_can_never_be_applied_is_kept_with_its_place_and_reason(rig: Rig, row: str) -> None:
    body, field = ROWS[row]
    await rig.publish([Order("before").paid()])
    await rig.send(Message(rig.topics[0], b"BAD", body, STRUCTURED if field is not None else ()))
    await rig.publish([Order("behind").paid()])
    await rig.settled()
    assert set(await states(rig)) == {"before", "behind"}
    [letter] = await letters(rig)
    assert (letter.topic, letter.partition, letter.offset) == (rig.topics[0], 0, 1)
    assert letter.field == (field or "")
    assert letter.reason
    assert PHONE not in letter.reason
    async with rig.database.transaction() as connection:
        kept = await deadletters.fetch(connection, "detector", letter.id)
    assert kept is not None
    assert PHONE.encode() not in kept[1]
    assert deadletters.unseal_record(SEALER, letter.topic, kept[1]).value == body


async def test_the_same_event_again_also_a_month_later(rig: Rig, unique: str) -> None:
    order = Order(f"T-{unique}")
    await rig.publish([order.paid(), order.estimate(5, ship_at=80)])
    await rig.settled()
    before = await states(rig)
    assert isinstance(rig.clock, VirtualClock)
    await rig.publish([order.estimate(5, ship_at=80), order.paid()])
    await rig.settled()
    assert await states(rig) == before
    await rig.publish([order.shipped(7)])
    rig.clock.advance(timedelta(days=31))
    await rig.settled()
    before = await states(rig)
    emitted = await rig.incidents(order.order_id)
    await rig.publish([order.paid(), order.estimate(5, ship_at=80), order.shipped(7)])
    await rig.settled()
    assert await states(rig) == before
    assert len(await rig.incidents(order.order_id)) == len(emitted)


async def test_older_than_the_state_horizon(rig: Rig) -> None:
    await rig.publish([Order("old").paid(-181 * 24), Order("young").paid(-179 * 24)])
    await rig.settled()
    assert set(await states(rig)) == {"young"}
    [letter] = await letters(rig)
    assert (letter.field, letter.reason.split(":")[0]) == ("time", "too_old")


async def test_further_ahead_than_a_clock_may_be_wrong(rig: Rig) -> None:
    """The clock says 6:00. What is refused for that can be tried again once its time has come."""
    order = Order("T1")
    await rig.publish([order.paid(), Order("soon").paid(7), order.estimate(7.01, ship_at=40)])
    await rig.settled()
    assert set(await states(rig)) == {"T1", "soon"}
    [letter] = await letters(rig)
    assert (letter.offset, letter.field, letter.reason.split(":")[0]) == (2, "time", "too_new")
    assert isinstance(rig.clock, VirtualClock)
    rig.clock.advance(timedelta(minutes=1))
    async with rig.database.transaction() as connection:
        kept = await deadletters.fetch(connection, "detector", letter.id)
    assert kept is not None
    await rig.send(deadletters.unseal_record(SEALER, letter.topic, kept[1]))
    await rig.settled()
    assert len(await letters(rig)) == 1
    assert (await states(rig))["T1"] != (await states(rig))["soon"]


async def test_events_of_one_order_in_another_order(rig: Rig) -> None:
    def life(name: str) -> list[Event[Any]]:
        order = Order(name)
        return [order.paid(), order.estimate(2, ship_at=80), order.promise(3, ship_by=90), order.shipped(5)]

    shuffled = life("shuffled")
    random.Random(3).shuffle(shuffled)
    await rig.publish([*life("in-order"), *shuffled, *reversed(life("reversed"))])
    await rig.settled()
    found = {
        name: json.loads(json.dumps({k: v for k, v in state.items() if k != "incident"}).replace(name, "ORDER"))
        for name, state in (await states(rig)).items()
    }
    assert found["in-order"] == found["shuffled"] == found["reversed"]
    assert all(not (s["incident"] or {}).get("open") for s in (await states(rig)).values())


async def test_an_order_unknown_so_far(rig: Rig, unique: str) -> None:
    order = Order(f"T-{unique}")
    await rig.publish([order.estimate(5, ship_at=80)])
    await rig.settled()
    assert await rig.incidents(order.order_id) == []
    await rig.publish([order.paid()])
    await rig.settled()
    [state] = (await states(rig)).values()
    assert state["incident"]["open"]


@pytest.mark.parametrize(
    ("nickname", "kept"),
    [
        ("小\\u0000鱼", "小鱼"),
        ("小\\ud800鱼", "小鱼"),
        ("小\\udfff鱼", "小鱼"),
        ("小鱼🐟👨‍👩‍👧", "小鱼🐟👨‍👩‍👧"),
        ("\\ud83d\\udc1f", "🐟"),
        ("שלום مرحبا", "שלום مرحبا"),
        ("{{ customer.phone }}", "{{ customer.phone }}"),
    ],
)
async def test_nicknames_lose_what_cannot_be_kept_and_nothing_else(rig: Rig, nickname: str, kept: str) -> None:
    body = encode_structured(Order("T1").paid()).replace("小鱼".encode(), nickname.encode())
    await rig.send(Message(rig.topics[0], b"T1", body, STRUCTURED))
    await rig.publish([Order("T1").estimate(5, ship_at=80)])
    await rig.settled()
    [(payment,)] = await rig.rows("SELECT convert_from(payment, 'UTF8')::json FROM detector.orders")
    assert payment["customer"]["nickname"] == kept
    assert await letters(rig) == []


async def test_two_megabytes_are_refused_before_they_are_written(rig: Rig) -> None:
    with pytest.raises(Reject, match="bytes, more than"):
        await rig.send(Message(rig.topics[0], b"T1", b"x" * 2_000_000))


def binary(*headers: tuple[str, bytes]) -> tuple[tuple[str, bytes], ...]:
    """The headers of a payment in binary mode, with others beside them."""
    return (*to_message(BAD).headers, *headers)


UNTELLABLE = {
    "a header's name holds NUL": (b"BAD", binary(("ce_na\x00me", b"\xff")), "name"),
    "a header's name is huge": (b"BAD", binary(("ce_" + "n" * 300_000, b"\xff")), "n" * 199 + "…"),
    "the key is huge": (b"K" * 900_000, STRUCTURED, ""),
    "the key is larger than is told": (b"K" * 1025, STRUCTURED, ""),
}


@pytest.mark.parametrize("row", UNTELLABLE)
async def test_what_could_not_be_told_as_it_is_does_not_hold_up_its_partition(rig: Rig, row: str) -> None:
    key, headers, field = UNTELLABLE[row]
    body = b"nonsense" if headers == STRUCTURED else to_message(BAD).value
    await rig.publish([Order("before").paid()])
    await rig.send(Message(rig.topics[0], key, body, headers))
    await rig.publish([Order("behind").paid()])
    await rig.settled()
    assert set(await states(rig)) == {"before", "behind"}
    [letter] = await letters(rig)
    assert (letter.offset, letter.field) == (1, field)
    async with rig.database.transaction() as connection:
        kept = await deadletters.fetch(connection, "detector", letter.id)
    assert kept is not None
    again = deadletters.unseal_record(SEALER, letter.topic, kept[1])
    assert (again.key, again.value, again.headers) == (key, body, headers)
    told = {json.loads(r.value or b"")["id"]: r.key for r in await read_topic(rig.bus, DEAD_LETTERS)}
    assert told[str(letter.id)] == (key if len(key) <= 1024 else None)


@pytest.mark.requires("kcat")
async def test_a_header_whose_name_is_not_utf_8_halts_and_can_be_passed_over(
    kafka: KafkaServer, database: str, unique: str
) -> None:
    """The Kafka client cannot read such a record at all, so it cannot be kept: only a person may pass over it."""
    bus = connect(f"kafka://{kafka.bootstrap}")
    topic = f"orders-{unique}"
    await prepare_topics(bus, topic, partitions=1)
    async with at_work(bus, database, topic, clock=VirtualClock(START + hours(6))) as rig:
        await rig.publish([Order("before").paid()])
        await rig.settled()
        kcat = [
            "kcat",
            "-P",
            "-b",
            kafka.bootstrap,
            "-t",
            topic,
            "-p",
            "0",
            "-k",
            "BAD",
            "-H",
            os.fsdecode(b"na\xffme=x"),
        ]
        await asyncio.to_thread(subprocess.run, kcat, input=b"nonsense", check=True)
        await rig.publish([Order("behind").paid()])

        async def halted() -> str | None:
            async with rig.database.transaction() as connection:
                [position] = (await offsets.positions(connection, "detector")).values()
            return position.halted

        reason = await eventually(halted, "the partition did not halt")
        assert "whose name is not UTF-8" in reason
        assert set(await states(rig)) == {"before"}
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        await admin.start()
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(2)})
        await admin.close()
        async with rig.database.transaction() as connection:
            await offsets.resume(connection, "detector", Partition(topic, 0), restart_at=2)
        await rig.settled()
        assert set(await states(rig)) == {"before", "behind"}
    await bus.close()


async def test_a_storm_halts_the_partition_and_loses_nothing(rig: Rig) -> None:
    await rig.publish([Order("before").paid()])
    await rig.send(*(Message(rig.topics[0], b"x", b"nonsense %d" % n) for n in range(300)))
    await rig.publish([Order("behind").paid()])

    async def halted() -> bool:
        return "halted" in rig.worker.ready

    await eventually(halted, "the storm did not halt the partition")
    assert set(await states(rig)) == {"before"}
    assert len(await letters(rig)) == 50
    async with rig.database.transaction() as connection:
        [(where, position)] = (await offsets.positions(connection, "detector")).items()
        assert (position.next, bool(position.halted)) == (51, True)
        await offsets.resume(connection, "detector", where, accept_until=302)
    await rig.settled()
    assert len(await letters(rig)) == 300
    assert set(await states(rig)) == {"before", "behind"}
    assert rig.worker.ready == ""


async def test_old_and_new_schema_mixed(rig: Rig) -> None:
    """A producer that runs ahead sends fields that we do not know; one that lags leaves out the optional ones; and a
    type of the next version stands beside ours."""
    ahead = changed(Order("ahead").paid(), loyalty={"tier": "gold"}, ship_to={"city": "杭州", "geo": [1, 2]})
    behind = changed(Order("behind").paid(), promise_ship_by=None, ship_to=None, warehouse=None, kind=None)
    next_version = with_attributes(Order("next").paid(), type="order.paid.v2")
    await rig.send(*(Message(rig.topics[0], b"k", body, STRUCTURED) for body in (ahead, next_version, behind)))
    await rig.settled()
    assert set(await states(rig)) == {"ahead", "behind"}
    [letter] = await letters(rig)
    assert letter.field == "type"


async def test_one_identity_twice_with_another_body_leaves_the_first(rig: Rig) -> None:
    paid = Order("T1").paid()
    other = event(paid.data.model_copy(update={"currency": "USD"}), id=paid.id, source=paid.source, time=paid.time)
    await rig.publish([paid])
    await rig.settled()
    await rig.send(replace(to_message(other), topic=rig.topics[0]))
    await rig.settled()
    [(payment,)] = await rig.rows("SELECT convert_from(payment, 'UTF8')::json FROM detector.orders")
    assert payment["currency"] == "CNY"
