"""The bus's contract: records, places, sizes, figures. Every test runs on every backend that declares what it needs;
how reading goes on is in `test_bus_reading.py`; groups, deaths and restarts are in `test_bus_members.py`."""

import random
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from aiokafka import AIOKafkaProducer

from shared.bus.port import MAX_MESSAGE_BYTES, Bounds, Message, Partition, TopicSpec
from shared.errors import Halt, Reject, Retry
from tests.contracts.bus_kit import (
    Backend,
    Notes,
    eventually,
    fetch_until_raised,
    holding,
    numbered,
    on_backends,
    read,
    read_one,
    running,
    values,
)


@pytest.fixture
async def backend(request: pytest.FixtureRequest, unique: str) -> AsyncIterator[Backend]:
    async with running(request, unique) as made:
        yield made


@on_backends()
async def test_a_record_comes_back_whole(backend: Backend) -> None:
    topic = await backend.topic()
    headers = (("ce_id", b"1"), ("ce_id", b"2"), ("any", bytes(range(256))), ("", b""))
    sent = [
        Message(topic, "订单-1".encode(), b'{"n": 1}', headers),
        Message(topic, b"gone", None),
        Message(topic, None, b"\x00\xff no key"),
        Message(topic, b"", b""),
    ]
    await backend.send(*sent)
    async with backend.member("g", topic) as consumer:
        records = await read(consumer, 4)
    assert [(r.key, r.value, tuple(r.headers)) for r in records] == [(m.key, m.value, m.headers) for m in sent]
    assert [(r.topic, r.partition, r.offset) for r in records] == [(topic, 0, n) for n in range(4)]
    admin = backend.bus.admin()
    written = await admin.written_at(Partition(topic, 0), 0)
    await admin.close()
    assert written is not None
    assert datetime.fromtimestamp(records[0].timestamp / 1000, UTC) == written


@on_backends()
async def test_a_key_keeps_its_partition_and_its_order(backend: Backend) -> None:
    topic = await backend.topic(partitions=4)
    await backend.send(*numbered(topic, range(5000), keys=40))
    await backend.send(*numbered(topic, range(5000, 5400), keys=40))
    by_key = defaultdict(list)
    async with backend.member("g", topic) as consumer:
        for record in await read(consumer, 5400):
            by_key[record.key].append((record.partition, int(record.value or b"")))
    assert len({places[0][0] for places in by_key.values()}) > 1
    for n in range(40):
        places = by_key[f"key-{n}".encode()]
        assert len({partition for partition, _ in places}) == 1
        assert [number for _, number in places] == list(range(n, 5400, 40))


@on_backends()
async def test_every_group_reads_everything(backend: Backend) -> None:
    topics = [await backend.topic(partitions=2), await backend.topic()]
    await backend.send(*numbered(topics[0], range(20), keys=7), *numbered(topics[1], range(20, 30)))
    for group in ("detector", "dispatcher"):
        async with backend.member(group, topics) as consumer:
            assert sorted(int(v or b"") for v in values(await read(consumer, 30))) == list(range(30))


@on_backends()
async def test_nothing_to_send_is_fine(backend: Backend) -> None:
    topic = await backend.topic()
    await backend.send()
    async with backend.member("g", topic) as consumer:
        await holding(consumer, 1)
        assert await consumer.bounds([Partition(topic, 0)]) == {Partition(topic, 0): Bounds(0, 0)}
        assert await consumer.fetch(Partition(topic, 0), 10, 0.1) == ()


@on_backends()
async def test_large_messages_pass_and_too_large_ones_are_rejected_before_anything_is_written(backend: Backend) -> None:
    topic = await backend.topic()
    large = [random.Random(n).randbytes(900_000) for n in range(12)]
    await backend.send(*(Message(topic, b"k", value) for value in large))
    with pytest.raises(Reject) as refused:
        await backend.send(Message(topic, b"k", b"small"), Message(topic, b"k", bytes(MAX_MESSAGE_BYTES)))
    assert refused.value.field == "1"
    with pytest.raises(Reject):
        await backend.send(Message(topic, None, None))
    await backend.send(Message(topic, b"k", bytes(MAX_MESSAGE_BYTES - 1)))
    async with backend.member("g", topic) as consumer:
        assert values(await read(consumer, 13)) == [*large, bytes(MAX_MESSAGE_BYTES - 1)]


@on_backends()
async def test_a_topic_that_is_not_there_halts(backend: Backend) -> None:
    nowhere = f"nowhere-{backend.unique}"
    with pytest.raises(Halt, match=nowhere):
        await backend.send(Message(nowhere, b"k", b"v"))
    with pytest.raises(Halt, match=nowhere):
        async with backend.member("g", [await backend.topic(), nowhere]):
            pass
    admin = backend.bus.admin()
    for question in (admin.partitions([nowhere]), admin.bounds([Partition(nowhere, 0)])):
        with pytest.raises(Halt, match=nowhere):
            await question
    await admin.close()


