"""Case 1: a crash (kill -9) at every point where the worker touches the world; invariants A and C."""

import ast
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.faults.fleet import a_fleet
from tests.faults.invariants import applied_to_the_end, as_the_oracle_says, letters_of, offsets_only_rose
from tests.faults.lives import LATER, READ_AT, a_story
from tests.faults.traps import POINTS, READS, STUBS, WRITES
from tests.support.kafka import KafkaServer

SHARED = Path(__file__).parents[2] / "shared"
SPOILT = 60
"""Enough in a row for a storm."""


def calls_in(path: Path, *names: str) -> dict[str, set[str]]:
    """Which functions of a module call these methods, by method: `Class.function`."""
    found: dict[str, set[str]] = {name: set() for name in names}
    for owner in ast.parse(path.read_text()).body:
        for function in ast.walk(owner):
            if not isinstance(function, ast.AsyncFunctionDef):
                continue
            site = f"{owner.name}.{function.name}" if isinstance(owner, ast.ClassDef) else function.name
            for call in ast.walk(function):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in found:
                    found[call.func.attr].add(site)
    return found


def test_no_commit_point_is_missing_from_the_list() -> None:
    """Whoever adds a transaction, a send or a commit to the worker adds it to POINTS, and with that a crash there."""
    found: dict[str, set[str]] = {"transaction": set(), "session": set(), "send": set(), "commit": set()}
    for path in (*(SHARED / "worker").glob("*.py"), SHARED / "store/outbox.py"):
        for name, sites in calls_in(path, *found).items():
            found[name] |= sites
    assert found["transaction"] == {*WRITES, *READS, STUBS}
    assert found["session"] == {"Relay._hold_session"}
    assert found["send"] == {"Relay._send_round"}
    assert found["commit"] == {"Worker._commit"}
    assert {point.partition(":")[0].split(" ")[0] for point in POINTS} == {
        *WRITES,
        "PartitionLoop._step",
        "Relay._send_round",
        "Worker._commit",
    }


async def test_empty_rows_that_a_crash_left_behind_change_nothing(
    kafka: KafkaServer, database: str, unique: str
) -> None:
    """A crash after `STUBS`, before the batch that they were for."""
    story = a_story(unique, orders=40)
    async with a_fleet(f"kafka://{kafka.bootstrap}", database, unique) as fleet:
        async with fleet.database.transaction() as connection:
            for order_id in {e.data.order_id for e in story.orders}:
                await connection.execute(
                    text("INSERT INTO detector.orders (order_id, state) VALUES (:id, '{}')"), {"id": order_id}
                )
        await fleet.publish(story.messages(fleet.spec.topics))
        member = await fleet.start()
        for instant in (READ_AT, LATER):
            await fleet.clock(instant)
            await fleet.finished()
        assert await member.end() == 0
        assert await as_the_oracle_says(fleet.bus, fleet.database, story.events, READ_AT, LATER)


@pytest.mark.parametrize("point", POINTS)
async def test_a_crash_loses_nothing_and_repeats_nothing(
    point: str, kafka: KafkaServer, database: str, unique: str
) -> None:
    """The second pass where there is one: then there is something to lose."""
    once = not point.startswith(("BatchRunner._transaction:", "Relay", "Worker._commit", "Worker._observe", "Sweeper"))
    story = a_story(unique, orders=40, spoilt=SPOILT)
    async with a_fleet(f"kafka://{kafka.bootstrap}", database, unique) as fleet:
        await fleet.publish(story.messages(fleet.spec.topics))
        victim = await fleet.start(point=point, nth=1 if once else 2)
        for instant in (READ_AT, LATER):
            if not victim.ended:
                await fleet.clock(instant)
                await fleet.finished_or_gone(victim)
        assert await victim.gone() == -9, f"it never came to {point}"
        assert victim.lines[-1] == f"at {point}"
        heir = await fleet.start()
        await fleet.finished()
        await fleet.clock(LATER)
        await fleet.finished()
        assert await heir.end() == 0
        emitted = await as_the_oracle_says(fleet.bus, fleet.database, story.events, READ_AT, LATER)
        assert emitted
        await offsets_only_rose(fleet.database)
        await applied_to_the_end(fleet.bus, fleet.database, fleet.spec.topics)
        assert len(await letters_of(fleet.database)) == SPOILT
