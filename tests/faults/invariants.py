"""Invariants A and C of a finished run, checked where the work was done: the database and the topic."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import text

from services.detector.rules.facts import OrderState
from shared.bus.port import Bus
from shared.events.envelope import Event, decode
from shared.events.incidents import Incident
from shared.events.topics import INCIDENTS
from shared.store import offsets
from shared.store.database import Database
from tests.faults.lives import Told, comparable, may_be_told, oracle
from tests.support.running import read_topic

_AUDIT = (
    "CREATE SCHEMA audit",
    "CREATE TABLE audit.moves (n bigserial, topic text, partition int, was bigint, next bigint,"
    " epoch_was bigint, epoch bigint)",
    "CREATE FUNCTION audit.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    " INSERT INTO audit.moves (topic, partition, was, next, epoch_was, epoch)"
    " VALUES (new.topic, new.partition, old.next, new.next, old.epoch, new.epoch); RETURN new; END $$",
    "CREATE TRIGGER note AFTER UPDATE ON detector.offsets FOR EACH ROW EXECUTE FUNCTION audit.note()",
)


async def audit(database: Database) -> None:
    """From here on every change of a stored offset that is committed is written down, in the row's own order."""
    async with database.transaction() as connection:
        if await connection.scalar(text("SELECT to_regclass('audit.moves')")):
            return
        for statement in _AUDIT:
            await connection.execute(text(statement))


async def offsets_only_rose(database: Database) -> None:
    """C, first half: `next` and `epoch` never went back, and each change began where the one before had ended."""
    async with database.transaction() as connection:
        moves = list(
            await connection.execute(
                text("SELECT topic, partition, was, next, epoch_was, epoch FROM audit.moves ORDER BY n")
            )
        )
    assert moves
    stands: dict[tuple[str, int], tuple[int | None, int]] = {}
    for topic, partition, was, now, epoch_was, epoch in moves:
        before = stands.get((topic, partition))
        assert before in (None, (was, epoch_was)), f"{topic}[{partition}] changed behind the audit's back"
        assert was is None or (now is not None and now >= was), f"{topic}[{partition}] went from {was} to {now}"
        assert epoch >= epoch_was
        stands[(topic, partition)] = (now, epoch)


async def applied_to_the_end(bus: Bus, database: Database, topics: Sequence[str]) -> None:
    """C, second half: what is stored is where the logs end. `as_the_oracle_says` shows that nothing was skipped."""
    admin = bus.admin()
    try:
        ends = {p: b.end for p, b in (await admin.bounds(await admin.partitions(topics))).items()}
    finally:
        await admin.close()
    async with database.transaction() as connection:
        stored = await offsets.positions(connection, "detector")
    assert {p: position.next or 0 for p, position in stored.items()} == ends
    assert [p for p, position in stored.items() if position.halted] == []


async def states_of(database: Database) -> dict[str, OrderState]:
    async with database.transaction() as connection:
        rows = await connection.execute(text("SELECT order_id, state FROM detector.orders"))
        return {order_id: msgspec.json.decode(state, type=OrderState) for order_id, state in rows}


async def as_the_oracle_says(
    bus: Bus, database: Database, events: Iterable[Event[Any]], *instants: datetime
) -> Mapping[str, list[Event[Incident]]]:
    """A: every order's facts and open incident are what the pure rules make of its history, and what the topic says
    about each order ends in just that. For the lives of `a_story` it is a sequence that is written down there, so that
    a false alarm is seen also where it was taken back. Returns what was emitted, by order, in the order of
    revisions."""
    wanted = oracle(events, *instants)
    found = await states_of(database)
    assert found.keys() == wanted.keys()
    for order_id, state in wanted.items():
        assert comparable(found[order_id]) == comparable(state), order_id
    emitted = await incidents_of(bus, found.keys())
    for order_id, state in found.items():
        told = emitted.get(order_id, [])
        assert [e.data.revision for e in told] == list(range(1, len(told) + 1)), order_id
        allowed = may_be_told(order_id, max(instants))
        assert allowed is None or told_of(told) in allowed, order_id
        if state.incident is None:
            assert told == [], order_id
            continue
        assert told[-1].data.revision == state.incident.revision
        assert (told[-1].type != "incident.resolved.v1") == state.incident.open
        if state.incident.open:
            kept = state.incident
            said = told[-1].data
            assert (said.new_date, said.old_date, said.detected_at) == (kept.new_date, kept.old_date, kept.detected_at)
    return emitted


def told_of(told: Iterable[Event[Any]]) -> Told:
    """A sequence of incident events in words: its types, and for what is resolved how it was."""
    return tuple(str(getattr(e.data, "how", "")) or e.type.split(".")[1] for e in told)


async def incidents_of(bus: Bus, order_ids: Iterable[str]) -> dict[str, list[Event[Incident]]]:
    """What the topic says about these orders, each event once; a repeat must be the same to the byte."""
    ours = set(order_ids)
    seen: dict[str, bytes | None] = {}
    emitted: dict[str, list[Event[Incident]]] = {}
    for record in await read_topic(bus, INCIDENTS):
        if (record.key or b"").decode() not in ours:
            continue
        event: Any = decode(record)
        if event.id in seen:
            assert seen[event.id] == record.value, f"{event.id} was said twice, differently"
            continue
        seen[event.id] = record.value
        emitted.setdefault(event.data.order_id, []).append(event)
    for told in emitted.values():
        told.sort(key=lambda e: e.data.revision)
    return emitted


async def letters_of(database: Database) -> list[dict[str, Any]]:
    async with database.transaction() as connection:
        rows = await connection.execute(
            text(
                'SELECT topic, partition, "offset", field, reason, sealed FROM detector.dead_letters'
                ' ORDER BY topic, partition, "offset"'
            )
        )
        return [dict(row._mapping) for row in rows]


def open_orders(states: Mapping[str, OrderState]) -> set[str]:
    return {order_id for order_id, state in states.items() if state.incident is not None and state.incident.open}
