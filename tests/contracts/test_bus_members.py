"""The bus's contract on groups: members that join, share, leave and die."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack

import pytest

from shared.bus.port import Consumer, Partition, Record
from shared.errors import Retry
from tests.contracts.bus_kit import (
    PATIENCE,
    Backend,
    Notes,
    eventually,
    holding,
    numbered,
    on_backends,
    read,
    read_one,
    running,
)


@pytest.fixture
async def backend(request: pytest.FixtureRequest, unique: str) -> AsyncIterator[Backend]:
    async with running(request, unique) as made:
        yield made


@on_backends(lambda features: features.many_members)
async def test_members_share_the_partitions_and_hand_them_over_in_order(backend: Backend) -> None:
    topic = await backend.topic(partitions=6)
    everything = {Partition(topic, n) for n in range(6)}
    first, second = Notes(name="first", slow=0.05), Notes(name="second", slow=0.05)
    second.story = first.story
    async with backend.member("g", topic, first) as one:
        await holding(one, 6)
        async with backend.member("g", topic, second) as two:
            await holding(two, 3)
            await holding(one, 3)
            assert one.assignment | two.assignment == everything
        await holding(one, 6)
    told = [(name, what) for name, what, _ in first.story]
    assert told[:2] == [("first", "assigned"), ("first", "revoked")]
    assert first.story[1][2] == everything
    # Whoever gets a partition gets it after the one before let go of it.
    owner: dict[Partition, str] = {}
    for name, what, partitions in first.story:
        for partition in partitions:
            if what == "assigned":
                assert owner.setdefault(partition, name) == name
            else:
                assert owner.pop(partition) == name
    assert owner == {}


@on_backends(lambda features: features.many_members)
async def test_rebalances_lose_nothing_and_repeat_nothing_where_listeners_remember(backend: Backend) -> None:
    """Listeners are slow and know the places, as a database does; fetches are under way all the time."""
    topic = await backend.topic(partitions=4)
    total = 6000
    shared = Applied(topic, 4)
    sending = asyncio.create_task(_send_slowly(backend, topic, total))
    async with AsyncExitStack() as stack:
        stayer = await stack.enter_async_context(Reader(backend, topic, shared))
        for _ in range(3):
            async with Reader(backend, topic, shared) as guest:
                await holding(guest.consumer, 2)
                await asyncio.sleep(0.3)
            await holding(stayer.consumer, 4)
        await sending
        await eventually(lambda: sum(map(len, shared.applied.values())) >= total, "all records")
    for partition, offsets in shared.applied.items():
        assert offsets == list(range(len(offsets))), partition
    assert sum(map(len, shared.applied.values())) == total
    assert shared.wrong == []


class Applied:
    """What a group has applied: the listener's memory. A batch counts only where it begins at the stored place and its
    member still is the owner, the way the worker's transaction does it."""

    def __init__(self, topic: str, partitions: int) -> None:
        self.applied: dict[Partition, list[int]] = {Partition(topic, n): [] for n in range(partitions)}
        self.owner: dict[Partition, object] = {}
        self.wrong: list[str] = []

    def apply(self, owner: object, partition: Partition, records: Iterable[Record]) -> None:
        if self.owner.get(partition) is not owner:
            return
        for record in records:
            if record.offset != len(self.applied[partition]):
                self.wrong.append(f"{partition} at {len(self.applied[partition])} got {record.offset}")
                return
            self.applied[partition].append(record.offset)


