"""`handlers.Projection` in SQL."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from sqlalchemy import text

from services.dispatcher.handlers import Surge
from services.dispatcher.postgres.opt_outs import PostgresOptOuts
from services.dispatcher.rules import wave
from services.dispatcher.rules.state import IncidentState, OrderView, Progress
from shared.events.deliveries import WavePaused
from shared.events.incidents import Scenario
from shared.events.notices import OFFERING, NoticeComposed
from shared.events.stores import WaveReleased
from shared.store.unit import Raced, UnitOfWork

encode = msgspec.json.Encoder().encode
decode_order = msgspec.json.Decoder(OrderView).decode
decode_incident = msgspec.json.Decoder(IncidentState).decode

T = TypeVar("T")


async def load_states(
    unit: UnitOfWork, table: str, key: str, ids: Sequence[str], decode: Callable[[bytes], T]
) -> dict[str, T]:
    """Lock these rows in their order and read their states; in a careful unit stubs are made first."""
    if unit.careful:
        await unit.connection.execute(
            text(
                f"INSERT INTO dispatcher.{table} ({key}, state) SELECT id, '{{}}' FROM"
                " unnest(CAST(:ids AS text[])) AS u (id) ON CONFLICT DO NOTHING"
            ),
            {"ids": list(ids)},
        )
    rows = await unit.connection.execute(
        text(
            f"SELECT {key}, state FROM dispatcher.{table} WHERE {key} = ANY(CAST(:ids AS text[]))"
            f" ORDER BY {key} FOR UPDATE"
        ),
        {"ids": list(ids)},
    )
    return {identity: decode(state) for identity, state in rows}


async def save_states(
    unit: UnitOfWork, table: str, key: str, states: Mapping[str, Any], known: Collection[str]
) -> None:
    """Insert the new ones, update the others. Raises `Raced` where a new one exists by now."""
    new = [identity for identity in states if identity not in known]
    if new:
        done = await unit.connection.execute(
            text(
                f"INSERT INTO dispatcher.{table} ({key}, state)"
                " SELECT * FROM unnest(CAST(:ids AS text[]), CAST(:states AS bytea[])) ON CONFLICT DO NOTHING"
            ),
            {"ids": new, "states": [encode(states[i]) for i in new]},
        )
        if done.rowcount < len(new):
            raise Raced(f"two transactions met on a new row of {table}")
    old = [identity for identity in states if identity in known]
    if old:
        await unit.connection.execute(
            text(
                f"UPDATE dispatcher.{table} AS t SET state = u.state"
                f" FROM unnest(CAST(:ids AS text[]), CAST(:states AS bytea[])) AS u (id, state) WHERE t.{key} = u.id"
            ),
            {"ids": old, "states": [encode(states[i]) for i in old]},
        )


class PostgresProjection(PostgresOptOuts):
    async def orders(self, unit: UnitOfWork, ids: Sequence[str]) -> dict[str, OrderView]:
        return await load_states(unit, "orders", "order_id", ids, decode_order)

    async def save_orders(self, unit: UnitOfWork, views: Mapping[str, OrderView], known: Collection[str]) -> None:
        await save_states(unit, "orders", "order_id", views, known)

    async def incidents(self, unit: UnitOfWork, ids: Sequence[str]) -> dict[str, IncidentState]:
        return await load_states(unit, "incidents", "incident_id", ids, decode_incident)

    async def save_incidents(
        self, unit: UnitOfWork, states: Mapping[str, IncidentState], known: Collection[str]
    ) -> None:
        await save_states(unit, "incidents", "incident_id", states, known)

    async def take_in(self, unit: UnitOfWork, notices: Sequence[NoticeComposed]) -> Sequence[NoticeComposed]:
        by_id = {n.notice_id: n for n in notices}
        ordered = [by_id[i] for i in sorted(by_id)]
        progress = encode(Progress(came_at=unit.now))
        rows = await unit.connection.execute(
            text(
                "INSERT INTO dispatcher.notices (notice_id, incident_id, order_id, store_id, scenario, purpose, state,"
                " came_at, urgent_at, look_at, body, progress) SELECT id, incident, ordered, store, scenario, purpose,"
                " 'ready', :now, urgent, :now, body, :progress FROM unnest(CAST(:ids AS text[]),"
                " CAST(:incidents AS text[]), CAST(:orders AS text[]), CAST(:stores AS text[]),"
                " CAST(:scenarios AS text[]), CAST(:purposes AS text[]), CAST(:urgent AS timestamptz[]),"
                " CAST(:bodies AS bytea[])) AS u (id, incident, ordered, store, scenario, purpose, urgent, body)"
                " ON CONFLICT DO NOTHING RETURNING notice_id"
            ),
            {
                "now": unit.now,
                "progress": progress,
                "ids": [n.notice_id for n in ordered],
                "incidents": [n.incident_id for n in ordered],
                "orders": [n.order_id for n in ordered],
                "stores": [n.store_id for n in ordered],
                "scenarios": [str(n.scenario) for n in ordered],
                "purposes": [str(n.purpose) for n in ordered],
                "urgent": [_urgent_at(n, unit.now) for n in ordered],
                "bodies": [n.model_dump_json(exclude_none=True).encode() for n in ordered],
            },
        )
        return [by_id[notice_id] for (notice_id,) in rows]

    async def look_again(
        self, unit: UnitOfWork, *, orders: Collection[str] = (), incidents: Collection[str] = ()
    ) -> None:
        for column, ids in (("order_id", orders), ("incident_id", incidents)):
            if ids:
                await unit.connection.execute(
                    text(
                        "UPDATE dispatcher.notices AS n SET look_at = :now FROM (SELECT notice_id FROM"
                        f" dispatcher.notices WHERE {column} = ANY(CAST(:ids AS text[])) AND is_open"
                        " ORDER BY notice_id FOR UPDATE) AS mine"
                        " WHERE n.notice_id = mine.notice_id"
                    ),
                    {"now": unit.now, "ids": sorted(ids)},
                )

    async def look_again_in(
        self, unit: UnitOfWork, store_id: str | None, scenario: str | None, reason: str | None
    ) -> None:
        await unit.connection.execute(
            text(
                "UPDATE dispatcher.notices AS n SET look_at = :now FROM (SELECT notice_id FROM dispatcher.notices"
                " WHERE is_open AND (CAST(:store AS text) IS NULL OR store_id = :store)"
                " AND (CAST(:scenario AS text) IS NULL OR scenario = :scenario)"
                " AND (CAST(:reason AS text) IS NULL OR reason = :reason) ORDER BY notice_id FOR UPDATE) AS mine"
                " WHERE n.notice_id = mine.notice_id"
            ),
            {"now": unit.now, "store": store_id, "scenario": scenario, "reason": reason},
        )

    async def wake(self, unit: UnitOfWork, notice_ids: Sequence[str]) -> Collection[str]:
        rows = await unit.connection.execute(
            text(
                "WITH mine AS (SELECT notice_id FROM dispatcher.notices WHERE notice_id = ANY(CAST(:ids AS text[]))"
                " ORDER BY notice_id FOR UPDATE SKIP LOCKED) UPDATE dispatcher.notices AS n"
                " SET look_at = CASE WHEN is_open THEN coalesce(look_at, :now) END"
                " FROM mine WHERE n.notice_id = mine.notice_id RETURNING n.notice_id"
            ),
            {"now": unit.now, "ids": list(notice_ids)},
        )
        return [notice_id for (notice_id,) in rows]

    async def count(self, unit: UnitOfWork, changes: Mapping[tuple[str, str, str], int]) -> None:
        if not changes:
            return
        keys = sorted(changes)
        # A slot for each connection: two transactions seldom meet on a row, and the sum is what counts.
        await unit.connection.execute(
            text(
                "INSERT INTO dispatcher.tallies AS t (store_id, name, bucket, slot, n)"
                " SELECT store, name, bucket, pg_backend_pid() % 32, n FROM unnest(CAST(:stores AS text[]),"
                " CAST(:names AS text[]), CAST(:buckets AS text[]), CAST(:n AS int[])) AS u (store, name, bucket, n)"
                " ORDER BY 1, 2, 3 ON CONFLICT (store_id, name, bucket, slot) DO UPDATE SET n = t.n + excluded.n"
            ),
            {
                "stores": [k[0] for k in keys],
                "names": [k[1] for k in keys],
                "buckets": [k[2] for k in keys],
                "n": [changes[k] for k in keys],
            },
        )

    async def surge(self, unit: UnitOfWork, store_id: str, scenario: Scenario) -> Surge:
        last = (
            await unit.connection.execute(
                text(
                    "SELECT number, released_at FROM dispatcher.waves WHERE store_id = :store AND scenario = :scenario"
                    " ORDER BY number DESC LIMIT 1"
                ),
                {"store": store_id, "scenario": scenario},
            )
        ).one_or_none()
        begin = wave.since(unit.now, last.released_at if last else None)
        rows = await unit.connection.execute(
            text(
                "SELECT name, coalesce(sum(n), 0)::bigint AS n FROM dispatcher.tallies WHERE store_id = :store"
                " AND (name = 'open' OR (name = :first AND bucket > :begin)) GROUP BY name"
            ),
            {"store": store_id, "first": f"first/{scenario}", "begin": f"{begin:%Y-%m-%dT%H:%M}"},
        )
        counts = {row.name: row.n for row in rows}
        return Surge(
            first_contacts=counts.get(f"first/{scenario}", 0),
            open_orders=max(counts.get("open", 0), 0),
            number=last.number if last else 0,
            paused=last is not None and last.released_at is None,
        )

    async def pause(self, unit: UnitOfWork, number: int, paused: WavePaused, words: str) -> bool:
        done = await unit.connection.execute(
            text(
                "INSERT INTO dispatcher.waves (store_id, scenario, number, wave_id, started_at, words)"
                " VALUES (:store, :scenario, :number, :wave, :now, :words) ON CONFLICT DO NOTHING"
            ),
            {
                "store": paused.store_id,
                "scenario": paused.scenario,
                "number": number,
                "wave": paused.wave_id,
                "now": unit.now,
                "words": words,
            },
        )
        return bool(done.rowcount)

    async def release(self, unit: UnitOfWork, released: WaveReleased, at: datetime) -> str | None:
        found: str | None = await unit.connection.scalar(
            text(
                "UPDATE dispatcher.waves SET released_at = :at, sends = :sends"
                " WHERE wave_id = :wave AND released_at IS NULL RETURNING scenario"
            ),
            {"at": at, "sends": released.sends, "wave": released.wave_id},
        )
        return found


def _urgent_at(notice: NoticeComposed, now: datetime) -> datetime:
    """Whose turn comes first: by the limit for offers; what follows a choice is as urgent as its coming."""
    due = notice.contact_due_at
    return due if due is not None and notice.purpose in OFFERING else now
