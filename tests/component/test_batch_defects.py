"""Who is to blame when a batch fails in the database: one input, the database, or nobody who could be set aside."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from shared.bus.port import Bus, Message
from shared.clock import VirtualClock
from shared.errors import Retry
from shared.events.envelope import Event, to_message
from shared.store import deadletters, offsets
from shared.store.unit import UnitOfWork
from tests.support.running import ADetector, Rig, at_work, eventually, prepare_topics
from tests.support.stories import START, Order, hours

NOW = START + hours(6)


class Asking(ADetector):
    """Sends the database a statement of the test's choice for each order whose id holds a word."""

    def __init__(self, statement: str, value: Any = None) -> None:
        super().__init__()
        self._statement = statement
        self._value = value

    async def apply(self, unit: UnitOfWork, events: Sequence[Event[Any]]) -> None:
        await super().apply(unit, events)
        if any("broken" in e.data.order_id for e in events):
            await unit.connection.execute(text(self._statement), {} if self._value is None else {"value": self._value})


class Stumbling(ADetector):
    """Fails for want of a dependency so many times, each time after everything else was done."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    async def apply(self, unit: UnitOfWork, events: Sequence[Event[Any]]) -> None:
        await super().apply(unit, events)
        if self.times > 0:
            self.times -= 1
            raise Retry("away")


async def letters(rig: Rig) -> Sequence[deadletters.DeadLetter]:
    async with rig.database.transaction() as connection:
        return await deadletters.listed(connection, "detector", limit=1000)


async def orders(rig: Rig) -> int:
    [(count,)] = await rig.rows("SELECT count(*) FROM detector.orders")
    return int(count)


async def do(rig: Rig, sql: str) -> None:
    async with rig.database.transaction() as connection:
        await connection.execute(text(sql))


def retries(rig: Rig) -> float:
    return rig.worker.metrics.registry.get_sample_value("headsup_retries_total", {"service": "detector"}) or 0.0


@pytest.mark.parametrize(
    ("asking", "reason"),
    [
        (Asking("SELECT CAST('13812345678x' AS int)"), "DBAPIError, SQLSTATE 22003"),
        (Asking("INSERT INTO detector.offsets VALUES ('13812345678', NULL)"), "IntegrityError, SQLSTATE 23502"),
        (Asking("SELECT CAST(:value AS text)", "13812345678\ud800"), "DBAPIError, SQLSTATE 22000"),
        (Asking("SELECT CAST(:value AS int)", 13812345678), "DBAPIError, SQLSTATE 22000"),
    ],
)
async def test_data_that_the_database_refuses_is_one_inputs_fault(
    local_bus: Bus, database: str, unique: str, asking: Asking, reason: str
) -> None:
    topic = f"orders-{unique}"
    await prepare_topics(local_bus, topic, partitions=1)
    names = [f"T{n}" for n in range(20)]
    names[7] = "broken"
    async with at_work(local_bus, database, topic, clock=VirtualClock(NOW), handler=asking) as rig:
        with capture_logs() as said:
            await rig.publish(Order(name).paid() for name in names)
            await rig.settled()
        [letter] = await letters(rig)
        assert (letter.offset, letter.reason) == (7, f"the detector failed on it ({reason})")
        assert await orders(rig) == 19
    assert {"batch_halved", "handler_failed", "dead_letter"} <= {line["event"] for line in said}
    assert "13812345678" not in str(said)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM detector.missing",
        "SELECT pg_read_file('/')",
        "DO $$ BEGIN RAISE 'no' USING ERRCODE = 'XX001'; END $$",
    ],
)
async def test_what_the_database_says_about_itself_is_nobodys_fault(
    local_bus: Bus, database: str, unique: str, statement: str
) -> None:
    """It is tried again, aloud, until somebody has mended it: never a dead letter."""
    topic = f"orders-{unique}"
    await prepare_topics(local_bus, topic, partitions=1)
    handler = Asking(statement)
    async with at_work(local_bus, database, topic, clock=VirtualClock(NOW), handler=handler) as rig:
        with capture_logs() as said:
            await rig.publish(Order(f"broken-{n}").paid() for n in range(5))

            async def tried() -> bool:
                return retries(rig) >= 3

            await eventually(tried, "it was not tried again")
        loud = [line for line in said if line["event"] == "partition_retries" and line["log_level"] == "error"]
        assert loud
        assert all("SQLSTATE" in line["reason"] for line in loud)
        assert (await letters(rig), await orders(rig)) == ([], 0)
        assert rig.worker.ready == ""
        handler._statement = "SELECT 1"
        await rig.settled()
        assert (await letters(rig), await orders(rig)) == ([], 5)


async def test_what_can_neither_be_applied_nor_kept_halts(local_bus: Bus, database: str, unique: str) -> None:
    topic = f"orders-{unique}"
    await prepare_topics(local_bus, topic, partitions=1)
    async with at_work(local_bus, database, topic, clock=VirtualClock(NOW)) as rig:
        await do(rig, 'ALTER TABLE detector.dead_letters ADD CONSTRAINT no CHECK ("offset" <> 1)')
        await rig.publish([Order("before").paid()])
        await rig.send(Message(topic, b"x", b"nonsense"))
        await rig.publish([Order("behind").paid()])

        async def halted() -> bool:
            return "halted" in rig.worker.ready

        await eventually(halted, "the partition did not halt")
        async with rig.database.transaction() as connection:
            [(where, position)] = (await offsets.positions(connection, "detector")).items()
        assert "neither be applied nor kept as a dead letter (IntegrityError, SQLSTATE 23514)" in (
            position.halted or ""
        )
        await do(rig, "ALTER TABLE detector.dead_letters DROP CONSTRAINT no")
        async with rig.database.transaction() as connection:
            await offsets.resume(connection, "detector", where)
        await rig.settled()
        assert [letter.offset for letter in await letters(rig)] == [1]
        assert await orders(rig) == 2


async def test_a_batch_that_is_done_again_counts_once_towards_a_storm(
    local_bus: Bus, database: str, unique: str
) -> None:
    """Thirty bad records in a row are no storm, however often the database fails behind them."""
    topic = f"orders-{unique}"
    await prepare_topics(local_bus, topic, partitions=1)
    handler = Stumbling(3)
    await _send(local_bus, topic, 30)
    async with at_work(local_bus, database, topic, clock=VirtualClock(NOW), handler=handler) as rig:
        await rig.settled()
        assert handler.times == 0
        assert len(await letters(rig)) == 30
        assert rig.worker.ready == ""


async def _send(bus: Bus, topic: str, bad: int) -> None:
    """An order behind bad records, in one batch."""
    producer = bus.producer()
    await producer.start()
    good = replace(to_message(Order("good").paid()), topic=topic)
    await producer.send([*(Message(topic, b"x", b"nonsense") for _ in range(bad)), good])
    await producer.stop()
