"""The composer's `Incidents` in SQL, and what its REST reads: one statement a table and batch, keys in sorted order."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import text

from services.composer.rules.steps import Known
from shared.events.deliveries import WavePaused
from shared.events.envelope import Event
from shared.events.incidents import Incident
from shared.events.stores import KeySet, Setting, StoreConfigured
from shared.paging import Cursor
from shared.store import stores
from shared.store.database import Database
from shared.store.unit import Raced, UnitOfWork

SCHEMA = "composer"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Known).decode


class PostgresIncidents:
    """State and newest revision as JSON in bytea columns: rewritten by each event, in no index."""

    async def load(self, unit: UnitOfWork, incident_ids: Sequence[str]) -> dict[str, Known]:
        ids = {"ids": list(incident_ids)}
        await unit.connection.execute(
            text(
                "INSERT INTO composer.incidents (incident_id, state)"
                " SELECT id, '{}' FROM unnest(CAST(:ids AS text[])) AS u (id) ON CONFLICT DO NOTHING"
            ),
            ids,
        )
        rows = await unit.connection.execute(
            text(
                "SELECT incident_id, state FROM composer.incidents WHERE incident_id = ANY(CAST(:ids AS text[]))"
                " ORDER BY incident_id FOR UPDATE"
            ),
            ids,
        )
        return {incident_id: _decode(state) for incident_id, state in rows}

    async def newest(self, unit: UnitOfWork, incident_ids: Sequence[str]) -> Mapping[str, Incident]:
        rows = await unit.connection.execute(
            text(
                "SELECT incident_id, incident FROM composer.incidents"
                " WHERE incident_id = ANY(CAST(:ids AS text[])) AND incident IS NOT NULL"
            ),
            {"ids": list(incident_ids)},
        )
        return {incident_id: Incident.model_validate_json(body) for incident_id, body in rows}

    async def save(self, unit: UnitOfWork, known: Mapping[str, Known], fresh: Mapping[str, Incident]) -> None:
        bodies = {i: incident.model_dump_json(exclude_none=True).encode() for i, incident in fresh.items()}
        await unit.connection.execute(
            text(
                "UPDATE composer.incidents AS i SET state = u.state, incident = coalesce(u.incident, i.incident)"
                " FROM unnest(CAST(:ids AS text[]), CAST(:states AS bytea[]), CAST(:incidents AS bytea[]))"
                " AS u (id, state, incident) WHERE i.incident_id = u.id"
            ),
            {
                "ids": list(known),
                "states": [_encode(one) for one in known.values()],
                "incidents": [bodies.get(incident_id) for incident_id in known],
            },
        )

    async def digits(self, unit: UnitOfWork, lookups: Sequence[str]) -> Mapping[str, Mapping[int, str]]:
        rows = await unit.connection.execute(
            text(
                "SELECT lookup, number, incident_id FROM composer.digits WHERE lookup = ANY(CAST(:lookups AS text[]))"
            ),
            {"lookups": list(lookups)},
        )
        found: dict[str, dict[int, str]] = {}
        for lookup, number, incident_id in rows:
            found.setdefault(lookup, {})[number] = incident_id
        return found

    async def take(self, unit: UnitOfWork, digits: Sequence[tuple[str, int, str]]) -> None:
        lookups, numbers, incident_ids = zip(*digits, strict=True)
        done = await unit.connection.execute(
            text(
                "INSERT INTO composer.digits (lookup, number, incident_id)"
                " SELECT * FROM unnest(CAST(:lookups AS text[]), CAST(:numbers AS smallint[]), CAST(:ids AS text[]))"
                " ON CONFLICT DO NOTHING"
            ),
            {"lookups": list(lookups), "numbers": list(numbers), "ids": list(incident_ids)},
        )
        if done.rowcount < len(digits):
            raise Raced("two partitions met on one address's digits")

    async def free(self, unit: UnitOfWork, incident_ids: Sequence[str]) -> None:
        await unit.connection.execute(
            text("DELETE FROM composer.digits WHERE incident_id = ANY(CAST(:ids AS text[]))"),
            {"ids": list(incident_ids)},
        )

    async def stores(self, unit: UnitOfWork, store_ids: Sequence[str]) -> Mapping[str, StoreConfigured]:
        return await stores.stores(unit.connection, SCHEMA, store_ids)

    async def settings(self, unit: UnitOfWork, events: Sequence[Event[Setting]]) -> None:
        keys = sorted({event.data.key for event in events})
        rows = await unit.connection.execute(
            text("SELECT key, body FROM composer.settings WHERE key = ANY(CAST(:keys AS text[]))"), {"keys": keys}
        )
        known: dict[str, Any] = {row.key: row.body for row in rows}
        for event in await stores.project(unit.connection, SCHEMA, events):
            data = event.data
            body = data.model_dump(mode="json", exclude_none=True)
            await unit.connection.execute(
                text(
                    "INSERT INTO composer.audit (id, at, by, type, store_id, what, old, new) VALUES (:id, :at, :by,"
                    " :type, :store_id, :what, CAST(:old AS jsonb), CAST(:new AS jsonb)) ON CONFLICT DO NOTHING"
                ),
                {
                    "id": f"{event.source}/{event.id}",
                    "at": event.time,
                    "by": data.by,
                    "type": event.type,
                    "store_id": getattr(data, "store_id", None),
                    "what": data.key,
                    "old": _told(known.get(data.key)),
                    "new": _told(body),
                },
            )
            known[data.key] = body

    async def waves(self, unit: UnitOfWork, waves: Sequence[WavePaused]) -> None:
        await unit.connection.execute(
            text(
                "INSERT INTO composer.waves (wave_id, store_id)"
                " SELECT * FROM unnest(CAST(:ids AS text[]), CAST(:stores AS text[])) ON CONFLICT DO NOTHING"
            ),
            {"ids": [w.wave_id for w in waves], "stores": [w.store_id for w in waves]},
        )


class Audited(NamedTuple):
    """Who set what, from what, to what."""

    id: str
    at: datetime
    by: str
    type: str
    store_id: str | None
    what: str
    old: Any
    new: Any


class PostgresView:
    """What the REST reads: the composer's own view of the settings."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def store(self, store_id: str) -> StoreConfigured | None:
        async with self._database.transaction() as connection:
            return (await stores.stores(connection, SCHEMA, [store_id])).get(store_id)

    async def stores(self) -> Sequence[StoreConfigured]:
        async with self._database.transaction() as connection:
            return await stores.all_stores(connection, SCHEMA)

    async def keys(self) -> Sequence[KeySet]:
        async with self._database.transaction() as connection:
            return await stores.api_keys(connection, SCHEMA)

    async def set_at(self, key: str) -> int | None:
        """When what is in force under this key was set, in microseconds since the epoch; None where nothing is."""
        async with self._database.transaction() as connection:
            found: int | None = await connection.scalar(
                text("SELECT time_us FROM composer.settings WHERE key = :key"), {"key": key}
            )
            return found

    async def wave_store(self, wave_id: str) -> str | None:
        async with self._database.transaction() as connection:
            found: str | None = await connection.scalar(
                text("SELECT store_id FROM composer.waves WHERE wave_id = :id"), {"id": wave_id}
            )
            return found

    async def audit(self, store_ids: Sequence[str] | None, after: Cursor | None, limit: int) -> Sequence[Audited]:
        """Newest first; of these stores only, where any are given."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(
                text(
                    "SELECT id, at, by, type, store_id, what, old, new FROM composer.audit"
                    " WHERE (CAST(:stores AS text[]) IS NULL OR store_id = ANY(CAST(:stores AS text[])))"
                    " AND (CAST(:at AS timestamptz) IS NULL OR (at, id) < (CAST(:at AS timestamptz), :id))"
                    " ORDER BY at DESC, id DESC LIMIT :limit"
                ),
                {
                    "stores": None if store_ids is None else list(store_ids),
                    "at": after.at if after else None,
                    "id": after.id if after else None,
                    "limit": limit,
                },
            )
            return [Audited(*row) for row in rows]


def _told(body: Mapping[str, Any] | None) -> str | None:
    """The body as the audit keeps it: a key's hash is nobody's business."""
    if body is None:
        return None
    return json.dumps({name: value for name, value in body.items() if name != "sha256"}, ensure_ascii=False)
