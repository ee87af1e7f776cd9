"""The detector's `Orders` in SQL: one statement a table and batch, keys always locked in sorted order."""

from collections.abc import Collection, Mapping, Sequence

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.detector.rules.facts import OrderState, Parcel, merge
from shared.store.unit import Prepare, Raced, UnitOfWork

_encode = msgspec.json.Encoder().encode
_decode_state = msgspec.json.Decoder(OrderState).decode
_decode_parcel = msgspec.json.Decoder(Parcel).decode


class PostgresOrders:
    """State and parked scans as JSON in bytea columns: small, rewritten by each event, in no index."""

    async def load(self, unit: UnitOfWork, order_ids: Sequence[str], wait: bool) -> dict[str, OrderState]:
        rows = await unit.connection.execute(
            text(
                "SELECT order_id, state FROM detector.orders WHERE order_id = ANY(CAST(:ids AS text[]))"
                f" ORDER BY order_id FOR UPDATE {'' if wait else 'SKIP LOCKED'}"
            ),
            {"ids": list(order_ids)},
        )
        return {order_id: _decode_state(state) for order_id, state in rows}

    async def save(
        self, unit: UnitOfWork, states: Mapping[str, OrderState], known: Collection[str], payments: Mapping[str, bytes]
    ) -> None:
        new = [order_id for order_id in states if order_id not in known]
        if new:
            await self._insert(unit, _columns(new, states, payments), len(new))
        paid = [order_id for order_id in states if order_id in known and order_id in payments]
        if paid:
            await unit.connection.execute(
                text(
                    "UPDATE detector.orders AS o SET state = u.state, payment = u.payment"
                    " FROM unnest(CAST(:ids AS text[]), CAST(:states AS bytea[]), CAST(:payments AS bytea[]))"
                    " AS u (id, state, payment) WHERE o.order_id = u.id"
                ),
                _columns(paid, states, payments),
            )
        rest = [order_id for order_id in states if order_id in known and order_id not in payments]
        if rest:
            await unit.connection.execute(
                text(
                    "UPDATE detector.orders AS o SET state = u.state"
                    " FROM unnest(CAST(:ids AS text[]), CAST(:states AS bytea[])) AS u (id, state)"
                    " WHERE o.order_id = u.id"
                ),
                {"ids": rest, "states": [_encode(states[o]) for o in rest]},
            )

    async def _insert(self, unit: UnitOfWork, columns: Mapping[str, object], wanted: int) -> None:
        """Whole new rows. Who waits here holds known rows, and waits only for one who inserts as well, in the same
        sorted order: so nobody waits in a circle."""
        done = await unit.connection.execute(
            text(
                "INSERT INTO detector.orders (order_id, state, payment) SELECT * FROM"
                " unnest(CAST(:ids AS text[]), CAST(:states AS bytea[]), CAST(:payments AS bytea[]))"
                " ON CONFLICT DO NOTHING"
            ),
            columns,
        )
        if done.rowcount < wanted:
            raise Raced("two partitions met on a new order", _stubs(columns["ids"]))

    async def payments(self, unit: UnitOfWork, order_ids: Sequence[str]) -> Mapping[str, bytes]:
        rows = await unit.connection.execute(
            text("SELECT order_id, payment FROM detector.orders WHERE order_id = ANY(CAST(:ids AS text[]))"),
            {"ids": list(order_ids)},
        )
        return {row.order_id: row.payment for row in rows}

    async def link(
        self, unit: UnitOfWork, named: Mapping[str, str], loose: Mapping[str, Parcel]
    ) -> Mapping[str, tuple[str, Parcel]]:
        # One statement locks every number, new or known, in sorted order: the side that comes second sees the first.
        numbers = sorted({*named, *loose})
        rows = await unit.connection.execute(
            text(
                "INSERT INTO detector.parcels AS p (tracking_no, order_id)"
                " SELECT * FROM unnest(CAST(:numbers AS text[]), CAST(:orders AS text[]))"
                " ON CONFLICT (tracking_no) DO UPDATE SET order_id = coalesce(excluded.order_id, p.order_id)"
                " RETURNING tracking_no, order_id, parked"
            ),
            {"numbers": numbers, "orders": [named.get(n) for n in numbers]},
        )
        arrived: dict[str, tuple[str, Parcel]] = {}
        parked: dict[str, Parcel] = {}
        for number, order_id, kept in rows:
            scans = loose.get(number)
            if kept is not None:
                scans = merge(_decode_parcel(kept), scans or Parcel())
            if scans is None:
                continue
            if order_id is None:
                parked[number] = scans
            else:
                arrived[number] = (order_id, scans)
        if parked:
            await unit.connection.execute(
                text(
                    "UPDATE detector.parcels AS p SET parked = u.parked"
                    " FROM unnest(CAST(:numbers AS text[]), CAST(:parked AS bytea[])) AS u (number, parked)"
                    " WHERE p.tracking_no = u.number"
                ),
                {"numbers": list(parked), "parked": [_encode(p) for p in parked.values()]},
            )
        return arrived


def _stubs(order_ids: object) -> Prepare:
    """Empty rows for these orders: committed, they are locked like any other."""

    async def insert(connection: AsyncConnection) -> None:
        await connection.execute(
            text(
                "INSERT INTO detector.orders (order_id, state) SELECT id, '{}' FROM"
                " unnest(CAST(:ids AS text[])) AS u (id) ON CONFLICT DO NOTHING"
            ),
            {"ids": order_ids},
        )

    return insert


def _columns(
    order_ids: Sequence[str], states: Mapping[str, OrderState], payments: Mapping[str, bytes]
) -> dict[str, object]:
    return {
        "ids": list(order_ids),
        "states": [_encode(states[o]) for o in order_ids],
        "payments": [payments.get(o) for o in order_ids],
    }
