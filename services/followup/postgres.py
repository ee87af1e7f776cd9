"""The follow-up's `Cases` in SQL: one statement a table and batch, keys always locked in sorted order."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import text

from services.followup.rows import CASE, PROMISE, TASK, case_row, encode, promise_row, task_row
from services.followup.rules.announce import remedy_id
from services.followup.rules.facts import Case
from services.followup.rules.order import Order
from services.followup.rules.tasks import Task
from services.followup.rules.timeline import Moment
from shared.store.unit import Raced, UnitOfWork

_decode_case = msgspec.json.Decoder(Case).decode
_decode_order = msgspec.json.Decoder(Order).decode


def _rows(columns: Mapping[str, str]) -> str:
    """A table of bound arrays, one a column."""
    return "SELECT * FROM unnest(" + ", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in columns.items()) + ")"


def _arrays(columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in columns}


def _set(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{name} = u.{name}" for name in columns)


class PostgresCases:
    """Cases as JSON in a bytea column beside what lists need; timelines, promises and tasks as rows."""

    async def lock_orders(self, unit: UnitOfWork, order_ids: Sequence[str]) -> dict[str, Order]:
        rows = await unit.connection.execute(
            text(
                "INSERT INTO followup.orders AS o (order_id) SELECT unnest(CAST(:ids AS text[]))"
                " ON CONFLICT (order_id) DO UPDATE SET order_id = o.order_id RETURNING order_id, facts"
            ),
            {"ids": list(order_ids)},
        )
        return {order_id: _decode_order(facts) for order_id, facts in rows}

    async def orders(self, unit: UnitOfWork, order_ids: Collection[str]) -> dict[str, Order]:
        rows = await unit.connection.execute(
            text("SELECT order_id, facts FROM followup.orders WHERE order_id = ANY(CAST(:ids AS text[]))"),
            {"ids": list(order_ids)},
        )
        return {order_id: _decode_order(facts) for order_id, facts in rows}

    async def save_orders(self, unit: UnitOfWork, orders: Mapping[str, Order]) -> None:
        await unit.connection.execute(
            text(
                "UPDATE followup.orders AS o SET facts = u.facts"
                " FROM unnest(CAST(:ids AS text[]), CAST(:facts AS bytea[])) AS u (id, facts) WHERE o.order_id = u.id"
            ),
            {"ids": list(orders), "facts": [encode(o) for o in orders.values()]},
        )

    async def of_orders(self, unit: UnitOfWork, order_ids: Collection[str]) -> list[tuple[str, str]]:
        rows = await unit.connection.execute(
            text(
                "SELECT order_id, case_id FROM followup.cases WHERE order_id = ANY(CAST(:ids AS text[]))"
                " ORDER BY detected_at DESC NULLS LAST, case_id"
            ),
            {"ids": list(order_ids)},
        )
        return [(row.order_id, row.case_id) for row in rows]

    async def of_remedies(self, unit: UnitOfWork, remedy_ids: Collection[str]) -> dict[str, str]:
        rows = await unit.connection.execute(
            text("SELECT remedy_id, case_id FROM followup.cases WHERE remedy_id = ANY(CAST(:ids AS text[]))"),
            {"ids": list(remedy_ids)},
        )
        return {row.remedy_id: row.case_id for row in rows}

    async def load(self, unit: UnitOfWork, case_ids: Sequence[str], wait: bool) -> dict[str, Case]:
        if unit.careful:
            await unit.connection.execute(
                text(
                    "INSERT INTO followup.cases (case_id, remedy_id)"
                    " SELECT * FROM unnest(CAST(:ids AS text[]), CAST(:remedies AS text[])) ON CONFLICT DO NOTHING"
                ),
                {"ids": list(case_ids), "remedies": [remedy_id(c) for c in case_ids]},
            )
        rows = await unit.connection.execute(
            text(
                "SELECT case_id, facts FROM followup.cases WHERE case_id = ANY(CAST(:ids AS text[]))"
                f" ORDER BY case_id FOR UPDATE {'' if wait else 'SKIP LOCKED'}"
            ),
            {"ids": list(case_ids)},
        )
        found = {}
        for case_id, facts in rows:
            case = found[case_id] = _decode_case(facts)
            case.case_id = case_id
        return found

    async def save(self, unit: UnitOfWork, cases: Mapping[str, Case], known: Collection[str]) -> None:
        new = [case_row(case) for case_id, case in cases.items() if case_id not in known]
        if new:
            done = await unit.connection.execute(
                text(f"INSERT INTO followup.cases ({', '.join(CASE)}) {_rows(CASE)} ON CONFLICT DO NOTHING"),
                _arrays(CASE, new),
            )
            if done.rowcount < len(new):
                raise Raced("two partitions met on a new case")
        old = [case_row(case) for case_id, case in cases.items() if case_id in known]
        if old:
            await unit.connection.execute(
                text(
                    f"UPDATE followup.cases AS c SET {_set(CASE)}"
                    f" FROM ({_rows(CASE)}) AS u ({', '.join(CASE)}) WHERE c.case_id = u.case_id"
                ),
                _arrays(CASE, old),
            )

    async def tell(self, unit: UnitOfWork, moments: Sequence[Moment]) -> None:
        await unit.connection.execute(
            text(
                "INSERT INTO followup.timeline (case_id, id, at, type, data) SELECT a, b, c, d, CAST(e AS jsonb)"
                " FROM unnest(CAST(:cases AS text[]), CAST(:ids AS text[]), CAST(:ats AS timestamptz[]),"
                " CAST(:types AS text[]), CAST(:data AS text[])) AS u (a, b, c, d, e) ON CONFLICT DO NOTHING"
            ),
            {
                "cases": [m.case_id for m in moments],
                "ids": [m.id for m in moments],
                "ats": [m.at for m in moments],
                "types": [m.type for m in moments],
                "data": [json.dumps(m.data, ensure_ascii=False) for m in moments],
            },
        )

    async def save_promises(self, unit: UnitOfWork, changed: Sequence[tuple[Case, str]]) -> None:
        rows = [promise_row(case, identity) for case, identity in changed]
        updated = ("made_at", "state", "settled_at", "reason")
        await unit.connection.execute(
            text(
                f"INSERT INTO followup.promises ({', '.join(PROMISE)}) {_rows(PROMISE)} ON CONFLICT (promise_id)"
                f" DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in updated)}"
            ),
            _arrays(PROMISE, rows),
        )

    async def raise_tasks(self, unit: UnitOfWork, raised: Sequence[tuple[Case, Task]]) -> None:
        rows: dict[str, dict[str, Any]] = {}
        for case, task in raised:
            row = task_row(case, task, unit.now)
            before = rows.setdefault(task.group, row)
            before["urgency"] = max(before["urgency"], row["urgency"])
            before["due_at"] = min(before["due_at"], row["due_at"])
        ids = await self._upsert(unit, [rows[group] for group in sorted(rows)])
        await unit.connection.execute(
            text(
                "INSERT INTO followup.task_members (task_id, member, case_id, order_id) SELECT * FROM unnest("
                " CAST(:tasks AS text[]), CAST(:members AS text[]), CAST(:cases AS text[]), CAST(:orders AS text[]))"
                " ON CONFLICT (task_id, member) DO UPDATE SET open = true"
            ),
            {
                "tasks": [ids[task.group] for _, task in raised],
                "members": [f"{case.case_id}/{task.key}" for case, task in raised],
                "cases": [case.case_id for case, _ in raised],
                "orders": [case.order_id for case, _ in raised],
            },
        )

    async def raise_once(
        self, unit: UnitOfWork, member: str, task: Task, *, store_id: str | None, scenario: str | None, least: int
    ) -> None:
        case = Case(store_id=store_id)
        row = {**task_row(case, task, unit.now), "case_id": None, "scenario": scenario, "least": least}
        seen = await unit.connection.scalar(
            text("SELECT 1 FROM followup.task_members WHERE member = :member"), {"member": member}
        )
        if seen:
            return
        [task_id] = (await self._upsert(unit, [row])).values()
        await unit.connection.execute(
            text("INSERT INTO followup.task_members (task_id, member) VALUES (:task, :member) ON CONFLICT DO NOTHING"),
            {"task": task_id, "member": member},
        )

    async def _upsert(self, unit: UnitOfWork, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """The open task of each group, made where there is none."""
        found = await unit.connection.execute(
            text(
                f"INSERT INTO followup.tasks AS t ({', '.join(TASK)}) {_rows(TASK)}"
                " ON CONFLICT (group_key) WHERE state <> 'done' DO UPDATE SET"
                " urgency = greatest(t.urgency, excluded.urgency), due_at = least(t.due_at, excluded.due_at),"
                " least = greatest(t.least, excluded.least),"
                " reason = CASE WHEN excluded.urgency >= t.urgency THEN excluded.reason ELSE t.reason END"
                " RETURNING group_key, task_id"
            ),
            _arrays(TASK, rows),
        )
        return {row.group_key: row.task_id for row in found}

    async def withdraw(self, unit: UnitOfWork, members: Collection[str]) -> None:
        # The tasks are locked first, so that of two who leave the same one the second sees that it is empty.
        locked = await unit.connection.execute(
            text(
                "SELECT task_id FROM followup.tasks WHERE state <> 'done' AND task_id IN (SELECT task_id"
                " FROM followup.task_members WHERE open AND member = ANY(CAST(:members AS text[])))"
                " ORDER BY group_key FOR UPDATE"
            ),
            {"members": list(members)},
        )
        ids = [row.task_id for row in locked]
        if not ids:
            return
        await unit.connection.execute(
            text(
                "UPDATE followup.task_members SET open = false WHERE task_id = ANY(CAST(:ids AS text[]))"
                " AND member = ANY(CAST(:members AS text[]))"
            ),
            {"ids": ids, "members": list(members)},
        )
        await unit.connection.execute(
            text(
                "UPDATE followup.tasks AS t SET state = 'done', done_by = 'headsup', done_at = :now,"
                " note = 'no longer needed' WHERE task_id = ANY(CAST(:ids AS text[]))"
                " AND NOT EXISTS (SELECT 1 FROM followup.task_members m WHERE m.task_id = t.task_id AND m.open)"
            ),
            {"ids": ids, "now": unit.now},
        )
