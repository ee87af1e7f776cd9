"""The detector's `Listing` and `Feeds` in SQL, and what its REST reads."""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import text

from shared.events.incidents import Incident, IncidentResolved
from shared.paging import Cursor
from shared.store import stores
from shared.store.database import Database
from shared.store.unit import UnitOfWork

GRAIN: Final = timedelta(seconds=30)
"""A feed that spoke within this long of what is written is not written again: a store's row would be locked by every
batch."""


class PostgresListing:
    """One row an incident, as it was last emitted."""

    async def keep(self, unit: UnitOfWork, told: Sequence[Incident]) -> None:
        rows = sorted(told, key=lambda incident: incident.incident_id)
        await unit.connection.execute(
            text(
                "INSERT INTO detector.incidents (incident_id, order_id, store_id, scenario, open, detected_at, body)"
                " SELECT * FROM unnest(CAST(:ids AS text[]), CAST(:orders AS text[]), CAST(:stores AS text[]),"
                " CAST(:scenarios AS text[]), CAST(:open AS boolean[]), CAST(:detected AS timestamptz[]),"
                " CAST(:bodies AS bytea[])) ON CONFLICT (incident_id) DO UPDATE SET open = excluded.open,"
                " detected_at = excluded.detected_at, body = excluded.body"
            ),
            {
                "ids": [r.incident_id for r in rows],
                "orders": [r.order_id for r in rows],
                "stores": [r.store_id for r in rows],
                "scenarios": [str(r.scenario) for r in rows],
                "open": [not isinstance(r, IncidentResolved) for r in rows],
                "detected": [r.detected_at for r in rows],
                "bodies": [r.model_dump_json(exclude_none=True).encode() for r in rows],
            },
        )


class PostgresFeeds:
    """One row a store."""

    async def heard(self, unit: UnitOfWork, newest: Mapping[str, datetime]) -> None:
        found = sorted(newest.items())
        await unit.connection.execute(
            text(
                "INSERT INTO detector.feeds AS f (store_id, last_at) SELECT u.* FROM"
                " unnest(CAST(:stores AS text[]), CAST(:times AS timestamptz[])) AS u (store_id, last_at)"
                " WHERE NOT EXISTS (SELECT FROM detector.feeds k WHERE k.store_id = u.store_id"
                " AND k.last_at >= u.last_at - CAST(:grain AS interval))"
                " ON CONFLICT (store_id) DO UPDATE SET last_at = greatest(f.last_at, excluded.last_at)"
            ),
            {"stores": [s for s, _ in found], "times": [t for _, t in found], "grain": GRAIN},
        )

    async def stale(
        self, unit: UnitOfWork, store_ids: Collection[str], newest: Mapping[str, datetime]
    ) -> Collection[str]:
        known = await stores.stores(unit.connection, unit.schema, store_ids)
        limits = {s: store.feeds.orders_minutes for s, store in known.items() if store.feeds.orders_minutes is not None}
        if not limits:
            return ()
        rows = await unit.connection.execute(
            text("SELECT store_id, last_at FROM detector.feeds WHERE store_id = ANY(CAST(:stores AS text[]))"),
            {"stores": list(limits)},
        )
        last = {row.store_id: row.last_at for row in rows}
        for store_id, said in newest.items():
            last[store_id] = max(said, last.get(store_id, said))
        return [
            store_id
            for store_id, minutes in limits.items()
            if store_id not in last or unit.now - last[store_id] > timedelta(minutes=minutes) + GRAIN
        ]


class Incidents:
    """What was told, read by REST. Addresses are left out of it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self,
        *,
        order_id: str | None,
        store_ids: Collection[str] | None,
        is_open: bool | None,
        after: Cursor | None,
        limit: int,
    ) -> list[dict[str, Any]]:
        """The newest first; `store_ids` None means all."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(
                text(
                    "SELECT open, convert_from(body, 'UTF8') AS body FROM detector.incidents"
                    " WHERE (CAST(:order AS text) IS NULL OR order_id = :order)"
                    " AND (CAST(:stores AS text[]) IS NULL OR store_id = ANY(CAST(:stores AS text[])))"
                    " AND (CAST(:open AS boolean) IS NULL OR open = :open)"
                    " AND (CAST(:at AS timestamptz) IS NULL OR (detected_at, incident_id) < (:at, CAST(:id AS text)))"
                    " ORDER BY detected_at DESC, incident_id DESC LIMIT :limit"
                ),
                {
                    "order": order_id,
                    "stores": None if store_ids is None else list(store_ids),
                    "open": is_open,
                    "at": after.at if after else None,
                    "id": after.id if after else None,
                    "limit": limit,
                },
            )
            return [_shown(row.open, row.body) for row in rows]

    async def one(self, incident_id: str) -> dict[str, Any] | None:
        async with self._database.transaction() as connection:
            row = (
                await connection.execute(
                    text(
                        "SELECT open, convert_from(body, 'UTF8') AS body FROM detector.incidents"
                        " WHERE incident_id = :id"
                    ),
                    {"id": incident_id},
                )
            ).one_or_none()
        return None if row is None else _shown(row.open, row.body)


def _shown(is_open: bool, body: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(body)
    found["facts"].pop("contacts", None)
    return {"state": "open" if is_open else "resolved", **found}
