"""The bus's contract on reading: pauses, seeks, cancellations, several partitions at once, the listener's errors."""

import asyncio
import random
import tracemalloc
from collections.abc import AsyncIterator

import pytest

from shared.bus.port import Message, Partition
from shared.errors import Halt, Retry
from tests.contracts.bus_kit import (
    Backend,
    Notes,
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
async def test_a_paused_partition_rests_while_others_go_on(backend: Backend) -> None:
    topic = await backend.topic(partitions=2)
    await backend.send(*numbered(topic, range(400), keys=20))
    async with backend.member("g", topic) as consumer:
        await holding(consumer, 2)
        resting, busy = sorted(consumer.assignment)
        first = await read_one(consumer, resting, 5)
        consumer.pause([resting])
        ends = await consumer.bounds([resting, busy])
        assert len(await read_one(consumer, busy, ends[busy].end)) == ends[busy].end
        assert await consumer.fetch(resting, 10, 0.5) == ()
        assert consumer.position(resting) == 5
        consumer.resume([resting])
        rest = await read_one(consumer, resting, ends[resting].end - 5)
        assert [r.offset for r in first + rest] == list(range(ends[resting].end))


@on_backends()
async def test_a_pause_stops_a_fetch_that_is_waiting(backend: Backend) -> None:
    topic = await backend.topic()
    here = Partition(topic, 0)
    async with backend.member("g", topic) as consumer:
        await holding(consumer, 1)
        waiting = asyncio.create_task(consumer.fetch(here, 10, 2.0))
        await asyncio.sleep(0.1)
        consumer.pause([here])
        await backend.send(*numbered(topic, range(3)))
        assert await waiting == ()
        consumer.resume([here])
        assert values(await read_one(consumer, here, 3)) == [b"0", b"1", b"2"]


@on_backends()
async def test_a_seek_moves_the_next_fetch_and_empties_the_one_under_way(backend: Backend) -> None:
    topic = await backend.topic()
    here = Partition(topic, 0)
    await backend.send(*numbered(topic, range(10)))
    async with backend.member("g", topic) as consumer:
        await read(consumer, 10)
        assert consumer.position(here) == 10
        consumer.seek(here, 3)
        assert values(await read_one(consumer, here, 7)) == [str(n).encode() for n in range(3, 10)]
        waiting = asyncio.create_task(consumer.fetch(here, 10, 2.0))
        await asyncio.sleep(0.1)
        consumer.seek(here, 8)
        assert await waiting == ()
        assert values(await read_one(consumer, here, 2)) == [b"8", b"9"]
        consumer.seek(Partition("elsewhere", 0), 5)
        assert consumer.position(Partition("elsewhere", 0)) is None


@on_backends()
async def test_cancelled_fetches_lose_nothing(backend: Backend) -> None:
    topic = await backend.topic()
    here = Partition(topic, 0)
    dice = random.Random(1)
    found: list[int] = []
    async with backend.member("g", topic) as consumer:
        await holding(consumer, 1)
        sending = asyncio.create_task(_trickle(backend, topic, 1000))
        async with asyncio.timeout(60):
            while len(found) < 1000:
                fetching = asyncio.create_task(consumer.fetch(here, 7, 1.0))
                await asyncio.wait({fetching}, timeout=dice.choice((0, 0.0005, 0.002, 0.05)))
                fetching.cancel()
                try:
                    found += [record.offset for record in await fetching]
                except asyncio.CancelledError:
                    continue
        await sending
    assert found == list(range(1000))


async def _trickle(backend: Backend, topic: str, count: int) -> None:
    producer = backend.bus.producer()
    await producer.start()
    for begin in range(0, count, 50):
        await producer.send(numbered(topic, range(begin, begin + 50)))
        await asyncio.sleep(0.01)
    await producer.stop()


@on_backends()
async def test_partitions_are_fetched_at_the_same_time(backend: Backend) -> None:
    """One that waits keeps no other waiting, and what is written wakes who waits."""
    topic = await backend.topic(partitions=6)
    async with backend.member("g", topic) as consumer:
        await holding(consumer, 6)
        waiting = {p: asyncio.create_task(consumer.fetch(p, 10, 30.0)) for p in sorted(consumer.assignment)}
        await asyncio.sleep(0.2)
        await backend.send(Message(topic, b"k", b"v"))
        done, pending = await asyncio.wait(waiting.values(), timeout=30, return_when=asyncio.FIRST_COMPLETED)
        assert [values(task.result()) for task in done] == [[b"v"]]
        assert len(pending) == 5
        for task in pending:
            task.cancel()
        await asyncio.wait(pending)


@on_backends()
async def test_what_another_process_writes_wakes_a_waiting_fetch(backend: Backend) -> None:
    topic = await backend.topic()
    elsewhere = backend.another().producer()
    await elsewhere.start()
    async with backend.member("g", topic) as consumer:
        await holding(consumer, 1)
        waiting = asyncio.create_task(consumer.fetch(Partition(topic, 0), 10, 30.0))
        await asyncio.sleep(0.2)
        await elsewhere.send([Message(topic, b"k", b"v")])
        assert values(await waiting) == [b"v"]
    await elsewhere.stop()


@on_backends()
async def test_an_unread_partition_holds_up_nothing_and_fills_no_memory(backend: Backend) -> None:
    """Longer than a session lasts, too: the member stays one."""
    topic = await backend.topic(partitions=2)
    admin = backend.bus.admin()
    keys: dict[int, bytes] = {}
    for n in range(200):
        await backend.send(Message(topic, key := f"probe-{n}".encode(), b""))
        ends = await admin.bounds([Partition(topic, 0), Partition(topic, 1)])
        for number in (0, 1):
            if ends[Partition(topic, number)].end and number not in keys and not (number == 1 and key in keys.values()):
                keys[number] = key
        if len(keys) == 2:
            break
    await admin.close()
    dice = random.Random(2)
    for _ in range(4):
        await backend.send(*(Message(topic, keys[0], dice.randbytes(900_000)) for _ in range(12)))
    small = [Message(topic, keys[1], str(n).encode()) for n in range(500)]
    notes = Notes()
    tracemalloc.start()
    try:
        async with backend.member("g", topic, notes) as consumer:
            await holding(consumer, 2)
            for n in range(0, 500, 10):
                await backend.send(*small[n : n + 10])
                await read_one(consumer, Partition(topic, 1), 10)
                await asyncio.sleep(0.08)
            held, _ = tracemalloc.get_traced_memory()
            assert held < 12_000_000
            assert [what for _, what, _ in notes.story] == ["assigned"]
            assert len(await read_one(consumer, Partition(topic, 0), 49)) == 49
    finally:
        tracemalloc.stop()


@on_backends()
async def test_a_listener_that_cannot_say_is_asked_again(backend: Backend) -> None:
    topic = await backend.topic()
    here = Partition(topic, 0)
    await backend.send(*numbered(topic, range(3)))
    notes = Notes(starts={here: 1}, fails=[Retry("the database is away"), RuntimeError("a defect"), Retry("again")])
    async with backend.member("g", topic, notes) as consumer:
        assert values(await read(consumer, 2)) == [b"1", b"2"]
    assert notes.fails == []


@on_backends()
async def test_a_listener_that_halts_keeps_its_partition_until_a_seek(backend: Backend) -> None:
    topic = await backend.topic()
    here = Partition(topic, 0)
    await backend.send(*numbered(topic, range(3)))
    async with backend.member("g", topic, Notes(fails=[Halt("data were lost")])) as consumer:
        for _ in range(2):
            with pytest.raises(Halt, match="data were lost"):
                await fetch_until_raised(consumer, here)
        consumer.seek(here, 2)
        assert values(await read_one(consumer, here, 1)) == [b"2"]


@on_backends()
async def test_stopping_twice_and_fetching_after_it(backend: Backend) -> None:
    topic = await backend.topic()
    notes = Notes()
    async with backend.member("g", topic, notes) as consumer:
        await holding(consumer, 1)
        waiting = asyncio.create_task(consumer.fetch(Partition(topic, 0), 10, 30.0))
        await asyncio.sleep(0.1)
        await consumer.stop()
        await consumer.stop()
        async with asyncio.timeout(30):
            assert await waiting == ()
            with pytest.raises(Retry):
                await consumer.fetch(Partition(topic, 0), 10, 1.0)
        assert consumer.assignment == frozenset()
    assert [what for _, what, _ in notes.story] == ["assigned", "revoked"]
    producer = backend.bus.producer()
    await producer.start()
    await producer.stop()
    await producer.stop()
    with pytest.raises(Retry):
        await producer.send(numbered(topic, range(1)))


@on_backends()
async def test_who_fetches_what_is_not_ours_lets_others_run(backend: Backend) -> None:
    """A reader that learns late of its loss asks again and again; its answers must not keep the loop to themselves."""
    topic = await backend.topic()
    lost, turns = Partition(topic, 1), 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with backend.member("g", topic) as consumer:
        await holding(consumer, 1)
        running = asyncio.create_task(others())
        for timeout in (0.0, 0.01, 10.0):
            before = turns
            for _ in range(5):
                assert await consumer.fetch(lost, 10, timeout) == ()
            assert turns > before
        running.cancel()
