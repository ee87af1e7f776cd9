"""Where each input partition was read to: in the same database and transaction as what was read.

`next` is the next offset to apply, `epoch` counts the owners. A batch moves `next` only where both still are what its
owner believes (compare and set): a zombie, a wrong position after a rebalance, a batch done twice all end in
`LostOwnership` and a rollback. `applied_until` is the instant up to which the partition is known to be applied: its end
was observed at that instant, and everything before that end is in the database.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.bus.port import Partition
from shared.errors import LostOwnership


@dataclass(frozen=True, slots=True)
class Position:
    """One partition's row. `next` is None where nothing was ever applied; `halted` says why it stands still, if it
    does; dead letters below `accepted_until` do not count towards a storm (a person let them pass)."""

    next: int | None
    epoch: int
    halted: str | None = None
    accepted_until: int = 0
    applied_until: datetime | None = None


async def expect(connection: AsyncConnection, schema: str, partitions: Collection[Partition]) -> None:
    """Note that these partitions exist, so that the watermark waits for the ones that nobody owns yet."""
    await connection.execute(
        text(
            f"INSERT INTO {schema}.offsets (topic, partition)"
            " SELECT * FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS int[])) ON CONFLICT DO NOTHING"
        ),
        _columns(partitions),
    )


async def claim(
    connection: AsyncConnection, schema: str, partitions: Collection[Partition]
) -> Mapping[Partition, Position]:
    """Become the owner: raise the epoch of each, which shuts out every earlier owner's transactions."""
    rows = await connection.execute(
        text(
            f"INSERT INTO {schema}.offsets AS o (topic, partition, epoch)"
            " SELECT *, 1 FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS int[]))"
            " ON CONFLICT (topic, partition) DO UPDATE SET epoch = o.epoch + 1"
            " RETURNING topic, partition, next, epoch, halted, accepted_until, applied_until"
        ),
        _columns(partitions),
    )
    return {Partition(r.topic, r.partition): Position(*r[2:]) for r in rows}


async def advance(
    connection: AsyncConnection, schema: str, partition: Partition, position: Position, next_offset: int
) -> None:
    """Move on to `next_offset`, in the batch's transaction. Raises `LostOwnership` where the row is not as believed."""
    done = await connection.execute(
        text(
            f"UPDATE {schema}.offsets SET next = :next WHERE topic = :topic AND partition = :partition"
            " AND epoch = :epoch AND next IS NOT DISTINCT FROM CAST(:expected AS bigint)"
        ),
        {
            "next": next_offset,
            "topic": partition.topic,
            "partition": partition.partition,
            "epoch": position.epoch,
            "expected": position.next,
        },
    )
    if done.rowcount != 1:
        raise LostOwnership(f"{partition} was moved by another owner")


async def halt(connection: AsyncConnection, schema: str, partition: Partition, position: Position, reason: str) -> None:
    """Write down why the partition stands still; it stays so over restarts, until `resume`. Raises `LostOwnership`
    where another owns it by now: it is not ours to halt."""
    done = await connection.execute(
        text(
            f"UPDATE {schema}.offsets SET halted = :reason"
            " WHERE topic = :topic AND partition = :partition AND epoch = :epoch"
        ),
        {"reason": reason, "topic": partition.topic, "partition": partition.partition, "epoch": position.epoch},
    )
    if done.rowcount != 1:
        raise LostOwnership(f"{partition} was moved by another owner")


async def resume(
    connection: AsyncConnection,
    schema: str,
    partition: Partition,
    accept_until: int | None = None,
    restart_at: int | None = None,
) -> bool:
    """A person says go on. `accept_until`: dead letters below that offset pass without halting again. `restart_at`:
    read on from there, after data were lost. Raises the epoch, so the owner reads the row anew. False where the
    partition was not halted."""
    done = await connection.execute(
        text(
            f"UPDATE {schema}.offsets SET halted = NULL, accepted_until = coalesce(:accept, accepted_until),"
            " next = coalesce(CAST(:restart AS bigint), next), epoch = epoch + 1"
            " WHERE topic = :topic AND partition = :partition AND halted IS NOT NULL"
        ),
        {
            "accept": accept_until,
            "restart": restart_at,
            "topic": partition.topic,
            "partition": partition.partition,
        },
    )
    return bool(done.rowcount)


async def applied(
    connection: AsyncConnection, schema: str, epochs: Mapping[Partition, int], observed_at: datetime
) -> None:
    """These partitions' ends, observed at `observed_at`, are applied. Ignored for those owned by another by now."""
    columns = _columns(epochs)
    await connection.execute(
        text(
            f"UPDATE {schema}.offsets o SET applied_until = :at"
            " FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS int[]), CAST(:epochs AS bigint[]))"
            " AS u (topic, partition, epoch)"
            " WHERE o.topic = u.topic AND o.partition = u.partition AND o.epoch = u.epoch"
            " AND (o.applied_until IS NULL OR o.applied_until < :at)"
        ),
        {**columns, "epochs": list(epochs.values()), "at": observed_at},
    )


async def watermark(connection: AsyncConnection, schema: str, topics: Collection[str]) -> datetime | None:
    """The instant up to which **all** partitions of these topics are applied; None while one never was."""
    row = (
        await connection.execute(
            text(
                f"SELECT min(applied_until) AS at, count(*) = count(applied_until) AS whole FROM {schema}.offsets"
                " WHERE topic = ANY(CAST(:topics AS text[]))"
            ),
            {"topics": list(topics)},
        )
    ).one()
    return row.at if row.whole else None


async def positions(connection: AsyncConnection, schema: str) -> Mapping[Partition, Position]:
    """Every partition's row, for recovery, lag and doctor."""
    rows = await connection.execute(
        text(
            f"SELECT topic, partition, next, epoch, halted, accepted_until, applied_until FROM {schema}.offsets"
            " ORDER BY topic, partition"
        )
    )
    return {Partition(r.topic, r.partition): Position(*r[2:]) for r in rows}


def _columns(partitions: Collection[Partition]) -> dict[str, object]:
    return {"topics": [p.topic for p in partitions], "partitions": [p.partition for p in partitions]}
