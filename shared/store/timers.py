"""Due times: how absence is noticed.

A key has at most one due time: when its state must be looked at next. It is a projection of that state, written in the
same transaction. The cost of a sweep follows what is due, not what is open (an index on `due_at`).

Two rules keep it correct. A sweep **never waits**: it takes keys with `SKIP LOCKED`, because a batch locks the state
row first and its timer second, and a sweep the other way round. And a timer fires only up to the **watermark**: the
instant up to which every input partition has been applied (see offsets.py), so that after an outage the unread
`shipped` comes before the deadline that it satisfies.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


class Due(NamedTuple):
    key: str
    due_at: datetime


async def save(connection: AsyncConnection, schema: str, wakes: Mapping[str, datetime | None]) -> None:
    """Set, move or forget (None) the due times of these keys; their state rows are locked by the caller."""
    wanted = sorted((key, due) for key, due in wakes.items() if due is not None)
    if wanted:
        await connection.execute(
            text(
                f"INSERT INTO {schema}.timers AS t (key, due_at)"
                " SELECT * FROM unnest(CAST(:keys AS text[]), CAST(:due AS timestamptz[]))"
                " ON CONFLICT (key) DO UPDATE SET due_at = excluded.due_at WHERE t.due_at <> excluded.due_at"
            ),
            {"keys": [key for key, _ in wanted], "due": [due for _, due in wanted]},
        )
    gone = sorted(key for key, due in wakes.items() if due is None)
    if gone:
        await connection.execute(
            text(f"DELETE FROM {schema}.timers WHERE key = ANY(CAST(:keys AS text[]))"), {"keys": gone}
        )


async def claim(connection: AsyncConnection, schema: str, until: datetime, limit: int) -> list[Due]:
    """Lock up to `limit` timers due at or before `until`, earliest first, passing over those that others hold.

    The lock lasts as long as the transaction; the handler saves each key's next due time (or None) in it."""
    rows = await connection.execute(
        text(
            f"SELECT key, due_at FROM {schema}.timers WHERE due_at <= :until"
            " ORDER BY due_at, key LIMIT :limit FOR UPDATE SKIP LOCKED"
        ),
        {"until": until, "limit": limit},
    )
    return [Due(row.key, row.due_at) for row in rows]


async def earliest(connection: AsyncConnection, schema: str) -> datetime | None:
    """The next due time of all, for clocks that jump to it and for the overdue metric."""
    found: datetime | None = await connection.scalar(text(f"SELECT min(due_at) FROM {schema}.timers"))
    return found


async def overdue(connection: AsyncConnection, schema: str, now: datetime) -> int:
    """How many timers are past due; counted up to 10,000, for the metric must stay cheap in a wave."""
    found: int = await connection.scalar(
        text(f"SELECT count(*) FROM (SELECT 1 FROM {schema}.timers WHERE due_at <= :now LIMIT 10000) late"),
        {"now": now},
    )
    return found
