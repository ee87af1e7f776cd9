"""`ledger.Ledger` in SQL: turns, claims and outcomes."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import msgspec
from sqlalchemy import text

from services.dispatcher.ledger import Claim, Done, LastWave, Loaded, Pause, Scene
from services.dispatcher.postgres.letters import PostgresLetters
from services.dispatcher.postgres.projection import (
    PostgresProjection,
    decode_incident,
    decode_order,
    encode,
    load_states,
    save_states,
)
from services.dispatcher.rules.state import Notice, Progress, State, reference_of
from shared.events.deliveries import Reason
from shared.events.notices import NoticeComposed
from shared.store import offsets, stores
from shared.store.unit import UnitOfWork

COLUMNS: Final = (
    "n.notice_id, n.incident_id, n.state, n.reason, n.detail, n.releasable, n.look_at, n.claimed_until, n.sent_at,"
    " n.body, n.progress"
)
_decode_progress = msgspec.json.Decoder(Progress).decode


def read_notice(row: Any) -> Notice:
    """A row with `COLUMNS` as a notice."""
    return Notice(
        data=NoticeComposed.model_validate_json(row.body),
        progress=_decode_progress(row.progress),
        state=State(row.state),
        reason=Reason(row.reason) if row.reason else None,
        detail=row.detail,
        releasable=row.releasable,
        look_at=row.look_at,
        claimed_until=row.claimed_until,
        sent_at=row.sent_at,
    )


class PostgresLedger(PostgresLetters):
    def __init__(self, schema: str, topics: Sequence[str]) -> None:
        self._schema = schema
        self._topics = tuple(topics)

    async def view_at(self, unit: UnitOfWork) -> datetime | None:
        return await offsets.watermark(unit.connection, self._schema, self._topics)

    async def due(self, unit: UnitOfWork, limit: int, urgent_before: datetime | None = None) -> Loaded:
        only = ""
        if urgent_before is not None:
            only = (
                " AND n.urgent_at < :before AND n.state IN ('ready', 'waiting') AND n.sent_at IS NULL"
                " AND n.purpose IN ('first_contact', 'update', 'reminder')"
            )
        return await self._load(
            unit,
            f"n.look_at IS NOT NULL AND n.look_at <= :now AND n.claimed_until IS NULL{only}"
            " ORDER BY n.urgent_at, n.notice_id LIMIT :limit",
            {"now": unit.now, "limit": limit, **({} if urgent_before is None else {"before": urgent_before})},
        )

    async def lapsed(self, unit: UnitOfWork, mine: Collection[str]) -> Loaded:
        found = await unit.connection.scalars(
            text(
                "SELECT notice_id FROM dispatcher.notices WHERE claimed_until <= :now"
                " AND notice_id <> ALL(CAST(:mine AS text[])) ORDER BY notice_id LIMIT 500"
            ),
            {"now": unit.now, "mine": list(mine)},
        )
        ids = found.all()
        if not ids:
            return Loaded()
        loaded = await self.locked(unit, ids)
        # Looked at again under the lock: another process may have been faster.
        loaded.notices = {
            i: n for i, n in loaded.notices.items() if n.claimed_until is not None and n.claimed_until <= unit.now
        }
        return loaded

    async def _load(self, unit: UnitOfWork, where: str, values: Mapping[str, Any]) -> Loaded:
        # Notice and incident are locked together and never waited for, so this order of locks harms nobody.
        rows = await unit.connection.execute(
            text(
                f"SELECT {COLUMNS}, i.state AS incident FROM dispatcher.notices n"
                f" JOIN dispatcher.incidents i USING (incident_id) WHERE {where} FOR UPDATE OF n, i SKIP LOCKED"
            ),
            dict(values),
        )
        loaded = Loaded()
        for row in rows:
            loaded.notices[row.notice_id] = read_notice(row)
            if row.incident_id not in loaded.incidents:
                loaded.incidents[row.incident_id] = decode_incident(row.incident)
        return loaded

    async def locked(self, unit: UnitOfWork, notice_ids: Collection[str]) -> Loaded:
        ids = sorted(notice_ids)
        found = await unit.connection.scalars(
            text("SELECT incident_id FROM dispatcher.notices WHERE notice_id = ANY(CAST(:ids AS text[]))"), {"ids": ids}
        )
        incidents = await load_states(unit, "incidents", "incident_id", sorted(set(found)), decode_incident)
        # The others of these incidents are locked with them, in the one order: `look_again` writes them later.
        rows = await unit.connection.execute(
            text(
                f"SELECT {COLUMNS} FROM dispatcher.notices n WHERE n.notice_id = ANY(CAST(:ids AS text[]))"
                " OR (n.is_open AND n.incident_id = ANY(CAST(:incidents AS text[]))) ORDER BY n.notice_id FOR UPDATE"
            ),
            {"ids": ids, "incidents": sorted(incidents)},
        )
        wanted = frozenset(ids)
        return Loaded({row.notice_id: read_notice(row) for row in rows if row.notice_id in wanted}, incidents)

    async def scene(self, unit: UnitOfWork, loaded: Loaded) -> Scene:
        data = [n.data for n in loaded.notices.values()]
        store_ids = sorted({d.store_id for d in data})
        execute = unit.connection.execute
        orders = await execute(
            text("SELECT order_id, state FROM dispatcher.orders WHERE order_id = ANY(CAST(:ids AS text[]))"),
            {"ids": sorted({d.order_id for d in data})},
        )
        busy = await unit.connection.scalars(
            text(
                "SELECT incident_id FROM dispatcher.notices WHERE incident_id = ANY(CAST(:ids AS text[]))"
                " AND claimed_until IS NOT NULL"
            ),
            {"ids": sorted(loaded.incidents)},
        )
        waves = await execute(
            text(
                "SELECT DISTINCT ON (store_id, scenario) store_id, scenario, words, sends FROM dispatcher.waves"
                " WHERE store_id = ANY(CAST(:ids AS text[])) ORDER BY store_id, scenario, number DESC"
            ),
            {"ids": store_ids},
        )
        return Scene(
            stores=await stores.stores(unit.connection, self._schema, store_ids),
            stops=await stores.stops(unit.connection, self._schema),
            waves={(row.store_id, row.scenario): LastWave(row.words, row.sends) for row in waves},
            orders={row.order_id: decode_order(row.state) for row in orders},
            busy=set(busy),
            pauses=await self.pauses(unit),
        )

    async def spent(
        self, unit: UnitOfWork, keys: Collection[tuple[str, str, str]]
    ) -> dict[tuple[str, str, str], Decimal]:
        ordered = sorted(keys)
        columns = {
            "stores": [k[0] for k in ordered],
            "names": [k[1] for k in ordered],
            "buckets": [k[2] for k in ordered],
        }
        given = (
            "unnest(CAST(:stores AS text[]), CAST(:names AS text[]), CAST(:buckets AS text[]))"
            " AS u (store, name, bucket)"
        )
        await unit.connection.execute(
            text(
                "INSERT INTO dispatcher.tallies (store_id, name, bucket)"
                f" SELECT store, name, bucket FROM {given} ON CONFLICT DO NOTHING"
            ),
            columns,
        )
        rows = await unit.connection.execute(
            text(
                f"SELECT t.store_id, t.name, t.bucket, t.n FROM dispatcher.tallies t JOIN {given}"
                " ON t.store_id = u.store AND t.name = u.name AND t.bucket = u.bucket AND t.slot = 0"
                " ORDER BY t.store_id, t.name, t.bucket FOR UPDATE OF t"
            ),
            columns,
        )
        return {(row.store_id, row.name, row.bucket): row.n for row in rows}

    async def spend(self, unit: UnitOfWork, values: Mapping[tuple[str, str, str], Decimal]) -> None:
        if not values:
            return
        await unit.connection.execute(
            text(
                "UPDATE dispatcher.tallies AS t SET n = u.n FROM unnest(CAST(:stores AS text[]),"
                " CAST(:names AS text[]), CAST(:buckets AS text[]), CAST(:n AS numeric[]))"
                " AS u (store, name, bucket, n) WHERE t.store_id = u.store AND t.name = u.name"
                " AND t.bucket = u.bucket AND t.slot = 0"
            ),
            {
                "stores": [k[0] for k in values],
                "names": [k[1] for k in values],
                "buckets": [k[2] for k in values],
                "n": list(values.values()),
            },
        )

    async def claim(self, unit: UnitOfWork, claims: Sequence[Claim], claimed_by: str) -> Collection[tuple[str, int]]:
        ordered = sorted(claims, key=lambda c: (c.notice.data.notice_id, c.step))
        rows = await unit.connection.execute(
            text(
                "INSERT INTO dispatcher.attempts AS a (notice_id, step, recipient, reference, reply_key, provider,"
                " state, attempt, claimed_by, claimed_at) SELECT notice, step, recipient, reference, reply_key,"
                " provider, 'claimed', attempt, :by, :now FROM unnest(CAST(:notices AS text[]),"
                " CAST(:steps AS smallint[]), CAST(:recipients AS text[]), CAST(:references AS text[]),"
                " CAST(:reply_keys AS text[]), CAST(:providers AS text[]), CAST(:attempts AS int[]))"
                " AS u (notice, step, recipient, reference, reply_key, provider, attempt)"
                " ON CONFLICT (notice_id, step, recipient) DO UPDATE SET state = 'claimed', receipt = NULL,"
                " attempt = excluded.attempt, provider = excluded.provider, claimed_by = excluded.claimed_by,"
                " claimed_at = excluded.claimed_at WHERE a.state = 'failed' RETURNING notice_id, step"
            ),
            {
                "by": claimed_by,
                "now": unit.now,
                "notices": [c.notice.data.notice_id for c in ordered],
                "steps": [c.step for c in ordered],
                "recipients": [c.candidate.recipient for c in ordered],
                "references": [reference_of(c.notice.data.notice_id, c.candidate.recipient, c.step) for c in ordered],
                "reply_keys": [c.candidate.reply_key for c in ordered],
                "providers": [c.candidate.provider for c in ordered],
                "attempts": [c.notice.progress.steps[c.step].attempt for c in ordered],
            },
        )
        return {(row.notice_id, row.step) for row in rows}

    async def finish(
        self, unit: UnitOfWork, done: Sequence[Done], claimed_by: str | None
    ) -> Mapping[tuple[str, int], tuple[str, str] | None]:
        rows = await unit.connection.execute(
            text(
                "UPDATE dispatcher.attempts AS a SET state = u.state, provider_id = coalesce(u.provider, a.provider_id)"
                " FROM unnest(CAST(:notices AS text[]), CAST(:steps AS smallint[]), CAST(:recipients AS text[]),"
                " CAST(:attempts AS int[]), CAST(:states AS text[]), CAST(:providers AS text[]))"
                " AS u (notice, step, recipient, attempt, state, provider)"
                " WHERE a.notice_id = u.notice AND a.step = u.step AND a.recipient = u.recipient"
                " AND a.attempt = u.attempt AND (CASE WHEN CAST(:by AS text) IS NULL THEN a.state = 'claimed'"
                " ELSE a.claimed_by = :by AND a.state IN ('claimed', 'unknown') END)"
                " RETURNING a.notice_id, a.step, a.receipt, a.receipt_detail"
            ),
            {
                "by": claimed_by,
                "notices": [d.notice_id for d in done],
                "steps": [d.step for d in done],
                "recipients": [d.recipient for d in done],
                "attempts": [d.attempt for d in done],
                "states": [d.state for d in done],
                "providers": [d.provider_id for d in done],
            },
        )
        return {
            (row.notice_id, row.step): (row.receipt, row.receipt_detail) if row.receipt is not None else None
            for row in rows
        }

    async def save(self, unit: UnitOfWork, loaded: Loaded) -> None:
        await save_states(unit, "incidents", "incident_id", loaded.incidents, loaded.incidents)
        notices = list(loaded.notices.values())
        for notice in notices:
            if notice.wake_at is not None:
                unit.wake(notice.data.notice_id, notice.wake_at)
        await unit.connection.execute(
            text(
                "UPDATE dispatcher.notices AS n SET state = u.state, reason = u.reason, detail = u.detail,"
                " releasable = u.releasable, is_open = u.is_open, look_at = u.look_at,"
                " claimed_until = u.claimed_until, sent_at = u.sent_at, progress = u.progress"
                " FROM unnest(CAST(:ids AS text[]), CAST(:states AS text[]), CAST(:reasons AS text[]),"
                " CAST(:details AS text[]), CAST(:releasables AS boolean[]), CAST(:opens AS boolean[]),"
                " CAST(:looks AS timestamptz[]), CAST(:claims AS timestamptz[]), CAST(:sents AS timestamptz[]),"
                " CAST(:progresses AS bytea[])) AS u (id, state, reason, detail, releasable, is_open, look_at,"
                " claimed_until, sent_at, progress) WHERE n.notice_id = u.id"
            ),
            {
                "ids": [n.data.notice_id for n in notices],
                "states": [str(n.state) for n in notices],
                "reasons": [str(n.reason) if n.reason else None for n in notices],
                "details": [n.detail for n in notices],
                "releasables": [n.releasable for n in notices],
                "opens": [n.open for n in notices],
                "looks": [n.look_at for n in notices],
                "claims": [n.claimed_until for n in notices],
                "sents": [n.sent_at for n in notices],
                "progresses": [encode(n.progress) for n in notices],
            },
        )

    async def look_again(self, unit: UnitOfWork, incidents: Collection[str]) -> None:
        await PostgresProjection().look_again(unit, incidents=incidents)

    async def look_again_at_paused(self, unit: UnitOfWork) -> None:
        await unit.connection.execute(
            text(
                "UPDATE dispatcher.notices AS n SET look_at = :now FROM (SELECT notice_id FROM dispatcher.notices"
                " WHERE is_open AND state <> 'held' ORDER BY notice_id FOR UPDATE) AS mine"
                " WHERE n.notice_id = mine.notice_id"
            ),
            {"now": unit.now},
        )

    async def paused(self, unit: UnitOfWork, pauses: Mapping[str, Pause | None]) -> None:
        for name in sorted(pauses):
            pause = pauses[name]
            if pause is None:
                await unit.connection.execute(
                    text("DELETE FROM dispatcher.channels WHERE name = :name"), {"name": name}
                )
                continue
            await unit.connection.execute(
                text(
                    "INSERT INTO dispatcher.channels (name, failures, paused_until, account, reason)"
                    " VALUES (:name, :failures, :until, :account, :reason) ON CONFLICT (name) DO UPDATE SET"
                    " failures = excluded.failures, paused_until = excluded.paused_until,"
                    " account = excluded.account, reason = excluded.reason"
                ),
                {
                    "name": name,
                    "failures": pause.failures,
                    "until": pause.until,
                    "account": pause.account,
                    "reason": pause.reason,
                },
            )

    async def pauses(self, unit: UnitOfWork) -> Mapping[str, Pause]:
        rows = await unit.connection.execute(
            text("SELECT name, failures, paused_until, account, reason FROM dispatcher.channels")
        )
        return {row.name: Pause(*row[1:]) for row in rows}

    async def waiting(self, unit: UnitOfWork) -> bool:
        found = await unit.connection.scalar(
            text(
                "SELECT EXISTS (SELECT 1 FROM dispatcher.notices WHERE look_at IS NOT NULL AND look_at <= :now"
                " AND claimed_until IS NULL) OR EXISTS"
                " (SELECT 1 FROM dispatcher.notices WHERE claimed_until IS NOT NULL AND claimed_until <= :now)"
            ),
            {"now": unit.now},
        )
        return bool(found)

    async def figures(self, unit: UnitOfWork) -> tuple[int, int]:
        row = (
            await unit.connection.execute(
                text(
                    "SELECT (SELECT count(*) FROM dispatcher.attempts WHERE state = 'unknown') AS unknown,"
                    " (SELECT count(*) FROM dispatcher.notices WHERE state = 'held') AS held"
                )
            )
        ).one()
        return row.unknown, row.held
