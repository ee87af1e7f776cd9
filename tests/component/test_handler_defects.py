"""A handler that fails: the one input that brings it out is kept, its neighbours are applied, and a defect that strikes
everything halts the partition instead of emptying the topic into the dead letters."""

from collections.abc import Sequence
from typing import Any

import pytest

from shared.bus.port import Bus
from shared.clock import VirtualClock
from shared.errors import AskPerson
from shared.events.envelope import Event
from shared.store import deadletters, offsets
from shared.store.unit import UnitOfWork
from tests.support.running import ADetector, Rig, at_work, eventually, prepare_topics
from tests.support.stories import START, Order, hours


class Faulty(ADetector):
    """Fails on orders whose id holds a word."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    async def apply(self, unit: UnitOfWork, events: Sequence[Event[Any]]) -> None:
        if any("broken" in e.data.order_id for e in events):
            raise self._error
        await super().apply(unit, events)


async def letters(rig: Rig) -> Sequence[deadletters.DeadLetter]:
    async with rig.database.transaction() as connection:
        return await deadletters.listed(connection, "detector", limit=1000)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyError("13812345678"), "the detector failed on it (KeyError)"),
        (AskPerson("only a person can tell"), "only a person can tell"),
    ],
)
async def test_one_culprit_among_many(
    local_bus: Bus, database: str, unique: str, error: Exception, reason: str
) -> None:
    topic = f"orders-{unique}"
    await prepare_topics(local_bus, topic, partitions=1)
    names = [f"T{n}" for n in range(40)]
    names[17] = "broken"
    async with at_work(local_bus, database, topic, clock=VirtualClock(START + hours(6)), handler=Faulty(error)) as rig:
        await rig.publish(Order(name).paid() for name in names)
        await rig.settled()
        [letter] = await letters(rig)
        assert (letter.offset, letter.reason) == (17, reason)
        assert [row.order_id for row in await rig.rows("SELECT order_id FROM detector.orders")] != []
        [(count,)] = await rig.rows("SELECT count(*) FROM detector.orders")
        assert count == 39


async def test_a_defect_that_strikes_everything_halts(local_bus: Bus, database: str, unique: str) -> None:
    topic = f"orders-{unique}"
    await prepare_topics(local_bus, topic, partitions=1)
    faulty = Faulty(KeyError("x"))
    async with at_work(local_bus, database, topic, clock=VirtualClock(START + hours(6)), handler=faulty) as rig:
        await rig.publish(Order(f"broken-{n}").paid() for n in range(200))

        async def halted() -> bool:
            return "storm" in rig.worker.ready or "halted" in rig.worker.ready

        await eventually(halted, "the partition did not halt")
        assert len(await letters(rig)) == 50
        async with rig.database.transaction() as connection:
            [position] = (await offsets.positions(connection, "detector")).values()
        assert position.next == 50
        assert position.halted is not None