@on_backends()
async def test_reading_begins_where_the_listener_says_else_at_the_commit_else_at_the_beginning(
    backend: Backend,
) -> None:
    topic = await backend.topic()
    here = Partition(topic, 0)
    await backend.send(*numbered(topic, range(10)))
    async with backend.member("g", topic) as consumer:
        assert values(await read(consumer, 10))[0] == b"0"
        await consumer.commit({here: 4})
    async with backend.member("g", topic) as consumer:
        assert values(await read(consumer, 6))[0] == b"4"
    async with backend.member("g", topic, Notes(starts={here: 7})) as consumer:
        assert values(await read(consumer, 3)) == [b"7", b"8", b"9"]
        assert await consumer.fetch(here, 10, 0.2) == ()


@on_backends()
@pytest.mark.parametrize("start", ["beyond", "below"])
async def test_a_position_that_the_log_does_not_have_halts(backend: Backend, start: str) -> None:
    topic = await backend.topic()
    here = Partition(topic, 0)
    await backend.send(*numbered(topic, range(10)))
    if start == "below":
        await backend.retire(here, 10)
        await backend.send(*numbered(topic, range(10, 13)))
    wrong, right = (14, 5) if start == "beyond" else (9, 10)
    async with backend.member("g", topic, Notes(starts={here: wrong})) as consumer:
        await holding(consumer, 1)
        for _ in range(2):
            with pytest.raises(Halt):
                await fetch_until_raised(consumer, here)
        consumer.seek(here, right)
        assert values(await read_one(consumer, here, 3)) == [str(right + n).encode() for n in range(3)]
        bounds = await consumer.bounds([here])
        assert bounds[here] == (Bounds(0, 10) if start == "beyond" else Bounds(10, 13))


@on_backends()
async def test_commits_are_seen_by_lag_tools_and_refused_for_what_is_not_ours(backend: Backend) -> None:
    topic = await backend.topic(partitions=2)
    group = f"g-{backend.unique}"
    admin = backend.bus.admin()
    await backend.send(*numbered(topic, range(10)))
    assert await admin.committed(group) == {}
    async with backend.member("g", topic) as consumer:
        await holding(consumer, 2)
        await consumer.commit({Partition(topic, 0): 3})
        assert await admin.committed(group) == {Partition(topic, 0): 3}
        await consumer.commit({Partition(topic, 0): 1, Partition(topic, 1): 0})
        await consumer.commit({})
        with pytest.raises(Retry):
            await consumer.commit({Partition("elsewhere", 0): 1})
    assert await admin.committed(group) == {Partition(topic, 0): 1, Partition(topic, 1): 0}
    await admin.close()


@on_backends()
async def test_bounds_and_times(backend: Backend) -> None:
    topic = await backend.topic()
    here = Partition(topic, 0)
    admin = backend.bus.admin()
    assert await admin.bounds([here]) == {here: Bounds(0, 0)}
    assert await admin.bounds([]) == {}
    assert await admin.written_at(here, 0) is None
    await backend.send(*numbered(topic, range(10)))
    await backend.retire(here, 10)
    assert await admin.bounds([here]) == {here: Bounds(10, 10)}
    assert await admin.written_at(here, 3) is None
    await backend.send(*numbered(topic, range(10, 12)))
    assert await admin.bounds([here]) == {here: Bounds(10, 12)}
    async with backend.member("g", topic) as consumer:
        times = [record.timestamp / 1000 for record in await read(consumer, 2)]
    for asked, found in ((0, 10), (10, 10), (11, 11)):
        written = await admin.written_at(here, asked)
        assert written == datetime.fromtimestamp(times[found - 10], UTC)
    assert await admin.written_at(here, 12) is None
    await admin.close()


@on_backends()
async def test_applying_topics_twice_changes_nothing_and_never_shrinks(backend: Backend) -> None:
    admin = backend.bus.admin()
    names = [f"applied-{n}-{backend.unique}" for n in range(2)]
    specs = [TopicSpec(names[0], 2), TopicSpec(names[1], 1, compacted=True)]
    assert len(await admin.apply(specs)) == 2
    assert await admin.apply(specs) == []
    [change] = await admin.apply([TopicSpec(names[0], 5), specs[1]])
    assert names[0] in change
    assert await admin.apply([TopicSpec(names[0], 3)]) == []
    wanted = [Partition(names[0], n) for n in range(5)] + [Partition(names[1], 0)]
    assert await admin.partitions(names[::-1]) == wanted
    await admin.close()
    await backend.send(*numbered(names[0], range(100), keys=50))
    async with backend.member("g", names) as consumer:
        assert len(await read(consumer, 100)) == 100


@on_backends(lambda features: not features.dense_offsets)
async def test_what_a_transaction_rolled_back_is_never_read_and_markers_do_not_hide_the_end(backend: Backend) -> None:
    topic = await backend.topic()
    here = Partition(topic, 0)
    servers = backend.url.removeprefix("kafka://")
    async with AIOKafkaProducer(bootstrap_servers=servers, transactional_id=backend.unique) as orders:
        async with orders.transaction():
            await orders.send(topic, b"kept")
        await orders.begin_transaction()
        await orders.send_and_wait(topic, b"rolled back")
        await orders.abort_transaction()
    async with backend.member("g", topic) as consumer:
        assert values(await read(consumer, 1)) == [b"kept"]
        assert await consumer.fetch(here, 10, 0.5) == ()
        end = (await consumer.bounds([here]))[here].end
        assert end == 4
        await eventually(lambda: consumer.position(here) == end, "the end of the log")
