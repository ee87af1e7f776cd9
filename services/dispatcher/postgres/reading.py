"""What people read: lists and single notices, opt-outs, and the sandbox's phone."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.dispatcher.postgres.ledger import COLUMNS, read_notice
from services.dispatcher.reading import Listed
from shared.paging import Cursor

_FILTERS: Final = ("order_id", "store_id", "incident_id", "purpose", "state")


class PostgresReading:
    async def notices(
        self,
        connection: AsyncConnection,
        filters: Mapping[str, str | None],
        stores: Collection[str] | None,
        cursor: Cursor | None,
        limit: int,
    ) -> Sequence[Listed]:
        only = {f"n.{name}": filters.get(name) for name in _FILTERS}
        where, values = _narrowed(only, stores, cursor, limit, ("n.came_at", "n.notice_id", "n.store_id"))
        rows = await connection.execute(
            text(
                f"SELECT {COLUMNS}, n.came_at FROM dispatcher.notices n WHERE {where}"
                " ORDER BY n.came_at DESC, n.notice_id DESC LIMIT :limit"
            ),
            values,
        )
        return [Listed(read_notice(row), row.came_at) for row in rows]

    async def notice(self, connection: AsyncConnection, notice_id: str) -> Listed | None:
        row = (
            await connection.execute(
                text(f"SELECT {COLUMNS}, n.came_at FROM dispatcher.notices n WHERE n.notice_id = :id"),
                {"id": notice_id},
            )
        ).one_or_none()
        return None if row is None else Listed(read_notice(row), row.came_at)

    async def opt_outs(
        self,
        connection: AsyncConnection,
        store_id: str | None,
        stores: Collection[str] | None,
        cursor: Cursor | None,
        limit: int,
    ) -> Sequence[Mapping[str, Any]]:
        only = {"store_id": store_id}
        where, values = _narrowed(only, stores, cursor, limit, ("at", "lookup", "store_id"))
        rows = await connection.execute(
            text(
                "SELECT store_id, lookup, at, channel, by_whom FROM dispatcher.opt_outs"
                f" WHERE {where} ORDER BY at DESC, lookup DESC LIMIT :limit"
            ),
            values,
        )
        return [dict(row._mapping) for row in rows]

    async def waves(
        self,
        connection: AsyncConnection,
        store_id: str | None,
        stores: Collection[str] | None,
        cursor: Cursor | None,
        limit: int,
    ) -> Sequence[Mapping[str, Any]]:
        only = {"w.store_id": store_id}
        where, values = _narrowed(only, stores, cursor, limit, ("w.started_at", "w.wave_id", "w.store_id"))
        rows = await connection.execute(
            text(
                "SELECT w.wave_id, w.store_id, w.scenario, w.words, w.started_at, w.released_at, w.sends,"
                " CASE WHEN w.released_at IS NULL THEN (SELECT count(*) FROM dispatcher.notices n"
                " WHERE n.is_open AND n.store_id = w.store_id AND n.scenario = w.scenario AND n.reason = 'wave')"
                f" ELSE 0 END AS held FROM dispatcher.waves w WHERE {where}"
                " ORDER BY w.started_at DESC, w.wave_id DESC LIMIT :limit"
            ),
            values,
        )
        return [dict(row._mapping) for row in rows]

    async def take_back(self, connection: AsyncConnection, store_id: str, lookup: str) -> bool:
        done = await connection.execute(
            text("DELETE FROM dispatcher.opt_outs WHERE store_id = :store AND lookup = :lookup"),
            {"store": store_id, "lookup": lookup},
        )
        return bool(done.rowcount)

    async def sandbox_messages(
        self,
        connection: AsyncConnection,
        only: Mapping[str, str | None],
        stores: Collection[str] | None,
        cursor: Cursor | None,
        limit: int,
    ) -> Sequence[Mapping[str, Any]]:
        wanted = {"n.order_id": only.get("order_id"), "m.message_id": only.get("message_id")}
        where, values = _narrowed(wanted, stores, cursor, limit, ("m.at", "m.message_id", "m.store_id"))
        rows = await connection.execute(
            text(
                "SELECT m.message_id, m.reference, m.store_id, m.provider, m.kind AS channel, m.recipient_end,"
                " m.signature, m.body AS text, m.media, m.at, n.order_id, n.notice_id, n.purpose"
                " FROM dispatcher.sandbox_messages m JOIN dispatcher.attempts a USING (reference)"
                f" JOIN dispatcher.notices n USING (notice_id) WHERE {where}"
                " ORDER BY m.at DESC, m.message_id DESC LIMIT :limit"
            ),
            values,
        )
        return [dict(row._mapping) for row in rows]

    async def behave(self, connection: AsyncConnection, kind: str, seconds: float, count: int) -> None:
        await connection.execute(
            text("INSERT INTO dispatcher.sandbox_behaviours (kind, seconds, remaining) VALUES (:kind, :seconds, :n)"),
            {"kind": kind, "seconds": seconds, "n": count},
        )


def _narrowed(
    only: Mapping[str, str | None],
    stores: Collection[str] | None,
    cursor: Cursor | None,
    limit: int,
    columns: tuple[str, str, str],
) -> tuple[str, dict[str, Any]]:
    """The condition of a list and its values: `only` these values by column (None: any), only stores that the caller
    sees, and what comes after the cursor; `columns` are time, id and store."""
    at, identity, store = columns
    where, values = ["true"], dict[str, Any](limit=limit)
    for number, (column, value) in enumerate(only.items()):
        if value is not None:
            where.append(f"{column} = :only_{number}")
            values[f"only_{number}"] = value
    if stores is not None:
        where.append(f"{store} = ANY(CAST(:seen AS text[]))")
        values["seen"] = sorted(stores)
    if cursor is not None:
        where.append(f"({at}, {identity}) < (:at, :id)")
        values |= {"at": cursor.at, "id": cursor.id}
    return " AND ".join(where), values
