"""What the follow-up's REST reads, and what people do to tasks, in SQL. Every call runs in the caller's transaction."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.paging import Cursor

MOST_ORDERS: Final = 1000
"""Order ids that a task lists; `count` is exact all the same."""
LAST: Final = 200
"""How many promises of a kind its share of kept ones counts."""

_CASES: Final = text(
    """
    SELECT case_id, order_id, store_id, scenario, state, cause, occurred_at, detected_at, contact_due_at, contacted_at,
        replies, choice, compensation::text AS compensation, currency, score, closed_as, closed_at
    FROM followup.cases
    WHERE state IS NOT NULL
        AND (CAST(:case_id AS text) IS NULL OR case_id = :case_id)
        AND (CAST(:order_id AS text) IS NULL OR order_id = :order_id)
        AND (CAST(:state AS text) IS NULL OR state = :state)
        AND (CAST(:stores AS text[]) IS NULL OR store_id = ANY(CAST(:stores AS text[])))
        AND (CAST(:at AS timestamptz) IS NULL OR (detected_at, case_id) < (CAST(:at AS timestamptz), CAST(:id AS text)))
    ORDER BY detected_at DESC, case_id DESC LIMIT :limit
    """
)
_TASKS: Final = text(
    """
    SELECT t.task_id, t.kind, t.state, t.store_id, t.scenario, t.cause,
        coalesce(t.case_id, CASE WHEN m.cases = 1 AND t.least = 0 THEN m.case_id END) AS case_id,
        t.reason, t.urgency, t.created_at, t.due_at, t.claimed_by, t.done_by, t.done_at, t.note,
        greatest(t.least, m.count) AS count, m.order_ids,
        CASE WHEN t.kind = 'wave' THEN (
            SELECT w.member FROM followup.task_members w WHERE w.task_id = t.task_id AND w.case_id IS NULL
            ORDER BY w.open DESC, w.member LIMIT 1) END AS wave_id
    FROM followup.tasks t
    CROSS JOIN LATERAL (
        SELECT count(DISTINCT coalesce(case_id, member)) AS count, count(DISTINCT case_id) AS cases,
            min(case_id) AS case_id,
            (array_agg(DISTINCT order_id) FILTER (WHERE order_id IS NOT NULL))[1 : CAST(:most AS integer)] AS order_ids
        FROM followup.task_members WHERE task_id = t.task_id AND (open OR t.state = 'done')
    ) m
    WHERE (CAST(:task_id AS text) IS NULL OR t.task_id = :task_id)
        AND (CAST(:kind AS text) IS NULL OR t.kind = :kind)
        AND (CAST(:state AS text) IS NULL OR t.state = :state)
        AND (CAST(:stores AS text[]) IS NULL OR t.store_id = ANY(CAST(:stores AS text[])))
        AND (CAST(:order_id AS text) IS NULL OR EXISTS (
            SELECT 1 FROM followup.task_members o WHERE o.task_id = t.task_id AND o.order_id = :order_id
                AND (o.open OR t.state = 'done')))
        AND (CAST(:case_id AS text) IS NULL OR EXISTS (
            SELECT 1 FROM followup.task_members c WHERE c.task_id = t.task_id AND c.case_id = :case_id
                AND (c.open OR t.state = 'done')))
        AND (CAST(:at AS timestamptz) IS NULL
            OR (t.created_at, t.task_id) < (CAST(:at AS timestamptz), CAST(:id AS text)))
    ORDER BY t.created_at DESC, t.task_id DESC LIMIT :limit
    """
)
_PROMISES: Final = text(
    """
    SELECT promise_id, case_id, order_id, store_id, scenario, kind, text, state, made_at, due_at, settled_at, reason
    FROM followup.promises
    WHERE (CAST(:promise_id AS text) IS NULL OR promise_id = :promise_id)
        AND (CAST(:case_id AS text) IS NULL OR case_id = :case_id)
        AND (CAST(:order_id AS text) IS NULL OR order_id = :order_id)
        AND (CAST(:state AS text) IS NULL OR state = :state)
        AND (CAST(:stores AS text[]) IS NULL OR store_id = ANY(CAST(:stores AS text[])))
        AND (CAST(:at AS timestamptz) IS NULL
            OR (made_at, promise_id) < (CAST(:at AS timestamptz), CAST(:id AS text)))
    ORDER BY made_at DESC, promise_id DESC LIMIT :limit
    """
)
_STATS: Final = text(
    """
    SELECT store_id, scenario, count(*) AS incidents, count(contacted_at) AS told,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM contacted_at - detected_at))
            FILTER (WHERE contacted_at IS NOT NULL) AS median,
        percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM contacted_at - detected_at))
            FILTER (WHERE contacted_at IS NOT NULL) AS p95,
        count(*) FILTER (WHERE contacted_at <= detected_at + interval '2 hours') AS within_2h,
        coalesce(sum(replies), 0) AS replies, coalesce(sum(compensation), 0)::text AS compensation,
        count(*) FILTER (WHERE state = 'closed') AS closed, avg(score) AS score
    FROM followup.cases
    WHERE state IS NOT NULL
        AND (CAST(:since AS timestamptz) IS NULL OR detected_at >= CAST(:since AS timestamptz))
        AND (CAST(:until AS timestamptz) IS NULL OR detected_at < CAST(:until AS timestamptz))
        AND (CAST(:stores AS text[]) IS NULL OR store_id = ANY(CAST(:stores AS text[])))
    GROUP BY store_id, scenario ORDER BY store_id, scenario
    """
)
_CHOICES: Final = text(
    """
    SELECT store_id, scenario, choice, count(*) AS count FROM followup.cases
    WHERE state IS NOT NULL AND choice IS NOT NULL
        AND (CAST(:since AS timestamptz) IS NULL OR detected_at >= CAST(:since AS timestamptz))
        AND (CAST(:until AS timestamptz) IS NULL OR detected_at < CAST(:until AS timestamptz))
        AND (CAST(:stores AS text[]) IS NULL OR store_id = ANY(CAST(:stores AS text[])))
    GROUP BY store_id, scenario, choice
    """
)
_PROMISED: Final = text(
    """
    SELECT p.store_id, p.scenario, p.state, count(*) AS count
    FROM followup.promises p JOIN followup.cases c USING (case_id)
    WHERE (CAST(:since AS timestamptz) IS NULL OR c.detected_at >= CAST(:since AS timestamptz))
        AND (CAST(:until AS timestamptz) IS NULL OR c.detected_at < CAST(:until AS timestamptz))
        AND (CAST(:stores AS text[]) IS NULL OR p.store_id = ANY(CAST(:stores AS text[])))
    GROUP BY p.store_id, p.scenario, p.state
    """
)
_OPEN_TASKS: Final = text(
    """
    SELECT store_id, scenario, count(*) AS count FROM followup.tasks
    WHERE state <> 'done' AND (CAST(:stores AS text[]) IS NULL OR store_id = ANY(CAST(:stores AS text[])))
    GROUP BY store_id, scenario
    """
)
_KEPT: Final = text(
    """
    SELECT store_id, kind, count(*) AS settled, count(*) FILTER (WHERE state = 'kept') AS kept
    FROM (
        SELECT store_id, kind, state,
            row_number() OVER (PARTITION BY store_id, kind ORDER BY settled_at DESC, promise_id) AS n
        FROM followup.promises WHERE state IN ('kept', 'broken')
            AND (CAST(:stores AS text[]) IS NULL OR store_id = ANY(CAST(:stores AS text[])))
    ) latest
    WHERE n <= :last GROUP BY store_id, kind ORDER BY store_id, kind
    """
)

Row = Mapping[str, Any]


class Queries:
    """`stores` limits what is found (None: all); lists are newest first, `limit` rows from behind `after`."""

    async def cases(self, connection: AsyncConnection, limit: int, after: Cursor | None, **by: Any) -> Sequence[Row]:
        wanted = {"case_id": None, "order_id": None, "state": None, "stores": None, **by}
        return await _all(connection, _CASES, limit, after, wanted)

    async def tasks(self, connection: AsyncConnection, limit: int, after: Cursor | None, **by: Any) -> Sequence[Row]:
        names = ("task_id", "kind", "state", "stores", "order_id", "case_id")
        return await _all(connection, _TASKS, limit, after, {**dict.fromkeys(names), "most": MOST_ORDERS, **by})

    async def promises(self, connection: AsyncConnection, limit: int, after: Cursor | None, **by: Any) -> Sequence[Row]:
        names = ("promise_id", "case_id", "order_id", "state", "stores")
        return await _all(connection, _PROMISES, limit, after, {**dict.fromkeys(names), **by})

    async def timeline(self, connection: AsyncConnection, case_id: str) -> Sequence[Row]:
        rows = await connection.execute(
            text("SELECT at, type, data FROM followup.timeline WHERE case_id = :case_id ORDER BY at, seq"),
            {"case_id": case_id},
        )
        return [dict(row) for row in rows.mappings()]

    async def stats(
        self,
        connection: AsyncConnection,
        since: datetime | None,
        until: datetime | None,
        stores: Collection[str] | None,
    ) -> dict[str, Any]:
        """Figures by store and scenario of the incidents detected in [since, until), and each store's kinds of promise
        by their last 200."""
        wanted = {"since": since, "until": until, "stores": None if stores is None else list(stores)}
        only = {"stores": wanted["stores"]}
        groups = [dict(r) for r in (await connection.execute(_STATS, wanted)).mappings()]
        choices = [dict(r) for r in (await connection.execute(_CHOICES, wanted)).mappings()]
        promised = [dict(r) for r in (await connection.execute(_PROMISED, wanted)).mappings()]
        tasks = [dict(r) for r in (await connection.execute(_OPEN_TASKS, only)).mappings()]
        kept = [dict(r) for r in (await connection.execute(_KEPT, {**only, "last": LAST})).mappings()]
        for group in groups:
            group["choices"] = _here(group, choices, "choice")
            group["promises"] = _here(group, promised, "state")
            group["open_tasks"] = sum(_here(group, tasks, "scenario").values())
        return {"groups": groups, "kinds": kept, "open_tasks": sum(t["count"] for t in tasks)}

    async def task_for_update(self, connection: AsyncConnection, task_id: str) -> Row | None:
        rows = await connection.execute(
            text("SELECT * FROM followup.tasks WHERE task_id = :id FOR UPDATE"), {"id": task_id}
        )
        found = rows.mappings().first()
        return None if found is None else dict(found)

    async def claim(self, connection: AsyncConnection, task_id: str, by: str) -> None:
        await connection.execute(
            text("UPDATE followup.tasks SET state = 'claimed', claimed_by = :by WHERE task_id = :id"),
            {"id": task_id, "by": by},
        )

    async def done(self, connection: AsyncConnection, task_id: str, by: str, note: str, now: datetime) -> None:
        await connection.execute(
            text(
                "UPDATE followup.tasks SET state = 'done', done_by = :by, done_at = :now, note = :note"
                " WHERE task_id = :id"
            ),
            {"id": task_id, "by": by, "note": note, "now": now},
        )


def _here(group: Row, rows: Sequence[Row], key: str) -> dict[str, int]:
    """The counts of this group's store and scenario, by `key`."""
    here = (group["store_id"], group["scenario"])
    return {row[key]: row["count"] for row in rows if (row["store_id"], row["scenario"]) == here}


async def _all(
    connection: AsyncConnection, sql: Any, limit: int, after: Cursor | None, wanted: Mapping[str, Any]
) -> Sequence[Row]:
    place = {"at": after.at if after else None, "id": after.id if after else None}
    rows = await connection.execute(sql, {**wanted, **place, "limit": limit})
    return [dict(row) for row in rows.mappings()]