class Reader:
    """A member that fetches every partition in a task of its own and applies what it gets."""

    def __init__(self, backend: Backend, topic: str, shared: Applied) -> None:
        self.consumer: Consumer = backend.bus.consumer(f"g-{backend.unique}", [topic], self)
        self._shared = shared
        self._tasks: dict[Partition, asyncio.Task[None]] = {}

    async def __aenter__(self) -> "Reader":
        await self.consumer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.consumer.stop()

    async def assigned(self, partitions: Iterable[Partition]) -> dict[Partition, int | None]:
        await asyncio.sleep(0.02)
        starts: dict[Partition, int | None] = {}
        for partition in partitions:
            self._shared.owner[partition] = self
            starts[partition] = len(self._shared.applied[partition])
            self._tasks[partition] = asyncio.create_task(self._read(partition))
        await asyncio.sleep(0.02)
        return starts

    async def revoked(self, partitions: Iterable[Partition]) -> None:
        tasks = {self._tasks.pop(p) for p in partitions if p in self._tasks}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _read(self, partition: Partition) -> None:
        while True:
            try:
                records = await self.consumer.fetch(partition, 50, 0.2)
            except Retry:
                records = ()
            self._shared.apply(self, partition, records)
            await asyncio.sleep(0.002)


async def _send_slowly(backend: Backend, topic: str, count: int) -> None:
    producer = backend.bus.producer()
    await producer.start()
    for begin in range(0, count, 100):
        await producer.send(numbered(topic, range(begin, begin + 100), keys=97))
        await asyncio.sleep(0.05)
    await producer.stop()


@on_backends(lambda features: features.many_members)
async def test_a_pause_outlasts_a_rebalance(backend: Backend) -> None:
    """A member on another topic makes the group rebalance while the first keeps what it has."""
    topic, other_topic = await backend.topic(partitions=2), await backend.topic()
    here, there = Partition(topic, 0), Partition(topic, 1)
    await backend.send(*numbered(topic, range(40), keys=10))
    notes = Notes(starts={here: 1, there: 0})
    async with backend.member("g", topic, notes) as one:
        await holding(one, 2)
        one.pause([here])
        async with backend.member("g", other_topic):
            await eventually(lambda: len(notes.story) == 3, "a rebalance")
            await holding(one, 2)
            assert await one.fetch(here, 10, 0.5) == ()
            assert (await read_one(one, there, 1))[0].offset == 0
            one.resume([here])
            assert (await read_one(one, here, 1))[0].offset == 1


@on_backends(lambda features: not features.many_members)
async def test_a_second_member_is_refused_and_takes_over_after_the_first(backend: Backend) -> None:
    topic = await backend.topic(partitions=2)
    await backend.send(*numbered(topic, range(10), keys=5))
    for bus in (backend.bus, backend.another()):
        async with backend.member("g", topic) as one:
            with pytest.raises(Retry, match="one member"):
                async with backend.member("g", topic, bus=bus):
                    pass
            async with backend.member("another", topic, bus=bus) as other:
                await holding(other, 2)
            assert len(await read(one, 10)) == 10
        async with backend.member("g", topic, bus=bus) as two:
            assert len(await read(two, 10)) == 10


@on_backends()
async def test_after_a_crash_the_next_member_reads_again_what_was_not_committed(backend: Backend) -> None:
    topic = await backend.topic()
    group = f"g-{backend.unique}"
    await backend.send(*numbered(topic, range(20)))
    async with backend.member("g", topic) as consumer:
        await read(consumer, 5)
        await consumer.commit({Partition(topic, 0): 5})
    doomed = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.contracts.bus_member", backend.url, group, topic, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert doomed.stdout is not None
        async with asyncio.timeout(PATIENCE):
            seen = [await doomed.stdout.readline() for _ in range(15)]
    finally:
        doomed.kill()
        await doomed.wait()
    assert seen == [f"0 {n}\n".encode() for n in range(5, 20)]
    consumer = backend.bus.consumer(group, [topic], Notes())
    await _start_patiently(consumer)
    assert [record.offset for record in await read(consumer, 15)] == list(range(5, 20))
    await consumer.stop()
    consumer = backend.bus.consumer(group, [topic], Notes(starts={Partition(topic, 0): 12}))
    await _start_patiently(consumer)
    assert [record.offset for record in await read(consumer, 8)] == list(range(12, 20))
    await consumer.stop()


async def _start_patiently(consumer: Consumer) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await consumer.start()
            except Retry:
                await asyncio.sleep(0.1)
