"""Cases 2, 3, 4 and 30: members that freeze, share, are slow and race; real processes where it takes processes."""

import asyncio
import signal
from typing import Any

from tests.faults.fleet import Fleet, Member, a_fleet
from tests.faults.invariants import (
    applied_to_the_end,
    as_the_oracle_says,
    offsets_only_rose,
    open_orders,
    states_of,
    told_of,
)
from tests.faults.lives import LATER, READ_AT, Story, a_story
from tests.support.kafka import KafkaServer
from tests.support.running import eventually
from tests.support.stories import Order

PATIENT: dict[str, Any] = {"session_ms": 6000, "relay_idle_seconds": 5.0}


async def as_it_should_be(fleet: Fleet, story: Story) -> None:
    await as_the_oracle_says(fleet.bus, fleet.database, story.events, READ_AT, LATER)
    await offsets_only_rose(fleet.database)
    await applied_to_the_end(fleet.bus, fleet.database, fleet.spec.topics)


async def test_a_member_that_froze_in_its_transaction_is_refused_when_it_wakes(
    kafka: KafkaServer, database: str, unique: str
) -> None:
    """Case 2. It sleeps past the session time-out, holding its rows locked; another finishes its work meanwhile."""
    story = a_story(unique, orders=40)
    async with a_fleet(f"kafka://{kafka.bootstrap}", database, unique, **PATIENT) as fleet:
        await fleet.publish(story.messages(fleet.spec.topics))
        point = "BatchRunner._transaction: before commit"
        zombie = await fleet.start(point=point, nth=2, deadly=int(signal.SIGSTOP))
        await zombie.reached(point)
        heir = await fleet.start()
        await fleet.finished()
        before = await states_of(fleet.database)
        zombie.signal(signal.SIGCONT)
        await fleet.clock(LATER)
        await eventually(lambda: _says(zombie, "partition_retries", "ownership_lost"), "the zombie noticed nothing")
        await fleet.finished()
        assert before.keys() == (await states_of(fleet.database)).keys()
        await as_it_should_be(fleet, story)
        assert [await m.end() for m in (zombie, heir)] == [0, 0]


async def _says(member: Member, *words: str) -> bool:
    return any(word in member.log() for word in words)


async def test_a_member_that_froze_between_transactions_is_shut_out_by_its_epoch(
    kafka: KafkaServer, database: str, unique: str
) -> None:
    """Case 2, without a lock held: it froze with fetched records in its hands. What it then tries meets an epoch that
    another has raised."""
    story = a_story(unique, orders=40)
    async with a_fleet(f"kafka://{kafka.bootstrap}", database, unique, **PATIENT) as fleet:
        await fleet.publish(story.messages(fleet.spec.topics))
        point = "PartitionLoop._step: after fetch"
        zombie = await fleet.start(point=point, nth=2, deadly=int(signal.SIGSTOP))
        await zombie.reached(point)
        heir = await fleet.start()
        await fleet.finished()
        zombie.signal(signal.SIGCONT)
        await eventually(lambda: _says(zombie, "ownership_lost"), "the zombie noticed nothing")
        await fleet.clock(LATER)
        await fleet.finished()
        await as_it_should_be(fleet, story)
        assert [await m.end() for m in (zombie, heir)] == [0, 0]


async def test_a_rebalance_in_the_midst_of_batches(kafka: KafkaServer, database: str, unique: str) -> None:
    """Case 3. Members come and go, in order and not, while every batch takes a while."""
    story = a_story(unique, orders=120)
    slow = {"BatchRunner._transaction": 0.3}
    async with a_fleet(f"kafka://{kafka.bootstrap}", database, unique, partitions=3, slow=slow) as fleet:
        await fleet.publish(story.messages(fleet.spec.topics))
        stayer = await fleet.start()
        await eventually(lambda: _advanced(fleet, 1), "nothing was applied")
        guest = await fleet.start()
        await eventually(lambda: _owners(fleet, 2), "the guest got nothing")
        await asyncio.sleep(0.5)
        assert await guest.end() == 0
        another = await fleet.start()
        await eventually(lambda: _owners(fleet, 4), "the other got nothing")
        another.signal(signal.SIGKILL)
        await fleet.finished()
        await fleet.clock(LATER)
        await fleet.finished()
        await as_it_should_be(fleet, story)
        assert await stayer.end() == 0


async def _advanced(fleet: Fleet, batches: int) -> bool:
    return await _ask(fleet, f"SELECT count(*) >= {batches} FROM audit.moves WHERE next IS DISTINCT FROM was")


async def _owners(fleet: Fleet, epoch: int) -> bool:
    return await _ask(fleet, f"SELECT count(*) FILTER (WHERE epoch >= {epoch}) > 0 FROM detector.offsets")


async def _ask(fleet: Fleet, sql: str) -> bool:
    from sqlalchemy import text

    async with fleet.database.transaction() as connection:
        return bool(await connection.scalar(text(sql)))


async def test_the_first_batch_after_an_assignment_is_from_the_stored_position(
    kafka: KafkaServer, database: str, unique: str
) -> None:
    """Case 4. The listener takes its time to say where to read on, longer than a fetch; again and again, and the
    group's own offsets are of no help: they are reset to nothing each time."""
    story = a_story(unique, orders=64)
    slow = {"Worker.assigned": 0.4, "PartitionLoop._claim": 0.4}
    messages = story.messages([f"orders-{unique}", f"tracking-{unique}"])
    async with a_fleet(f"kafka://{kafka.bootstrap}", database, unique, slow=slow) as fleet:
        for part in range(4):
            await fleet.publish(messages[part::4])
            member = await fleet.start(point="Worker._commit: before commit", nth=10_000)
            await fleet.finished()
            assert await member.end() == 0
            assert not await _says(member, "ownership_lost")
        last = await fleet.start()
        await fleet.clock(LATER)
        await fleet.finished()
        await as_it_should_be(fleet, story)
        assert await last.end() == 0


async def test_two_members_race_for_the_same_timers(kafka: KafkaServer, database: str, unique: str) -> None:
    """Case 30. Five hundred orders fall due at one instant; both members sweep, in small slices, while batches go on
    for the same orders. Each gets exactly one incident, and nobody waits for ever."""
    silent = [Order(f"S{n}-{unique}") for n in range(500)]
    story = Story(orders=[order.paid(promise=48) for order in silent])
    slow = {"Sweeper._slice": 0.02}
    async with a_fleet(
        f"kafka://{kafka.bootstrap}", database, unique, slow=slow, batch_records=100, sweep_keys=20
    ) as fleet:
        await fleet.publish(story.messages(fleet.spec.topics))
        pair = [await fleet.start(), await fleet.start()]
        await fleet.finished()
        await eventually(lambda: _owners(fleet, 2), "only one member is at work")
        await fleet.clock(LATER)
        packed = Story(orders=[order.estimate(5, ship_at=40) for order in silent])
        await fleet.publish(packed.messages(fleet.spec.topics))
        await fleet.finished()
        events = (*story.events, *packed.events)
        emitted = await as_the_oracle_says(fleet.bus, fleet.database, events, READ_AT, LATER)
        # Opened once each. The estimate read after that names the cause, which is news and no second incident.
        assert emitted.keys() == {o.order_id for o in silent}
        assert {told_of(told) for told in emitted.values()} <= {("opened",), ("opened", "updated")}
        assert open_orders(await states_of(fleet.database)) == {o.order_id for o in silent}
        await offsets_only_rose(fleet.database)
        assert [await m.end() for m in pair] == [0, 0]
