"""Who wants no more messages, in SQL."""

from collections.abc import Collection, Sequence

from sqlalchemy import text

from services.dispatcher.handlers import Customer
from shared.events.notices import NoticeComposed
from shared.store.unit import UnitOfWork


class PostgresOptOuts:
    async def opted_out(self, unit: UnitOfWork, lookups: Collection[tuple[str, str]]) -> Collection[tuple[str, str]]:
        rows = await unit.connection.execute(
            text(
                "SELECT o.store_id, o.lookup FROM dispatcher.opt_outs o"
                " JOIN unnest(CAST(:stores AS text[]), CAST(:lookups AS text[])) AS u (store, lookup)"
                " ON o.store_id = u.store AND o.lookup = u.lookup"
            ),
            {"stores": [store for store, _ in lookups], "lookups": [lookup for _, lookup in lookups]},
        )
        return {(row.store_id, row.lookup) for row in rows}

    async def opt_out(self, unit: UnitOfWork, store_id: str, lookups: Collection[str], channel: str, by: str) -> bool:
        done = await unit.connection.execute(
            text(
                "INSERT INTO dispatcher.opt_outs (store_id, lookup, at, channel, by_whom)"
                " SELECT :store, lookup, CAST(:now AS timestamptz), :channel, :by"
                " FROM unnest(CAST(:lookups AS text[])) AS u (lookup) ON CONFLICT DO NOTHING"
            ),
            {"store": store_id, "now": unit.now, "channel": channel, "by": by, "lookups": sorted(lookups)},
        )
        return bool(done.rowcount)

    async def customers(self, unit: UnitOfWork, incident_ids: Collection[str]) -> Sequence[Customer]:
        rows = await unit.connection.execute(
            text(
                "SELECT n.body, array_remove(array_agg(a.recipient ORDER BY a.claimed_at DESC), NULL) AS recipients,"
                " array_remove(array_agg(nullif(a.reply_key, '')), NULL) AS reply_keys FROM dispatcher.notices n"
                " LEFT JOIN dispatcher.attempts a USING (notice_id) WHERE n.incident_id = ANY(CAST(:ids AS text[]))"
                " GROUP BY n.notice_id ORDER BY n.came_at DESC, n.notice_id"
            ),
            {"ids": sorted(incident_ids)},
        )
        found = []
        for row in rows:
            data = NoticeComposed.model_validate_json(row.body)
            recipients = [*row.recipients, *(contact.lookup for contact in data.contacts)]
            if recipients:
                lookups = frozenset([*recipients, *row.reply_keys])
                found.append(Customer(data.store_id, data.order_id, recipients[0], lookups))
        return found
