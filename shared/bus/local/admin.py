"""Topics, offsets and times of the local log."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import text

from shared.bus.local.ends import Ends
from shared.bus.local.log import Log, settled
from shared.bus.port import Bounds, Partition, TopicSpec

_APPLYING = 0x686275731
"""The lock that makes two `apply` take turns."""

_TRIM = text(
    """
    WITH locked AS MATERIALIZED (
        SELECT next FROM bus.partitions WHERE log = :log FOR UPDATE
    ), cut AS MATERIALIZED (
        SELECT coalesce(
            (
                SELECT "offset" FROM bus.records WHERE log = :log AND written_at >= :limit
                ORDER BY "offset" LIMIT 1
            ),
            next
        ) AS first
        FROM locked
    ), gone AS (
        DELETE FROM bus.records r USING cut WHERE r.log = :log AND r."offset" < cut.first RETURNING 1
    ), moved AS (
        UPDATE bus.partitions p SET first = greatest(p.first, cut.first) FROM cut WHERE p.log = :log
    )
    SELECT count(*) FROM gone
    """
)


class LocalAdmin:
    """See `shared.bus.port.Admin`. `compacted` means here that records are kept for ever; nothing is thinned
    out."""

    def __init__(self, log: Log, ends: Ends) -> None:
        self._log = log
        self._ends = ends

    async def apply(self, topics: Sequence[TopicSpec]) -> Sequence[str]:
        return await settled(self._apply(topics))

    async def _apply(self, topics: Sequence[TopicSpec]) -> Sequence[str]:
        changes: list[str] = []
        async with self._log.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _APPLYING})
            for spec in topics:
                there = await connection.scalar(
                    text("SELECT count(*) FROM bus.partitions WHERE topic = :topic"), {"topic": spec.name}
                )
                if there >= spec.partitions:
                    continue
                await connection.execute(
                    text(
                        "INSERT INTO bus.topics (topic, compacted, retention_hours)"
                        " VALUES (:topic, :compacted, :hours) ON CONFLICT DO NOTHING"
                    ),
                    {"topic": spec.name, "compacted": spec.compacted, "hours": spec.retention_hours},
                )
                await connection.execute(
                    text(
                        "INSERT INTO bus.partitions (topic, partition)"
                        " SELECT :topic, n FROM generate_series(CAST(:there AS int), CAST(:last AS int)) AS n"
                    ),
                    {"topic": spec.name, "there": there, "last": spec.partitions - 1},
                )
                changes.append(
                    f"{spec.name}: {there} to {spec.partitions} partitions"
                    if there
                    else f"created {spec.name} with {spec.partitions} partitions"
                )
        self._ends.topics_changed += 1
        return changes

    async def partitions(self, topics: Collection[str]) -> Sequence[Partition]:
        return sorted(await self._log.known(topics))

    async def bounds(self, partitions: Collection[Partition]) -> Mapping[Partition, Bounds]:
        return await self._log.bounds(partitions)

    async def committed(self, group: str) -> Mapping[Partition, int]:
        return await self._log.committed(group)

    async def written_at(self, partition: Partition, offset: int) -> datetime | None:
        await self._log.bounds([partition])
        entry = (await self._log.known([partition.topic]))[partition]
        return await self._log.written_at(entry.log, offset)

    async def trim(self) -> int:
        """Delete what is older than its topic's retention, by the bus's clock, and return how many records
        that was.

        Compacted topics keep everything. Whoever still stood below finds `Halt`, as on Kafka. Call it about
        hourly."""
        return await settled(self._trim(self._log.clock.now()))

    async def _trim(self, now: datetime) -> int:
        deleted = 0
        async with self._log.begin() as connection:
            kept = await connection.execute(text("SELECT topic, retention_hours FROM bus.topics WHERE NOT compacted"))
            limits = {row.topic: now - timedelta(hours=row.retention_hours) for row in kept}
        for partition, entry in (await self._log.entries(limits)).items():
            async with self._log.begin() as connection:
                deleted += await connection.scalar(
                    _TRIM,
                    {"log": entry.log, "limit": limits[partition.topic]},
                )
        return deleted

    async def close(self) -> None:
        """The engine is the caller's."""
