"""`ledger.Ledger` in SQL: receipts, customers' messages, opting out."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import text

from services.dispatcher.channels.port import Inbound, Receipt, ReceiptState
from services.dispatcher.ledger import Attempt
from services.dispatcher.postgres.opt_outs import PostgresOptOuts
from services.dispatcher.rules.routing import Asked
from shared.events.notices import NoticeComposed
from shared.store.unit import UnitOfWork


class PostgresLetters(PostgresOptOuts):
    async def attempts(self, unit: UnitOfWork, references: Collection[str]) -> Mapping[str, Attempt]:
        rows = await unit.connection.execute(
            text(
                "SELECT reference, notice_id, step, recipient, state, provider FROM dispatcher.attempts"
                " WHERE reference = ANY(CAST(:references AS text[]))"
            ),
            {"references": sorted(references)},
        )
        return {row.reference: Attempt(*row[1:]) for row in rows}

    async def keep_receipts(self, unit: UnitOfWork, receipts: Sequence[Receipt]) -> None:
        for receipt in receipts:
            # Delivered after accepted says more, accepted after delivered does not.
            await unit.connection.execute(
                text(
                    "UPDATE dispatcher.attempts SET receipt = :state, receipt_detail = :detail"
                    " WHERE reference = :reference AND state = 'claimed'"
                    " AND receipt IS DISTINCT FROM 'delivered' AND receipt IS DISTINCT FROM 'failed'"
                ),
                {"reference": receipt.reference, "state": str(receipt.state), "detail": receipt.detail},
            )

    async def received(self, unit: UnitOfWork, attempts: Sequence[tuple[Attempt, ReceiptState]]) -> None:
        if not attempts:
            return
        await unit.connection.execute(
            text(
                "UPDATE dispatcher.attempts AS a SET state = u.state FROM unnest(CAST(:states AS text[]),"
                " CAST(:notices AS text[]), CAST(:steps AS smallint[]), CAST(:recipients AS text[]))"
                " AS u (state, notice, step, recipient)"
                " WHERE a.notice_id = u.notice AND a.step = u.step AND a.recipient = u.recipient"
            ),
            {
                "states": ["undelivered" if state is ReceiptState.FAILED else "sent" for _, state in attempts],
                "notices": [a.notice_id for a, _ in attempts],
                "steps": [a.step for a, _ in attempts],
                "recipients": [a.recipient for a, _ in attempts],
            },
        )

    async def first_inbound(self, unit: UnitOfWork, provider: str, messages: Sequence[Inbound]) -> Collection[str]:
        rows = await unit.connection.execute(
            text(
                "INSERT INTO dispatcher.inbound (provider, id, at)"
                " SELECT DISTINCT :provider, id, CAST(:now AS timestamptz) FROM unnest(CAST(:ids AS text[])) AS u (id)"
                " ON CONFLICT DO NOTHING RETURNING id"
            ),
            {"provider": provider, "now": unit.now, "ids": sorted({m.id for m in messages})},
        )
        return {row.id for row in rows}

    async def asked(self, unit: UnitOfWork, lookups: Collection[str], since: datetime) -> Sequence[tuple[str, Asked]]:
        rows = await unit.connection.execute(
            text(
                "SELECT a.recipient, n.notice_id, n.body, coalesce(n.sent_at, a.claimed_at) AS sent_at"
                " FROM (SELECT notice_id, recipient, claimed_at, state FROM dispatcher.attempts"
                " WHERE recipient = ANY(CAST(:lookups AS text[])) AND claimed_at > :since"
                " UNION SELECT notice_id, recipient, claimed_at, state FROM dispatcher.attempts"
                " WHERE reply_key = ANY(CAST(:lookups AS text[])) AND reply_key <> '' AND claimed_at > :since) a"
                " JOIN dispatcher.notices n USING (notice_id)"
                " WHERE a.state IN ('sent', 'unknown', 'claimed', 'undelivered')"
                " AND n.purpose IN ('first_contact', 'update', 'reminder', 'satisfaction')"
            ),
            {"lookups": sorted(lookups), "since": since},
        )
        return [(row.recipient, _asked(row)) for row in rows]

    async def asked_by(self, unit: UnitOfWork, notice_id: str) -> Asked | None:
        row = (
            await unit.connection.execute(
                text(
                    "SELECT notice_id, body, coalesce(sent_at, came_at) AS sent_at FROM dispatcher.notices"
                    " WHERE notice_id = :id"
                ),
                {"id": notice_id},
            )
        ).one_or_none()
        return None if row is None else _asked(row)


def _asked(row: Any) -> Asked:
    data = NoticeComposed.model_validate_json(row.body)
    return Asked(
        notice_id=data.notice_id,
        incident_id=data.incident_id,
        order_id=data.order_id,
        store_id=data.store_id,
        purpose=data.purpose,
        numbers=frozenset(option.number for option in data.options),
        sent_at=row.sent_at,
    )
