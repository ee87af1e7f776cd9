"""The log in PostgreSQL, schema `bus`: every statement of the local bus.

A partition is a number (`log`) with a row that says where it begins and ends. Appending locks that row, so
offsets are dense and visible in order; rows are locked in the order of their numbers, so two appends never
deadlock.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.bus.port import Bounds, Headers, Message, Partition
from shared.clock import Clock
from shared.errors import Halt, HeadsupError, Retry
from shared.store.database import transient

CHANNEL: Final = "headsup_bus"
"""PostgreSQL's notifications of appends: a JSON object, log to its new end."""

_FETCH_BYTES: Final = 8 * 1024 * 1024

_APPEND = text(
    """
    WITH asked AS (SELECT * FROM unnest(CAST(:logs AS int[]), CAST(:counts AS bigint[])) AS u (log, n)),
    locked AS MATERIALIZED (
        SELECT log FROM bus.partitions WHERE log = ANY(CAST(:logs AS int[])) ORDER BY log FOR UPDATE
    )
    UPDATE bus.partitions p SET next = p.next + asked.n
    FROM locked JOIN asked USING (log) WHERE p.log = locked.log
    RETURNING p.log, p.next
    """
)
_WRITE = text(
    """
    WITH written AS (
        INSERT INTO bus.records (log, "offset", written_at, key, value, headers)
        SELECT log, "offset", :now, key, value, headers FROM unnest(
            CAST(:logs AS int[]), CAST(:offsets AS bigint[]),
            CAST(:keys AS bytea[]), CAST(:values AS bytea[]), CAST(:headers AS text[])
        ) AS u (log, "offset", key, value, headers)
    )
    SELECT pg_notify(:channel, :ends)
    """
)
# Offsets are dense, so a range of them is at most so many records; the running sum keeps large ones out of
# memory.
_READ = text(
    """
    SELECT "offset", written_at, key, value, headers FROM (
        SELECT r.*, sum(size) OVER (ORDER BY "offset") - size AS before
        FROM (
            SELECT *, coalesce(octet_length(value), 0) AS size FROM bus.records
            WHERE log = :log AND "offset" >= :begin AND "offset" < :begin + :count
        ) r
    ) s
    WHERE before < :bytes ORDER BY "offset"
    """
)
_COMMIT = text(
    """
    INSERT INTO bus.commits ("group", log, next)
    SELECT :group, log, next
    FROM unnest(CAST(:logs AS int[]), CAST(:nexts AS bigint[])) AS u (log, next) ORDER BY log
    ON CONFLICT ("group", log) DO UPDATE SET next = excluded.next
    """
)

T = TypeVar("T")


class LocalRecord(NamedTuple):
    """See `shared.bus.port.Record`."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Entry(NamedTuple):
    """A partition's row."""

    log: int
    first: int
    next: int


