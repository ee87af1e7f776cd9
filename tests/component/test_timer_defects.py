"""A timer that fails: the others fire, it is put off for longer each time, and it fires once the defect is mended."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from sqlalchemy import text

from shared.bus.port import Bus
from shared.clock import VirtualClock
from shared.store.timers import Due
from shared.store.unit import UnitOfWork
from tests.support.running import ADetector, Rig, at_work, eventually, prepare_topics
from tests.support.stories import START, Order, hours

DUE = START + hours(36)


class Faulty(ADetector):
    """Fails on the timers of orders whose id holds a word, in its own code or in the database's, until it is mended."""

    def __init__(self, in_database: bool = False) -> None:
        super().__init__()
        self.in_database = in_database
        self.mended = False

    async def wake(self, unit: UnitOfWork, due: Sequence[Due]) -> None:
        await super().wake(unit, due)
        if not self.mended and any("broken" in key for key, _ in due):
            if self.in_database:
                await unit.connection.execute(text("SELECT 1 / 0"))
            raise KeyError("a defect")


async def put_off(rig: Rig) -> dict[str, datetime]:
    rows = await rig.rows("SELECT key, due_at FROM detector.timers WHERE key LIKE '%broken%'")
    return {row.key: row.due_at for row in rows}


async def opened(rig: Rig) -> int:
    [(count,)] = await rig.rows(
        "SELECT count(*) FROM detector.orders WHERE (convert_from(state, 'UTF8')::json->'incident'->>'open')::bool"
    )
    return int(count)


async def do(rig: Rig, sql: str) -> None:
    async with rig.database.transaction() as connection:
        await connection.execute(text(sql))


def failed(rig: Rig) -> float:
    return rig.worker.metrics.registry.get_sample_value("headsup_timers_failed_total", {"service": "detector"}) or 0.0


@pytest.mark.parametrize("in_database", [False, True])
async def test_the_others_fire_and_the_culprit_is_put_off(
    local_bus: Bus, database: str, unique: str, in_database: bool
) -> None:
    topic = f"orders-{unique}"
    await prepare_topics(local_bus, topic)
    names = [f"T{n:02}" for n in range(40)]
    names[0], names[17], names[18] = "T00-broken", "T17-broken", "T18-broken"
    clock, detector = VirtualClock(START + hours(6)), Faulty(in_database)
    async with at_work(local_bus, database, topic, clock=clock, handler=detector, sweep_keys=16) as rig:
        await rig.publish(Order(name).paid(promise=48) for name in names)
        await rig.settled()
        clock.advance_to(DUE)
        await rig.settled()
        assert await opened(rig) == 37
        assert await put_off(rig) == dict.fromkeys((n for n in names if "broken" in n), DUE + timedelta(minutes=1))
        assert failed(rig) == 3
        for number, minutes in enumerate((2, 4, 8, 16, 32, 60, 60), start=2):
            clock.advance_to(next(iter((await put_off(rig)).values())))
            await rig.settled()
            assert set((await put_off(rig)).values()) == {clock.now() + timedelta(minutes=minutes)}
            assert failed(rig) == 3 * number
        detector.mended = True
        clock.advance(timedelta(hours=1))
        await rig.settled()
        assert await opened(rig) == 40
        assert failed(rig) == 24


async def test_a_database_that_is_at_fault_itself_puts_nothing_off(local_bus: Bus, database: str, unique: str) -> None:
    """Without its table nobody's timer could fire: that is tried again, and no order is blamed."""
    topic = f"orders-{unique}"
    await prepare_topics(local_bus, topic)
    clock = VirtualClock(START + hours(6))
    async with at_work(local_bus, database, topic, clock=clock) as rig:
        await rig.publish(Order(f"T{n}").paid(promise=48) for n in range(5))
        await rig.settled()
        await do(rig, "ALTER TABLE detector.outbox RENAME TO away")
        clock.advance_to(DUE)

        async def tried() -> bool:
            rig.worker.nudge()
            found = rig.worker.metrics.registry.get_sample_value("headsup_retries_total", {"service": "detector"})
            return (found or 0) >= 3

        await eventually(tried, "the sweep did not fail")
        assert failed(rig) == 0
        await do(rig, "ALTER TABLE detector.away RENAME TO outbox")
        await rig.settled()
        assert await opened(rig) == 5
