"""A service's own view of what people have set (`shared.events.stores`), projected from the settings topic.

Newest wins by the event's stamp, so any order and repetition ends in the same view. Stops that were lifted and keys
that were revoked stay as rows: their stamp is what keeps an older event from undoing them. All calls run in the
caller's transaction.
"""

import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import TypeAdapter
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.events.envelope import Event
from shared.events.stores import ANY, KeySet, SendingStopped, Setting, StoreConfigured, WaveReleased
from shared.store.database import Database

KEY_SECONDS: Final = 5.0
MOST_KEYS: Final = 10_000

_KINDS: Final[dict[str, TypeAdapter[Any]]] = {
    model.TYPE: TypeAdapter(model) for model in (StoreConfigured, SendingStopped, WaveReleased, KeySet)
}


@dataclass(frozen=True, slots=True)
class Stop:
    """What is stopped; `*` stands for all."""

    store_id: str
    scenario: str
    channel: str
    reason: str

    def covers(self, store_id: str, scenario: str, channel: str) -> bool:
        return all(
            mine in (ANY, other)
            for mine, other in ((self.store_id, store_id), (self.scenario, scenario), (self.channel, channel))
        )


async def project(connection: AsyncConnection, schema: str, events: Iterable[Event[Any]]) -> list[Event[Setting]]:
    """Take the settings among these events into the view. Returns those that were news, in their order."""
    news = []
    for event in events:
        if not isinstance(event.data, Setting):
            continue
        done = await connection.execute(
            text(
                f"INSERT INTO {schema}.settings AS s (key, type, time_us, source, id, body)"
                " VALUES (:key, :type, :time_us, :source, :id, CAST(:body AS jsonb))"
                " ON CONFLICT (key) DO UPDATE SET type = excluded.type, time_us = excluded.time_us,"
                " source = excluded.source, id = excluded.id, body = excluded.body"
                " WHERE (s.time_us, s.source, s.id) < (excluded.time_us, excluded.source, excluded.id)"
            ),
            {
                "key": event.data.key,
                "type": event.type,
                "time_us": event.stamp.time_us,
                "source": event.source,
                "id": event.id,
                "body": event.data.model_dump_json(exclude_none=True),
            },
        )
        if done.rowcount:
            news.append(event)
    return news


async def stores(connection: AsyncConnection, schema: str, store_ids: Collection[str]) -> Mapping[str, StoreConfigured]:
    """Those of these stores that somebody has set up."""
    found = await _bodies(connection, schema, StoreConfigured.TYPE, store_ids)
    return {store.store_id: store for store in found}


async def all_stores(connection: AsyncConnection, schema: str) -> Sequence[StoreConfigured]:
    """Every store that somebody has set up, by id."""
    return await _bodies(connection, schema, StoreConfigured.TYPE, None)


async def stops(connection: AsyncConnection, schema: str) -> Sequence[Stop]:
    """What is stopped now."""
    found: Sequence[SendingStopped] = await _bodies(connection, schema, SendingStopped.TYPE, None)
    return [Stop(s.store_id, s.scenario, s.channel, s.reason) for s in found if s.stopped]


async def api_key(connection: AsyncConnection, schema: str, sha256: str) -> KeySet | None:
    """The key with this hash, unless it was revoked."""
    row = await connection.scalar(
        text(f"SELECT body FROM {schema}.settings WHERE type = :type AND body->>'sha256' = :sha256"),
        {"type": KeySet.TYPE, "sha256": sha256},
    )
    found = None if row is None else KeySet.model_validate_json(json.dumps(row))
    return None if found is None or found.revoked else found


class StoredKeys:
    """One service's view of the API keys (a `shared.access.Keys`). A key is asked for anew after `KEY_SECONDS`: that
    long a revoked one may still work."""

    def __init__(self, database: Database, schema: str) -> None:
        self._database = database
        self._schema = schema
        self._known: dict[str, tuple[float, KeySet | None]] = {}

    async def __call__(self, sha256: str) -> KeySet | None:
        until, found = self._known.get(sha256, (0.0, None))
        if time.monotonic() < until:
            return found
        async with self._database.transaction() as connection:
            found = await api_key(connection, self._schema, sha256)
        if len(self._known) >= MOST_KEYS:
            self._known.clear()
        self._known[sha256] = (time.monotonic() + KEY_SECONDS, found)
        return found


async def api_keys(connection: AsyncConnection, schema: str) -> Sequence[KeySet]:
    return await _bodies(connection, schema, KeySet.TYPE, None)


async def _bodies(connection: AsyncConnection, schema: str, kind: str, keys: Collection[str] | None) -> list[Any]:
    rows = await connection.execute(
        text(
            f"SELECT body::text FROM {schema}.settings WHERE type = :type"
            " AND (CAST(:keys AS text[]) IS NULL OR key = ANY(CAST(:keys AS text[]))) ORDER BY key"
        ),
        {"type": kind, "keys": None if keys is None else list(keys)},
    )
    return [_KINDS[kind].validate_json(body) for (body,) in rows]