class Log:
    """What producers, consumers and admins do to the tables. Raises `Retry` where the database is away."""

    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        self.engine = engine
        self.clock = clock

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        async with told(), self.engine.begin() as connection:
            yield connection

    async def entries(self, topics: Collection[str]) -> dict[Partition, Entry]:
        """Every partition of those topics that exist, as they are now."""
        return await settled(self._entries(topics))

    async def _entries(self, topics: Collection[str]) -> dict[Partition, Entry]:
        async with self.begin() as connection:
            rows = await connection.execute(
                text(
                    "SELECT topic, partition, log, first, next FROM bus.partitions"
                    " WHERE topic = ANY(CAST(:topics AS text[])) ORDER BY topic, partition"
                ),
                {"topics": sorted(topics)},
            )
            return {Partition(r.topic, r.partition): Entry(r.log, r.first, r.next) for r in rows}

    async def known(self, topics: Collection[str]) -> dict[Partition, Entry]:
        """As `entries`; raises `Halt` when one of the topics does not exist."""
        there = await self.entries(topics)
        if missing := sorted(set(topics) - {partition.topic for partition in there}):
            raise Halt(f"these topics do not exist: {', '.join(missing)}; run `headsup topics apply`")
        return there

    async def bounds(self, partitions: Collection[Partition]) -> Mapping[Partition, Bounds]:
        there = await self.known({partition.topic for partition in partitions})
        if missing := sorted(set(partitions) - there.keys()):
            raise Halt(f"these partitions do not exist: {', '.join(map(str, missing))}")
        return {p: Bounds(there[p].first, there[p].next) for p in partitions}

    async def append(self, placed: Sequence[tuple[int, Message]]) -> dict[int, int]:
        """Write each message to the log beside it, all or none. Returns the new end of every log."""
        return await settled(self._append(placed))

    async def _append(self, placed: Sequence[tuple[int, Message]]) -> dict[int, int]:
        counts: dict[int, int] = {}
        for log, _ in placed:
            counts[log] = counts.get(log, 0) + 1
        async with self.begin() as connection:
            rows = await connection.execute(_APPEND, {"logs": list(counts), "counts": list(counts.values())})
            ends: dict[int, int] = {row.log: row.next for row in rows}
            at = {log: end - counts[log] for log, end in ends.items()}
            offsets = []
            for log, _ in placed:
                offsets.append(at[log])
                at[log] += 1
            await connection.execute(
                _WRITE,
                {
                    "now": self.clock.now(),
                    "logs": [log for log, _ in placed],
                    "offsets": offsets,
                    "keys": [m.key for _, m in placed],
                    "values": [m.value for _, m in placed],
                    "headers": [_pack(m.headers) for _, m in placed],
                    "channel": CHANNEL,
                    "ends": json.dumps(ends),
                },
            )
        return ends

    async def read(self, partition: Partition, log: int, begin: int, count: int) -> Sequence[LocalRecord]:
        """At most `count` records from `begin` on, and not much more than 8 MiB of them. May be empty
        although there are some by now; raises `Halt` where the log does not have `begin`."""
        return await settled(self._read(partition, log, begin, count))

    async def _read(self, partition: Partition, log: int, begin: int, count: int) -> Sequence[LocalRecord]:
        async with self.begin() as connection:
            asked = {"log": log, "begin": begin, "count": count, "bytes": _FETCH_BYTES}
            rows = (await connection.execute(_READ, asked)).all()
        if not rows or rows[0].offset != begin:
            first, end = (await self.bounds([partition]))[partition]
            if not first <= begin <= end:
                raise Halt(f"{partition} has the offsets {first} to {end}, not {begin}: records were lost")
            return ()
        topic, number = partition
        return [
            LocalRecord(topic, number, offset, round(at.timestamp() * 1000), key, value, _unpack(headers))
            for offset, at, key, value, headers in rows
        ]

    async def commit(self, group: str, offsets: Mapping[int, int]) -> None:
        await settled(self._commit(group, offsets))

    async def _commit(self, group: str, offsets: Mapping[int, int]) -> None:
        async with self.begin() as connection:
            await connection.execute(_COMMIT, {"group": group, "logs": list(offsets), "nexts": list(offsets.values())})

    async def committed(self, group: str) -> dict[Partition, int]:
        return await settled(self._committed(group))

    async def _committed(self, group: str) -> dict[Partition, int]:
        async with self.begin() as connection:
            rows = await connection.execute(
                text(
                    "SELECT p.topic, p.partition, c.next FROM bus.commits c JOIN bus.partitions p USING (log)"
                    ' WHERE c."group" = :group'
                ),
                {"group": group},
            )
            return {Partition(r.topic, r.partition): r.next for r in rows}

    async def written_at(self, log: int, offset: int) -> datetime | None:
        return await settled(self._written_at(log, offset))

    async def _written_at(self, log: int, offset: int) -> datetime | None:
        async with self.begin() as connection:
            at: datetime | None = await connection.scalar(
                text(
                    'SELECT written_at FROM bus.records WHERE log = :log AND "offset" >= :offset'
                    ' ORDER BY "offset" LIMIT 1'
                ),
                {"log": log, "offset": offset},
            )
            return at


@asynccontextmanager
async def told() -> AsyncIterator[None]:
    """Turns what passes by itself into `Retry`."""
    try:
        yield
    except HeadsupError:
        raise
    except Exception as error:
        if transient(error):
            raise Retry(f"the local bus's database did not answer: {type(error).__name__}") from error
        raise


async def settled(call: Coroutine[Any, Any, T]) -> T:
    """Runs a database call to its end even when the caller is cancelled: one that is cut off in the middle
    can leave a dirty connection in the pool. The engine's own time limit for statements bounds it."""
    task = asyncio.create_task(call)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()
        raise


def _pack(headers: Headers) -> str | None:
    """JSON in which a byte is the character of that number: header values may hold any byte, text columns may
    not."""
    return json.dumps([(name, value.decode("latin-1")) for name, value in headers]) if headers else None


def _unpack(packed: str | None) -> Headers:
    return tuple((name, value.encode("latin-1")) for name, value in json.loads(packed)) if packed else ()
